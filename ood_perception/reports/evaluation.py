# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The evaluation's report: one page that can be read without knowing the code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ood_perception.evaluation.groups import GROUPS
from ood_perception.evaluation.results import write_text
from ood_perception.types import JsonDict

from .html import render, write_page
from .plots import MOST_LINES, Rate, calibration_plot, curve_plot, histogram_plot
from .tables import (
    REGION_TITLES,
    comparison_tables,
    group_table,
    headline_table,
    product_table,
    promise_cells,
    set_names,
)
from .worst_images import ShownFrame


def write_report(
    path: Path, document: JsonDict, frames: Sequence[ShownFrame], times: JsonDict
) -> Path:
    """Write the page of results.json's document, worst frames and times.json's content."""
    columns = ('read', 'preprocess', 'inference', 'postprocess', 'measure')
    return write_page(
        path,
        'evaluation.html.j2',
        document=document,
        products=product_table(document),
        sets=[_section_values(document, data, frames) for data in set_names(document)],
        tables=comparison_tables(document['comparisons']),
        skipped=[
            [run['name'], data, row['name'], row['reason']]
            for run in document['runs']
            for data, one in run['sets'].items()
            for row in one['skipped']
        ],
        times=[
            [run, data, *(f'{row[name]:.1f}' for name in columns)]
            for run, sets in times.items()
            for data, row in sets.items()
        ],
    )


def markdown(document: JsonDict) -> str:
    """Return every set's headline tables as Markdown."""
    return render(
        'evaluation.md.j2',
        sets=[_set_values(document, data) for data in set_names(document)],
        products=product_table(document),
        tables=comparison_tables(document['comparisons']),
    )


def write_comparison(folder: Path, folders: tuple[Path, Path], rows: Sequence[JsonDict]) -> Path:
    """Write the differences of two folders, comparison.md (printed) and index.html (returned)."""
    tables, (first, second) = comparison_tables(rows), folders
    text = render('comparison.md.j2', tables=tables)
    write_text(folder / 'comparison.md', text)
    print(text)
    page = folder / 'index.html'
    return write_page(page, 'comparison.html.j2', first=first, second=second, tables=tables)


def _set_values(document: JsonDict, data: str) -> JsonDict:
    """Return the headline tables of one set, and what its first run says of it."""
    first = document['runs'][0]['sets'][data]
    skipped = {row['name'] for run in document['runs'] for row in run['sets'][data]['skipped']}
    held = {name for run in document['runs'] for name in run['sets'][data]['groups']}
    return {
        **first,
        'name': data,
        'run': document['runs'][0]['name'],
        'groups': [_group_values(document, data, name) for name in GROUPS if name in held],
        'headline': headline_table(document, data) if 'regions' in first else None,
        'promise': promise_cells(document, data) if 'rows' in first else None,
        'left_out': sorted(skipped),
    }


def _section_values(document: JsonDict, data: str, frames: Sequence[ShownFrame]) -> JsonDict:
    """Return what the page's section of one set shows beside its tables: frames and drawings."""
    runs = {run['name']: run['sets'][data] for run in document['runs']}
    values = _set_values(document, data)
    values['frames'] = [frame for frame in frames if frame.data == data]
    if values['headline']:
        values['pixels'] = _pixel_values(runs)
    if values['promise']:
        values['promise_plot'] = _promise_plot(runs)
    return values


def _group_values(document: JsonDict, data: str, name: str) -> JsonDict:
    """Return one group's table, and the facts of the first run that has it."""
    run, group = next(
        (run['name'], run['sets'][data]['groups'][name])
        for run in document['runs']
        if name in run['sets'][data]['groups']
    )
    table = group_table(document, data, name)
    return {**group, 'name': name, 'title': GROUPS[name].title, 'run': run, 'table': table}


def _pixel_values(runs: Mapping[str, JsonDict]) -> JsonDict:
    """Return the drawings of a set of anomalies, in its strictest region."""
    first = next(iter(runs.values()))
    region = list(first['regions'])[-1]
    records = {name: one['regions'][region] for name, one in runs.items()}
    shares = {
        name: record['positives'] / max(1, record['positives'] + record['negatives'])
        for name, record in records.items()
    }
    rates: dict[str, list[Rate]] = {
        name: [(r['promised'], r['normal'], r['normal_interval']) for r in one['calibration']]
        for name, one in runs.items()
    }
    limited = len(runs) > MOST_LINES
    return {
        'ground': 'ground' in first['regions'],
        'region': REGION_TITLES[region],
        'curves': curve_plot({name: one['curve'] for name, one in records.items()}, shares),
        'calibration': calibration_plot(rates),
        'histogram': histogram_plot(first['regions'][region]['histogram']),
        'limited': f'the first {MOST_LINES} of {len(runs)} runs' if limited else '',
    }


def _promise_plot(runs: Mapping[str, JsonDict]) -> str:
    """Return the drawing of a set with known classes."""
    lines: dict[str, list[Rate]] = {}
    for name, one in runs.items():
        for row in one['curve']:
            line = row['class_name'] if len(runs) == 1 else f'{name}, {row["class_name"]}'
            rate = (row['promised'], row['observed'], row['interval'])
            lines.setdefault(line, []).append(rate)
    return calibration_plot(lines)
