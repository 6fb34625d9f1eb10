# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The leaderboard as JSON and Markdown: means over seeds, intervals over pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ood_perception.evaluation.bins import BINS, coarse_starts
from ood_perception.evaluation.bootstrap import (
    RESAMPLES,
    Interval,
    metric_samples,
    percentile_interval,
    resample_weights,
)
from ood_perception.evaluation.record import RecordSet, unpack_counts
from ood_perception.evaluation.reports import interval_record, markdown_table, percent, plain
from ood_perception.evaluation.summary import picture_counts, region_counts

from .ablation_report import REGION_TITLES
from .artefacts import write_json
from .evaluation_runs import RunResult, SetRun
from .leaderboard_rows import LeaderboardConfig

METRICS = {
    'average_precision': 'AP',
    'average_precision_missed': 'AP, lost counted',
    'fpr95': 'FPR95',
    'auroc': 'AUROC',
}
Samples = dict[str, np.ndarray[Any, np.dtype[np.float64]]]


class Entry:
    """
    One row on one set and region: all its seeds, drawn together.

    samples: metric -> float64 (R,), the mean over seeds in each draw of pictures.
    """

    def __init__(self, seeds: Sequence[SetRun], region: str) -> None:
        self.summaries = [run.summary['regions'][region] for run in seeds]
        drawn = [_samples(run.records, region) for run in seeds]
        self.samples: Samples = {
            name: np.mean([one[name] for one in drawn], 0) for name in METRICS
        }

    def value(self, metric: str) -> dict[str, Any]:
        """Return mean over seeds, interval over pictures, and each seed's value."""
        values = [summary[metric] for summary in self.summaries]
        known = [value for value in values if value is not None]
        mean = float(np.mean(known)) if known else None
        interval = interval_record(percentile_interval(self.samples[metric]))
        return {'mean': mean, 'interval': interval, 'seeds': values}

    def difference(self, other: Entry, metric: str = 'average_precision') -> Interval:
        """Return the paired interval of this row minus another."""
        return percentile_interval(self.samples[metric] - other.samples[metric])


def _samples(records: RecordSet, region: str) -> Samples:
    """Return every metric of every draw of pictures; the draws are the same for all rows."""
    positives, negatives = np.zeros(BINS, np.int64), np.zeros(BINS, np.int64)
    for arrays in records:
        found, alarms, _ = region_counts(unpack_counts(arrays), region)
        positives, negatives = positives + found, negatives + alarms
    coarse = picture_counts(records, region, coarse_starts(positives, negatives))
    return metric_samples(coarse, resample_weights(len(records), RESAMPLES))


def write_report(config: LeaderboardConfig, runs: Mapping[str, RunResult]) -> Path:
    """Write leaderboard.json into the folder and the Markdown report; return the latter."""
    document: dict[str, Any] = {'costs': read_costs(config.folder / 'costs.json'), 'sets': {}}
    names = [(row.name, name) for row in config.rows for name, _ in row.runs()]
    document['missing'] = [name for _, name in names if name not in runs]
    for data in config.sets:
        document['sets'][data] = _set_record(config, runs, data)
    write_json(config.folder / 'leaderboard.json', document)
    config.report.parent.mkdir(parents=True, exist_ok=True)
    config.report.write_text('\n'.join(_parts(config, document)), encoding='utf-8')
    return config.report


def _set_record(
    config: LeaderboardConfig, runs: Mapping[str, RunResult], data: str
) -> dict[str, Any]:
    """Return region -> row -> metric -> values, components, and the paired differences."""
    seeds = {
        row.name: [runs[name].sets[data] for name, _ in row.runs() if name in runs]
        for row in config.rows
    }
    seeds = {name: found for name, found in seeds.items() if found}
    first = next(iter(seeds.values()))[0]
    record: dict[str, Any] = {'pictures': len(first.records), 'regions': {}}
    for region in first.summary['regions']:
        entries = {name: Entry(found, region) for name, found in seeds.items()}
        reference = entries.get(config.reference)
        record['regions'][region] = {
            name: {metric: entry.value(metric) for metric in METRICS}
            | {'difference': _difference(entry, reference)}
            for name, entry in entries.items()
        }
    record['components'] = {name: _components(found) for name, found in seeds.items()}
    return record


def _difference(entry: Entry, reference: Entry | None) -> list[float | None] | None:
    if reference is None or entry is reference:
        return None
    return interval_record(entry.difference(reference))


def _components(seeds: Sequence[SetRun]) -> dict[str, Any] | None:
    """Return component F1 of the benchmark, mean over seeds; None where it is not defined."""
    found = [run.summary.get('components') for run in seeds]
    values = [one['f1'] for one in found if one and one['f1'] is not None]
    return {'f1': plain(float(np.mean(values))), 'seeds': values} if values else None


def read_costs(path: Path) -> dict[str, Any]:
    """Return what Leaderboard.measure_costs wrote, nothing where there is none."""
    costs: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return costs


def _parts(config: LeaderboardConfig, document: dict[str, Any]) -> list[str]:
    parts = [
        'Percent: the mean over seeds, with 95 % bootstrap intervals over pictures '
        f'({RESAMPLES} resamples). Differences in AP are paired, row minus '
        f'{config.reference}; "-" where a head does not define a column.\n'
    ]
    if document['missing']:
        missing = document['missing']
        parts.append(f'Not run yet ({len(missing)}): {"; ".join(missing)}.\n')
    for data, record in document['sets'].items():
        parts.append(f'### {data} ({record["pictures"]} pictures)\n')
        for region, rows in record['regions'].items():
            parts += [f'{REGION_TITLES[region].capitalize()}:\n', _table(rows, record, region)]
    parts += ['### Cost of the head\n', _costs(config, document['costs'])]
    return parts


def _table(rows: dict[str, Any], record: dict[str, Any], region: str) -> str:
    metrics = [m for m in METRICS if region == 'ground' or m != 'average_precision_missed']
    lines = []
    for name, values in rows.items():
        cells = [percent(values[m]['mean'], values[m]['interval']) for m in metrics]
        components = record['components'].get(name)
        spread = [v for v in values['average_precision']['seeds'] if v is not None]
        lines.append(
            [
                *(name, *cells, percent(components['f1']) if components else '-'),
                _difference_cell(values['difference']),
                f'{percent(min(spread))} to {percent(max(spread))}' if len(spread) > 1 else '-',
            ]
        )
    header = ['head', *(METRICS[m] for m in metrics), 'component F1', 'difference in AP']
    return markdown_table([*header, 'AP of the seeds'], lines)


def _difference_cell(interval: Sequence[float | None] | None) -> str:
    if interval is None or interval[0] is None or interval[1] is None:
        return '-'
    verdict = 'better' if interval[0] > 0 else 'worse' if interval[1] < 0 else 'not resolved'
    return f'[{percent(interval[0])}, {percent(interval[1])}] {verdict}'


def _costs(config: LeaderboardConfig, costs: dict[str, Any]) -> str:
    lines = [
        [
            row.name,
            f'{costs[row.name]["parameters"]:,}',
            f'{costs[row.name]["head_ms"]:.0f}' if 'head_ms' in costs[row.name] else '-',
        ]
        for row in config.rows
        if row.name in costs
    ]
    return markdown_table(['head', 'values in its graphs', 'ms a frame'], lines)
