# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The tables of an evaluation's document: rows of text for Markdown and HTML, numbers for CSV."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..types import JsonDict
from .bootstrap import METRICS
from .reports import markdown_table, percent

TITLES = {
    'average_precision': 'AP',
    'average_precision_missed': 'AP, lost counted',
    'fpr95': 'FPR95',
    'auroc': 'AUROC',
    'best_f1': 'best F1',
}
REGION_TITLES = {'image': 'whole image', 'ground': 'predicted ground', 'road': 'road'}
CSV_HEADER = (
    *('run', 'set', 'region', 'metric', 'value', 'low_95', 'high_95'),
    *('bound_low', 'bound_high', 'pictures'),
)


def metric_rows(document: JsonDict, data: str) -> Iterator[tuple[str, str, JsonDict]]:
    """Yield (run, region, record) of a set, run by run."""
    for run in document['runs']:
        for region, record in run['sets'][data].get('regions', {}).items():
            yield run['name'], region, record


def set_names(document: JsonDict) -> list[str]:
    """Return the sets in their order."""
    return list(document['runs'][0]['sets'])


def headline_table(document: JsonDict, data: str) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of a set of anomalies: percent with 95 % intervals."""
    metrics = [name for name in TITLES if name in METRICS]
    header = ['run', 'region', *(TITLES[name] for name in metrics)]
    rows = []
    for run, region, record in metric_rows(document, data):
        cells = [percent(record[name], record['intervals'][name]) for name in metrics]
        rows.append([run, REGION_TITLES[region], *cells])
    components = [run['sets'][data].get('components') for run in document['runs']]
    if any(components):
        header.append('component F1')
        by_run = {run['name']: c for run, c in zip(document['runs'], components, strict=True)}
        for row in rows:
            found = by_run[row[0]]
            row.append(percent(found['f1'], found['f1_interval']) if found else '-')
    return header, rows


def promise_cells(document: JsonDict, data: str) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of a set with known classes: promised against observed, percent."""
    header = ['run', 'pictures of', 'class', 'promised', 'flagged [95 %]', 'within x2', 'pixels']
    rows = []
    for run in document['runs']:
        for row in run['sets'][data].get('rows', []):
            observed = percent(row['observed'], row['interval'], places=2)
            kept = 'yes' if row['kept'] else 'no'
            cells = [row['group'], row['class_name'], f'{100 * row["promised"]:g}', observed, kept]
            rows.append([run['name'], *cells, str(row['pixels'])])
    return header, rows


def markdown(document: JsonDict) -> str:
    """Return every set's headline table as Markdown."""
    parts = [
        'Percent, with 95 % bootstrap intervals over pictures.\n',
    ]
    for data in set_names(document):
        first = document['runs'][0]['sets'][data]
        parts.append(f'### {data} ({first["count"]} pictures)\n')
        if 'regions' in first:
            parts.append(markdown_table(*headline_table(document, data)))
        else:
            parts.append(markdown_table(*promise_cells(document, data)))
        skipped = {row['name'] for run in document['runs'] for row in run['sets'][data]['skipped']}
        if skipped:
            parts.append(f'Skipped: {", ".join(sorted(skipped))}\n')
    if document['comparisons']:
        parts.append('### Differences\n')
        parts.append(markdown_table(*comparison_table(document['comparisons'])))
    return '\n'.join(parts)


def comparison_table(comparisons: Sequence[JsonDict]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows: one line per pair, set and region; differences in words."""
    from .compare import in_words

    metrics = ('average_precision', 'fpr95', 'auroc')
    header = ['set', 'region', 'difference', 'pictures', *(TITLES[name] for name in metrics)]
    rows = []
    for row in comparisons:
        words = [in_words(m, row['metrics'][m], row['first'], row['second']) for m in metrics]
        pair = f'{row["first"]} minus {row["second"]}'
        region = REGION_TITLES[row['region']]
        rows.append([row['set'], region, pair, str(row['metrics']['pictures']), *words])
    return header, rows


def csv_rows(document: JsonDict) -> Iterator[list[Any]]:
    """Yield one row per run, set, region and metric, as shares of 1; see CSV_HEADER."""
    for data in set_names(document):
        for run, region, record in metric_rows(document, data):
            for name in TITLES:
                if name in record:
                    interval = record['intervals'].get(name, [None, None])
                    bounds = record['bounds'][name]
                    values = [record[name], *interval, *bounds, record['pictures']]
                    yield [run, data, region, name, *values]
        for one in document['runs']:
            for row in one['sets'][data].get('rows', []):
                metric = f'flagged at {row["promised"]:g}, {row["group"]}, {row["class_name"]}'
                values = [row['observed'], *row['interval'], None, None, row['pictures']]
                yield [one['name'], data, 'labelled', metric, *values]


PICTURE_COLUMNS = (
    *('name', 'sequence', 'average_precision', 'average_precision_missed', 'objects'),
    *('objects_found', 'anomaly_missed', 'normal_flagged'),
)


def picture_rows(document: JsonDict) -> Iterator[list[Any]]:
    """Yield one row per run, set and picture: run, set, PICTURE_COLUMNS."""
    for run in document['runs']:
        for data, one in run['sets'].items():
            for picture in one['pictures']:
                yield [run['name'], data, *(picture.get(name) for name in PICTURE_COLUMNS)]


def found_cells(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return an object table's rows as text."""
    return [
        [
            row['name'],
            str(row['objects']),
            _share_of(row['found'], row['objects']),
            percent(row['flagged']),
            percent(row['inside']),
        ]
        for row in rows
    ]


def _share_of(part: int, whole: int) -> str:
    return f'{part} ({100 * part / whole:.0f} %)' if whole else '-'
