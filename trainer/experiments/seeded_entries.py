# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What tables of trained heads compare: means over seeds, intervals over pictures, verdicts."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ood_perception.evaluation.reports import interval_record, markdown_table, percent, plain
from ood_perception.metrics.bootstrap import (
    Interval,
    metric_samples,
    percentile_interval,
    resample_weights,
)

from ..artefacts import REPORT_FILE
from .seeded_table import ScoreRow, SeededTable

METRICS = {'average_precision': 'AP', 'fpr95': 'FPR95', 'auroc': 'AUROC'}
Samples = dict[str, np.ndarray[Any, np.dtype[np.float64]]]


def mean_interval(samples: Sequence[np.ndarray[Any, Any]]) -> Interval:
    """
    Return the 95 % interval over pictures of the mean over seeds.

    samples: one array (R,) a seed, made with the same draws of pictures.
    """
    return percentile_interval(np.mean(samples, axis=0))


def verdict(difference: Interval) -> str:
    """Say what a paired difference (first - second) of something to be high resolves."""
    if difference.low > 0:
        return 'yes'
    return 'no, worse' if difference.high < 0 else 'not resolved'


class Entry:
    """One score of one training on one set and region: its rows of all seeds that were run."""

    def __init__(
        self, table: SeededTable, rows: Sequence[ScoreRow], data: str, region: str
    ) -> None:
        results, resamples = table.results, table.config.resamples
        self.rows = rows
        self.records = []
        self.samples: list[Samples] = []
        for row in rows:
            record = results.load(row, data)
            assert record is not None
            self.records.append(record['regions'][region])
            histograms = results.histograms(row, data, region)
            weights = resample_weights(len(histograms.missed), resamples, results.seed)
            self.samples.append(metric_samples(histograms, weights))

    def summary(self, metric: str) -> dict[str, Any]:
        """Return mean, interval over pictures, and least and greatest of the seeds."""
        values = [record[metric] for record in self.records]
        interval = mean_interval([s[metric] for s in self.samples])
        known = [value for value in values if value is not None]
        mean = plain(float(np.mean(known))) if known else None
        return {'mean': mean, 'interval': interval_record(interval), 'seeds': values}

    def difference(self, other: Entry, metric: str = 'average_precision') -> Interval:
        """Return the paired interval of the difference of the means over common seeds."""
        common = {row.seed for row in self.rows} & {row.seed for row in other.rows}
        return percentile_interval(self._mean(metric, common) - other._mean(metric, common))

    def _mean(self, metric: str, seeds: set[int]) -> np.ndarray[Any, Any]:
        """Return the mean over these seeds in every draw of pictures; of all where none is."""
        chosen = [
            samples[metric]
            for row, samples in zip(self.rows, self.samples, strict=True)
            if row.seed in seeds or not seeds
        ]
        mean: np.ndarray[Any, Any] = np.mean(chosen, axis=0)
        return mean


def rows_table(
    rows: Sequence[Mapping[str, Any]],
    titles: Sequence[str],
    of: Callable[[Mapping[str, Any]], list[str]],
) -> str:
    """Return the table of rows; of: what stands under `titles` before the metrics."""
    lines = []
    for row in rows:
        cells = [percent(row[m]['mean'], row[m]['interval']) for m in METRICS]
        known = [value for value in row['average_precision']['seeds'] if value is not None]
        spread = f'{percent(min(known))} to {percent(max(known))}' if len(known) > 1 else '-'
        lines.append([*of(row), *cells, spread, str(len(known))])
    return markdown_table([*titles, *METRICS.values(), 'AP of the seeds', 'seeds'], lines)


def verdict_table(verdicts: Sequence[Mapping[str, Any]], header: Sequence[str]) -> str:
    """Return the table of paired differences; '' where there is none."""
    lines = [
        [one['name'], one['other'], '[{}, {}]'.format(*map(percent, one['interval'])),
         one['verdict']]
        for one in verdicts
    ]  # fmt: skip
    return markdown_table(header, lines) if lines else ''


def fit_reports(table: SeededTable) -> list[dict[str, Any]]:
    """Return what every fit recorded of itself: name, seed, best_step and its held-out AP."""
    found = []
    for row in table.config.trainings:
        for seed in table.config.seeds:
            path: Path = table.stages(row, seed).trainer.folder / 'fit' / REPORT_FILE
            if path.is_file():
                report = json.loads(path.read_text())
                best = max(look[2] for look in report['history'])
                values = {'name': row.name, 'seed': seed, 'best_step': report['best_step']}
                found.append({**values, 'held_out_ap': best, 'history': report['history']})
    return found


def fits_table(reports: Sequence[Mapping[str, Any]]) -> str:
    """Return the chapter of the trainings; '' where there is none."""
    lines = [
        [one['name'], str(one['seed']), str(one['best_step']), percent(one['held_out_ap'])]
        for one in reports
    ]
    if not lines:
        return ''
    title = '### Trainings\n\nAP on held-out CamVid pictures with unseen objects chose the step.\n'
    return f'{title}\n{markdown_table(["row", "seed", "step", "held-out AP"], lines)}'
