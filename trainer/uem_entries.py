# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What UEM's table compares: means over seeds, intervals over pictures, verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ood_perception.evaluation.bootstrap import (
    Interval,
    metric_samples,
    percentile_interval,
    resample_weights,
)
from ood_perception.evaluation.reports import interval_record, plain

from .uem_rows import ScoreRow, Training

if TYPE_CHECKING:
    from .uem_sets import DevSet
    from .uem_table import UemTable

METRICS = {'average_precision': 'AP', 'fpr95': 'FPR95', 'auroc': 'AUROC'}
SCORE_TITLES = {
    'llr': 'LLR',
    'id': 'ID (max-logit)',
    'ood': 'OOD',
    'max_softmax': 'max-softmax',
    'energy': 'energy',
    'entropy': 'entropy',
    'surprisal': 'surprisal',
}
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

    def __init__(self, table: UemTable, rows: Sequence[ScoreRow], data: str, region: str) -> None:
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


def _rows_of(table: UemTable, training: Training) -> list[list[ScoreRow]]:
    """Return the rows of a training by score, each with its seeds; untrained seeds are absent."""
    seeds = [s for s in table.seeds if (table.stages(training, s).trainer.folder / 'fit').is_dir()]
    return [list(rows) for rows in zip(*(table.rows(training, s) for s in seeds), strict=True)]


def entries_of(table: UemTable, data: DevSet, region: str) -> dict[str, dict[str, Entry]]:
    """Return training or bundle -> score -> entry, of what has been measured."""
    from .uem_table import bundle_row

    found: dict[str, dict[str, Entry]] = {}
    groups = [(t.name, rows) for t in table.config.trainings for rows in _rows_of(table, t)]
    groups += [(name, [bundle_row(name, at)[0]]) for name, at in table.config.bundles.items()]
    for name, rows in groups:
        done = [row for row in rows if table.results.load(row, data.name) is not None]
        if done:
            found.setdefault(name, {})[done[0].score] = Entry(table, done, data.name, region)
    return found


def any_result(table: UemTable, data: DevSet) -> bool:
    """Return whether anything has been measured on a set."""
    return any(table.results.path.glob(f'*-{data.name}.json'))


def record_of(entries: dict[str, dict[str, Entry]]) -> dict[str, Any]:
    """Return the numbers of all entries, and what LLR is better than by the paired bootstrap."""
    record: dict[str, Any] = {'rows': [], 'llr_beats': []}
    seen = set()
    for name, scores in entries.items():
        for score, entry in scores.items():
            source = tuple(row.source for row in entry.rows)
            if (score, source) in seen:  # the segmenter's scores, shown with its first training
                continue
            seen.add((score, source))
            values = {metric: entry.summary(metric) for metric in METRICS}
            seeds = [row.seed for row in entry.rows]
            record['rows'].append({'name': name, 'score': score, 'seeds': seeds, **values})
        if 'llr' in scores:
            record['llr_beats'] += _beats(name, scores, entries)
    return record


def _beats(
    name: str, scores: dict[str, Entry], entries: dict[str, dict[str, Entry]]
) -> list[dict[str, Any]]:
    """Compare a training's LLR with its terms, the first training's and every bundle, in AP."""
    others = {SCORE_TITLES[s]: scores[s] for s in ('id', 'ood') if s in scores}
    first = next(n for n, rows in entries.items() if 'llr' in rows)
    if name != first:
        others[f'LLR of {first}'] = entries[first]['llr']
    others |= {n: rows['surprisal'] for n, rows in entries.items() if 'surprisal' in rows}
    result = []
    for other, entry in others.items():
        interval = scores['llr'].difference(entry)
        values = {'name': name, 'other': other, 'interval': interval_record(interval)}
        result.append({**values, 'verdict': verdict(interval)})
    return result
