# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
One table of variants on the anomaly sets, with intervals, latency and paired differences.

Every row is computed once and kept; a run that was stopped goes on, and the whole table is made
again from an empty folder by the same command.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ood_perception.evaluation.results import write_json

from ..datasets.anomaly import GROUND_ONLY, load_anomaly_set
from .ablation_report import difference_table, set_table
from .results import ResultFolder
from .rows import Row
from .scoring import Region, read_mask, write_ground_masks
from .table_run import (
    EvaluationSet,
    Records,
    TableConfig,
    load_table,
    measure_rows,
    result_folder,
    run_rows,
    setting,
    table_bench,
    table_path,
)
from .workbench import Workbench

GROUND = ('Road', 'Pavement')


def run_ablation(path: Path) -> Path:
    """
    Compute the table that a YAML file declares; return the Markdown file.

    Beside the rows the file names the `reference` row: its labels give the region of interest of
    all rows, and it is compared with every other row.
    """
    config = load_table(path, ('reference', 'report'))
    bench = table_bench(config)
    reference = config.row(config.other['reference'])
    sets = [_evaluation_set(bench, name, reference) for name in config.bench.sets]
    results = result_folder(bench, sets)
    records = run_rows(bench, config.rows, sets, results)
    latencies = measure_rows(bench, config.rows)
    differences = _differences(config.rows, reference, sets, results)
    write_json(
        config.bench.folder / 'ablation.json',
        {
            'reference': reference.name,
            'sets': {one.name: _set_record(one) for one in sets},
            'latency': {'setting': setting(), 'rows': latencies},
            'records': records,
            'differences': differences,
            'models': {row.name: dict(bench.model(row).report) for row in config.rows},
        },
    )
    report = Path(config.other.get('report', config.bench.folder / 'ablation.md'))
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(_markdown(config, records, latencies, differences), encoding='utf-8')
    return report


def _evaluation_set(bench: Workbench, name: str, reference: Row) -> EvaluationSet:
    """Return a set with its regions; the ground's masks are made by the reference, once."""
    pictures = load_anomaly_set(name, bench.config.data / name)
    longest = bench.config.sets[name]
    if name in GROUND_ONLY:
        return EvaluationSet(name, pictures, longest, {'road': _everything})
    folder = bench.config.folder / 'ground' / f'{name}-{reference.fit_key()}-{bench.data_key()}'
    features = bench.anomaly_features(pictures, longest)
    write_ground_masks(folder, pictures, features, bench.head(reference), GROUND)

    def ground(index: int) -> Any:
        return read_mask(folder / f'{pictures.names[index]}.png')

    regions: dict[str, Region] = {'image': _everything, 'ground': ground}
    return EvaluationSet(name, pictures, longest, regions)


def _everything(_: int) -> None:
    """Score every labelled pixel."""


def _set_record(one: EvaluationSet) -> dict[str, Any]:
    return {
        'pictures': len(one.pictures),
        'longest': one.longest,
        'regions': list(one.regions),
    }


def _differences(
    rows: Sequence[Row], reference: Row, sets: Sequence[EvaluationSet], results: ResultFolder
) -> dict[str, dict[str, Any]]:
    """Return row name -> 'set, region' -> paired differences of the reference minus the row."""
    return {
        row.name: {
            f'{one.name}, {region}': results.difference(reference, row, one.name, region)
            for one in sets
            for region in one.regions
        }
        for row in rows
        if row.name != reference.name
    }


def _markdown(
    config: TableConfig,
    records: Mapping[str, Records],
    latencies: Mapping[str, Mapping[str, float]],
    differences: Mapping[str, Mapping[str, Any]],
) -> str:
    """Return the whole table as Markdown, one part per set."""
    machine = setting()
    lines = [
        'AP, FPR95 and AUROC in percent over all pixels of a set, with 95 % bootstrap intervals '
        f'over its pictures ({config.bench.resamples} resamples). Latency: '
        f'{machine["runtime"]}, {machine["threads"]} threads, {machine["processor"]}, one picture '
        f'of {config.bench.view.size[1]} x {config.bench.view.size[0]} pixels.\n'
    ]
    for name, rows in records.items():
        count = next(iter(next(iter(rows.values()))['regions'].values()))['pictures']
        lines.append(f'### {name} ({count} pictures)\n')
        lines.append(set_table(config.rows, rows, latencies))
    lines.append('### What the paired bootstrap resolves\n')
    lines.append('95 % intervals of the difference in AP, percent points.\n')
    lines.append(difference_table(config.other['reference'], differences))
    return '\n'.join(lines)


def main(arguments: Sequence[str]) -> None:
    """Run `trainer ablation`."""
    print(run_ablation(table_path('ablation', __doc__, arguments)))
