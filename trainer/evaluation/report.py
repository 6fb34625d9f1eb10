# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""From measured runs to the folder of results: numbers, tables, frames and the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ood_perception.errors import DataError
from ood_perception.evaluation.compare import compare_sets
from ood_perception.evaluation.record import RecordSet, load_index, records_folder
from ood_perception.evaluation.results import (
    RESULTS,
    TIMES,
    read_json,
    write_csv,
    write_json,
    write_text,
)
from ood_perception.reports.evaluation import (
    ShownFrame,
    draw_worst,
    markdown,
    write_comparison,
    write_report,
)
from ood_perception.reports.tables import CSV_HEADER, IMAGE_COLUMNS, csv_rows, image_rows

from .runs import Results
from .sets import image_reader

_TIMES = ('preprocess', 'inference', 'postprocess')


def write_results(results: Results, out: Path, worst: int = 6) -> tuple[str, Path]:
    """
    Write everything into a folder (see ood_perception.evaluation.results).

    worst: frames to show per set, of the first run. Returns the Markdown table and the page.
    """
    values = document(results)
    times = {
        run.name: {name: stage_times(one.records) for name, one in run.sets.items()}
        for run in results.runs
    }
    text = markdown(values)
    write_json(out / RESULTS, values)
    write_json(out / TIMES, times)
    write_text(out / 'results.md', text)
    write_csv(out / 'results.csv', CSV_HEADER, csv_rows(values))
    write_csv(out / 'images.csv', ('run', 'set', *IMAGE_COLUMNS), image_rows(values))
    frames = _frames(results, out, worst)
    return text, write_report(out / 'index.html', values, frames, times)


def document(results: Results) -> dict[str, Any]:
    """Return the content of results.json; it depends on images, bundles and settings alone."""
    return {
        'format': 1,
        'seed': results.seed,
        'runs': [
            {
                'name': run.name,
                **run.facts,
                'sets': {name: one.summary for name, one in run.sets.items()},
            }
            for run in results.runs
        ],
        'comparisons': _comparisons(results),
    }


def _comparisons(results: Results) -> list[dict[str, Any]]:
    """Compare the first run with every other, on each set."""
    first, *others = results.runs
    return [
        {'first': first.name, 'second': other.name, 'set': name, **row}
        for other in others
        for name, one in first.sets.items()
        for row in compare_sets(
            one.summary,
            other.sets[name].summary,
            (one.records, other.sets[name].records),
            results.seed,
        )
    ]


def stage_times(records: RecordSet) -> dict[str, float]:
    """Return the median milliseconds per stage over the images."""
    rows = np.array([[*a['stage_ms'], *a['read_measure_ms']] for a in records])
    names = (*_TIMES, 'read', 'measure')
    return {name: float(v) for name, v in zip(names, np.median(rows, axis=0), strict=True)}


def _frames(results: Results, out: Path, worst: int) -> list[ShownFrame]:
    """Draw the worst frames of the first run."""
    return [
        frame
        for name, one in results.runs[0].sets.items()
        for frame in draw_worst(
            out,
            name,
            one.summary['images'],
            one.records,
            image_reader(one.data),
            one.measured,
            worst,
        )
    ]


def compare_folders(first: Path, second: Path, out: Path, seed: int = 0) -> Path:
    """
    Compare the runs of two earlier folders of results, pair by pair, on the sets that both have.

    Folders of one run each are compared with each other; else runs of the same name. Writes
    comparison.json, comparison.md and index.html; returns the page. DataError where nothing pairs.
    """
    left, right = (read_json(folder / RESULTS) for folder in (first, second))
    rows = [
        row
        for a, b in _pairs(left['runs'], right['runs'])
        for row in _compared((first, a), (second, b), seed)
    ]
    if not rows:
        raise DataError(
            f'{first} and {second} have no run and measured set in common: nothing to compare'
        )
    write_json(out / 'comparison.json', {'format': 1, 'seed': seed, 'comparisons': rows})
    return write_comparison(out, (first, second), rows)


def _pairs(
    left: list[dict[str, Any]], right: list[dict[str, Any]]
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    if len(left) == len(right) == 1:
        return [(left[0], right[0])]
    named = {run['name']: run for run in right}
    return [(run, named[run['name']]) for run in left if run['name'] in named]


def _compared(
    first: tuple[Path, dict[str, Any]], second: tuple[Path, dict[str, Any]], seed: int
) -> list[dict[str, Any]]:
    """Compare one pair of runs on every set that both measured."""
    names = [f'{run["name"]} ({side})' for (_, run), side in ((first, 'A'), (second, 'B'))]
    rows = []
    for data, one in first[1]['sets'].items():
        other = second[1]['sets'].get(data)
        if other:
            a, b = (
                load_index(records_folder(folder, run['key'], data))
                for folder, run in (first, second)
            )
            rows += [
                {'first': names[0], 'second': names[1], 'set': data, **row}
                for row in compare_sets(one, other, (a, b), seed)
            ]
    return rows
