# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Choose layers, K, f and resolution on held-out roads with pasted objects.

The pictures are CamVid's selection part, on which nothing is fitted or calibrated (see
workbench.Parts); the objects are the 'selection' half of the cut-outs. No set that results are
reported on takes part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ood_perception.evaluation.reports import markdown_table, metric_cell
from ood_perception.evaluation.results import write_json

from ..datasets.pasted import read_ground, write_pasted_set
from ..outliers import PasteSettings, load_cutouts
from .results import ResultFolder
from .rows import Row
from .table_run import (
    EvaluationSet,
    Records,
    load_table,
    measure_rows,
    result_folder,
    run_rows,
    setting,
    table_bench,
    table_path,
)
from .workbench import Workbench

NAME, CRITERION = 'pasted', 'average_precision'
GROUND = ('Road', 'Pavement')


def run_selection(path: Path) -> Path:
    """
    Score the candidates that a YAML file declares and choose; return the Markdown file.

    The choice is the candidate with the largest AP on the road; those that the paired bootstrap
    cannot tell from it are listed, so that a cheaper one can be taken knowingly.
    """
    config = load_table(path, ('report',))
    bench = table_bench(config)
    pasted = pasted_set(bench)
    results = result_folder(bench, [pasted])
    records = run_rows(bench, config.rows, [pasted], results)[NAME]
    latencies = measure_rows(bench, config.rows)
    best = max(config.rows, key=lambda row: records[row.name]['regions']['road'][CRITERION] or 0)
    equals = _unresolved(config.rows, best, results)
    write_json(
        config.bench.folder / 'selection.json',
        {
            'chosen': best.name,
            'not_resolved_from_it': equals,
            'latency': {'setting': setting(), 'rows': latencies},
            'records': records,
        },
    )
    report = Path(config.other.get('report', config.bench.folder / 'selection.md'))
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(_markdown(config.rows, records, latencies, best, equals), encoding='utf-8')
    return report


def pasted_set(bench: Workbench) -> EvaluationSet:
    """Make, or take up, the selection pictures with objects pasted on road and pavement."""
    config = bench.config
    ids = tuple(bench.classes.index(name) for name in GROUND)
    cutouts = load_cutouts(config.data / 'outlier_objects', 'selection')
    pictures = write_pasted_set(
        bench.parts.selection,
        cutouts,
        config.folder / NAME,
        PasteSettings(ground=ids),
        config.seed,
    )
    return EvaluationSet(
        NAME,
        pictures,
        config.sets[NAME],
        {'road': lambda index: read_ground(pictures.labels[index]), 'image': lambda index: None},
    )


def _unresolved(rows: Sequence[Row], best: Row, results: ResultFolder) -> list[str]:
    """Name the rows whose AP on the road the paired bootstrap cannot tell from the best one's."""
    return [
        row.name
        for row in rows
        if row is not best
        and not results.difference(best, row, NAME, 'road')[CRITERION]['resolved']
    ]


def _markdown(
    rows: Sequence[Row],
    records: Records,
    latencies: Mapping[str, Mapping[str, float]],
    best: Row,
    equals: Sequence[str],
) -> str:
    """Return the candidates, best first, and the choice."""
    ordered = sorted(rows, key=lambda r: -(records[r.name]['regions']['road'][CRITERION] or 0))
    header = ['candidate', 'layers', 'K', 'f', 'resolution', 'road: AP', 'road: FPR95']
    lines = [_line(row, records[row.name]['regions'], latencies[row.name]) for row in ordered]
    table = markdown_table([*header, 'whole image: AP', 'head, ms'], lines)
    return (
        f'{table}\nChosen: **{best.name}**, the largest AP on the road. The paired bootstrap does '
        f'not tell it from: {", ".join(equals) or "none of the others"}.\n'
    )


def _line(row: Row, regions: Mapping[str, Any], latency: Mapping[str, float]) -> list[str]:
    """Return one candidate's cells."""
    return [
        row.name,
        ', '.join(str(block) for block in row.layers),
        str(row.etalons),
        str(row.upsampling),
        f'{row.resolution:g}',
        metric_cell(regions['road'], CRITERION),
        metric_cell(regions['road'], 'fpr95'),
        metric_cell(regions['image'], CRITERION),
        f'{latency["head_ms"]:.0f}',
    ]


def main(arguments: Sequence[str]) -> None:
    """Run `trainer selection`."""
    print(run_selection(table_path('selection', __doc__, arguments)))
