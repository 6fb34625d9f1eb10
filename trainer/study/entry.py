# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""One row of a study on one set and region: mean over seeds, draws over pictures."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from ood_perception.evaluation.record import RecordSet, picture_counts, pooled_counts
from ood_perception.evaluation.results import interval_record
from ood_perception.evaluation.second_pass import component_frames
from ood_perception.metrics.binning import coarse_starts
from ood_perception.metrics.bootstrap import (
    RESAMPLES,
    Interval,
    metric_samples,
    percentile_interval,
    resample_weights,
)
from ood_perception.metrics.smiyc import component_samples

from ..evaluation.runs import SetRun
from ..evaluation.sets import label_reader

METRICS = {
    'average_precision': 'AP',
    'average_precision_missed': 'AP, lost counted',
    'fpr95': 'FPR95',
    'auroc': 'AUROC',
    'component_average_precision': 'component-averaged AP',
    'component_f1': 'component F1',
}
COMPONENT_F1 = 'component_f1'
Samples = dict[str, np.ndarray[Any, np.dtype[np.float64]]]


class Entry:
    """
    One row on one set and region: all its seeds, drawn together.

    seeds: seed -> its run. samples: metric -> float64 (R,), the mean over seeds in each draw of
    pictures.
    """

    def __init__(self, seeds: Mapping[int, SetRun], region: str) -> None:
        records = [run.summary['regions'][region] for run in seeds.values()]
        self.values = {name: [_value(record, name) for record in records] for name in METRICS}
        # One seed's interval of component F1 is in its summary: no second pass over the labels,
        # which takes longer (7 s a row of 65 pictures) than all the rest.
        self.alone = records[0] if len(seeds) == 1 else None
        self.drawn = {
            seed: _samples(run, region, self.alone is None) for seed, run in seeds.items()
        }
        self.samples: Samples = {name: self._mean(name, self.drawn) for name in METRICS}

    def _mean(self, metric: str, seeds: Collection[int]) -> np.ndarray[Any, Any]:
        """Return the mean over these seeds in each draw of pictures."""
        mean: np.ndarray[Any, Any] = np.mean([self.drawn[seed][metric] for seed in seeds], 0)
        return mean

    def value(self, metric: str) -> dict[str, Any]:
        """Return mean over seeds, interval over pictures, and each seed's value."""
        values = self.values[metric]
        known = [value for value in values if value is not None]
        mean = float(np.mean(known)) if known else None
        interval = interval_record(percentile_interval(self.samples[metric]))
        if metric == COMPONENT_F1 and self.alone and self.alone.get('components'):
            interval = self.alone['components']['f1_interval']
        return {'mean': mean, 'interval': interval, 'seeds': values}

    def difference(self, other: Entry, metric: str = 'average_precision') -> Interval:
        """Return the paired interval of this row minus another, over the seeds of both."""
        common = self.drawn.keys() & other.drawn.keys()
        mine, theirs = common or self.drawn, common or other.drawn
        return percentile_interval(self._mean(metric, mine) - other._mean(metric, theirs))


def _value(record: dict[str, Any], metric: str) -> float | None:
    """Return a metric of a region's record; None where it is not defined."""
    if metric == COMPONENT_F1:
        components = record.get('components')
        return components['f1'] if components else None
    found: float | None = record[metric]
    return found


def _samples(run: SetRun, region: str, with_components: bool) -> Samples:
    """
    Return every metric of every draw of pictures; the draws are the same for all rows.

    with_components: nan for component F1 without.
    """
    weights = resample_weights(len(run.records), RESAMPLES)
    samples = _pixel_samples(run.records, region, weights)
    samples[COMPONENT_F1] = np.full(RESAMPLES, np.nan)
    components = run.summary['regions'][region].get('components')
    if components and with_components:
        read, track = label_reader(run.data), components['track']
        frames = component_frames(run.records, read, track, components['threshold'], region)
        samples[COMPONENT_F1] = component_samples(frames, weights)['mean_f1']
    return samples


def _pixel_samples(
    records: RecordSet, region: str, weights: np.ndarray[Any, np.dtype[np.float64]]
) -> Samples:
    positives, negatives, *_ = pooled_counts(records, region)
    coarse = picture_counts(records, region, coarse_starts(positives, negatives))
    return metric_samples(coarse, weights)
