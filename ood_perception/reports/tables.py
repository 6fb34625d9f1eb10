# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The tables of an evaluation's document: text for Markdown and HTML, values for CSV."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ood_perception.evaluation.results import GROUPS
from ood_perception.metrics.false_alarm_rate import EVERY_GROUP, POOLED
from ood_perception.metrics.pixel import METRICS
from ood_perception.types import JsonDict

TITLES = {
    'average_precision': 'AP',
    'average_precision_with_outside': 'AP, outside counted',
    'component_average_precision': 'component-averaged AP',
    'fpr95': 'FPR95',
    'auroc': 'AUROC',
    'best_f1': 'best F1',
}
REGION_TITLES = {'image': 'whole image', 'ground': 'predicted ground', 'road': 'road'}


def percent(
    value: float | None, interval: Sequence[float | None] | None = None, places: int = 1
) -> str:
    """Write a share as '83.1 [70.2, 91.0]' in percent; '-' where undefined."""
    if value is None:
        return '-'
    text = f'{100 * value:.{places}f}'
    if interval is None or interval[0] is None or interval[1] is None:
        return text
    return f'{text} [{100 * interval[0]:.{places}f}, {100 * interval[1]:.{places}f}]'


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
    if not any(region == 'ground' for _, region, _ in metric_rows(document, data)):
        metrics.remove('average_precision_with_outside')  # nothing lies outside the region
    header = ['run', 'region', *(TITLES[name] for name in metrics)]
    rows = []
    for run, region, record in metric_rows(document, data):
        cells = [percent(record[name], record['intervals'][name]) for name in metrics]
        rows.append([run, REGION_TITLES[region], *cells])
    components = [record.get('components') for _, _, record in metric_rows(document, data)]
    if any(components):
        header.append('component F1')
        for row, found in zip(rows, components, strict=True):
            row.append(percent(found['f1'], found['f1_interval']) if found else '-')
    return header, rows


def group_table(document: JsonDict, data: str, name: str) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of one group of a set: percent with 95 % intervals."""
    metrics = GROUPS[name].metrics
    groups = {run['name']: run['sets'][data]['groups'].get(name) for run in document['runs']}
    held = dict.fromkeys(m for group in groups.values() if group for m in group['values'])
    shown = [metric for metric in metrics if metric in held]
    shown += [metric for metric in held if metric not in metrics and GROUPS[name].by_class]
    rows = [[run, *_group_cells(group, shown)] for run, group in groups.items() if group]
    return ['run', *(metrics.get(metric, metric) for metric in shown)], rows


def _group_cells(group: JsonDict, metrics: Sequence[str]) -> list[str]:
    values, intervals = group['values'], group['intervals']
    return [percent(values.get(metric), intervals.get(metric)) for metric in metrics]


def product_table(document: JsonDict) -> tuple[list[str], list[list[str]]]:
    """
    Return header and rows of all inspection sets: a line per product, and the mean of a run.

    The mean is over products, as MVTec AD reports it; no rows for fewer than two products.
    """
    metrics = GROUPS['inspection'].metrics
    header = ['run', 'product', *metrics.values()]
    rows = []
    for run in document['runs']:
        groups = {
            data: one['groups']['inspection']
            for data, one in run['sets'].items()
            if 'inspection' in one['groups']
        }
        if len(groups) < 2:
            return header, []
        rows += [[run['name'], data, *_group_cells(g, [*metrics])] for data, g in groups.items()]
        columns = [[group['values'][metric] for group in groups.values()] for metric in metrics]
        means = [None if None in column else sum(column) / len(column) for column in columns]
        rows.append([run['name'], f'mean of {len(groups)}', *(percent(mean) for mean in means)])
    return header, rows


def rate_cells(document: JsonDict, data: str) -> tuple[list[str], list[list[str]]]:
    """
    Return header and rows of a set with known classes: flagged percent at every target rate.

    A star marks what is not within a factor of two of the target. All images come by class and
    pooled, single sequences pooled alone (the CSV has their classes). Behind stands how many
    pixels, and images that hold the class, a line rests on.
    """
    rates: list[float] = []
    lines: dict[tuple[str, str, str], dict[float, str]] = {}
    counts: dict[tuple[str, str, str], tuple[str, str]] = {}
    for run in document['runs']:
        for row in run['sets'][data].get('rows', []):
            if row['group'] != EVERY_GROUP and row['class_name'] != POOLED:
                continue
            rates += [] if row['target'] in rates else [row['target']]
            observed = percent(row['observed'], row['interval'], places=2)
            key = (run['name'], row['group'], row['class_name'])
            cells = lines.setdefault(key, {})
            cells[row['target']] = observed if row['kept'] else f'{observed} *'
            counts[key] = (f'{row["pixels"]:,}', str(row['images']))
    header = ['run', 'images of', 'class', *(f'flagged at {100 * rate:g} %' for rate in rates)]
    rows = [
        [*key, *(cells.get(rate, '-') for rate in rates), *counts[key]]
        for key, cells in lines.items()
    ]
    return [*header, 'pixels', 'images'], rows


def comparison_tables(
    comparisons: Sequence[JsonDict],
) -> list[tuple[str, list[str], list[list[str]]]]:
    """
    Return title, header and rows of every table of differences that has a row.

    One line per pair and set (of pixels: and region); differences in words.
    """
    regions = [row for row in comparisons if 'region' in row]
    metrics = {name: TITLES[name] for name in ('average_precision', 'fpr95', 'auroc')}
    cells = [
        [row['set'], REGION_TITLES[row['region']], *_differences(row, metrics)] for row in regions
    ]
    header = ['difference', 'images']
    tables = [('Pixels', ['set', 'region', *header, *metrics.values()], cells)]
    for name, group in GROUPS.items():
        rows = [row for row in comparisons if row.get('group') == name]
        shown = {
            metric: title
            for metric, title in group.metrics.items()
            if any(metric in row['metrics'] for row in rows)
        }
        cells = [[row['set'], *_differences(row, shown)] for row in rows]
        tables.append((group.title, ['set', *header, *shown.values()], cells))
    return [table for table in tables if table[2]]


def _differences(row: JsonDict, metrics: Mapping[str, str]) -> list[str]:
    from ood_perception.evaluation.compare import in_words

    found, pair = row['metrics'], (row['first'], row['second'])
    words = [in_words(metric, found[metric], *pair) for metric in metrics]
    return [f'{pair[0]} minus {pair[1]}', str(found['images']), *words]


CSV_HEADER = (
    *('run', 'set', 'region', 'metric', 'value', 'low_95', 'high_95'),
    *('bound_low', 'bound_high', 'images'),
)


def csv_rows(document: JsonDict) -> Iterator[list[Any]]:
    """Yield one row per run, set, region or group, and metric, as shares of 1; see CSV_HEADER."""
    for data in set_names(document):
        for run, region, record in metric_rows(document, data):
            for name in TITLES:
                if name in record:
                    interval = record['intervals'].get(name, [None, None])
                    bounds = record['bounds'][name]
                    values = [record[name], *interval, *bounds, record['images']]
                    yield [run, data, region, name, *values]
        for one in document['runs']:
            for name, group in one['sets'][data]['groups'].items():
                for metric, value in group['values'].items():
                    bounds = group['bounds'].get(metric, [None, None])
                    values = [value, *group['intervals'][metric], *bounds, group['images']]
                    yield [one['name'], data, name, metric, *values]
            for row in one['sets'][data].get('rows', []):
                metric = f'flagged at {row["target"]:g}, {row["group"]}, {row["class_name"]}'
                values = [row['observed'], *row['interval'], None, None, row['images']]
                yield [one['name'], data, 'labelled', metric, *values]


IMAGE_COLUMNS = (
    *('name', 'sequence', 'average_precision', 'average_precision_with_outside', 'objects'),
    *('objects_found', 'anomaly_missed', 'normal_flagged', 'false_alarms', 'mean_iou'),
)


def image_rows(document: JsonDict) -> Iterator[list[Any]]:
    """Yield one row per run, set and image: run, set, PICTURE_COLUMNS."""
    for run in document['runs']:
        for data, one in run['sets'].items():
            for image in one['images']:
                yield [run['name'], data, *(image.get(name) for name in IMAGE_COLUMNS)]
