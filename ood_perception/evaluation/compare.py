# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Two runs on the same images: is the difference larger than the choice of images explains?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import DataError
from ..metrics.binning import binned_metrics, coarse_starts
from ..metrics.bootstrap import (
    RESAMPLES,
    Interval,
    paired_difference,
    percentile_interval,
    resample_weights,
)
from ..metrics.lars import lars_metrics, lars_samples
from ..metrics.pixel import METRICS
from ..types import Float64Array, JsonDict
from .inspection import inspection_samples, inspection_values, read_product
from .maritime import read_frames
from .record import RecordSet, image_counts, pooled_counts
from .results import GROUPS, interval_record, plain

LOWER_IS_BETTER = {'fpr95', *(name for group in GROUPS.values() for name in group.less_is_better)}


def common_images(first: RecordSet, second: RecordSet) -> tuple[RecordSet, RecordSet]:
    """Return both with the images that both have, by content; DataError for none in common."""
    places = {kept.content: place for place, kept in enumerate(second.kept)}
    pairs = [
        (place, places[kept.content])
        for place, kept in enumerate(first.kept)
        if kept.content in places
    ]
    if not pairs:
        raise DataError(
            'the two runs share no image (compared by the content of image and labels): '
            'evaluate both on the same set'
        )
    return first.subset([a for a, _ in pairs]), second.subset([b for _, b in pairs])


def compare_runs(first: RecordSet, second: RecordSet, region: str, seed: int = 0) -> JsonDict:
    """
    Return metric -> {'first', 'second', 'difference', 'interval', 'resolved'}, and 'images'.

    The difference is first minus second over the common images; its 95 % interval draws the
    same images for both. It is resolved when the interval leaves zero out.
    """
    first, second = common_images(first, second)
    sums = [pooled_counts(records, region) for records in (first, second)]
    starts = coarse_starts(sums[0][0] + sums[1][0], sums[0][1] + sums[1][1])
    left, right = (image_counts(records, region, starts) for records in (first, second))
    intervals = paired_difference(left, right, RESAMPLES, seed)
    a, b = (binned_metrics(*pooled) for pooled in sums)
    rows = {m: _row(getattr(a, m)[0], getattr(b, m)[0], intervals[m]) for m in METRICS}
    return {'images': len(first), **rows}


# Groups whose numbers follow from the records alone: what is read of them, values and samples.
Values = Callable[[Any], dict[str, float]]
Samples = Callable[[Any, Float64Array], dict[str, Float64Array]]
_FROM_RECORDS: dict[str, tuple[Callable[[RecordSet], Any], Values, Samples]] = {
    'inspection': (read_product, inspection_values, inspection_samples),
    'maritime': (read_frames, lars_metrics, lars_samples),
}


def compare_group(first: RecordSet, second: RecordSet, name: str, seed: int = 0) -> JsonDict:
    """Return the same for the metrics of a group; name: a key of _FROM_RECORDS."""
    first, second = common_images(first, second)
    read, values_of, samples_of = _FROM_RECORDS[name]
    weights = resample_weights(len(first), RESAMPLES, seed)
    contents = [read(records) for records in (first, second)]
    left, right = (samples_of(content, weights) for content in contents)
    a, b = (values_of(content) for content in contents)
    rows = {m: _row(a[m], b[m], percentile_interval(left[m] - right[m])) for m in a}
    return {'images': len(first), **rows}


def _row(first: float, second: float, interval: Interval) -> JsonDict:
    return {
        'first': plain(first),
        'second': plain(second),
        'difference': plain(first - second),
        'interval': interval_record(interval),
        'resolved': interval.excludes_zero,
    }


def compare_sets(
    first: JsonDict, second: JsonDict, records: tuple[RecordSet, RecordSet], seed: int = 0
) -> list[JsonDict]:
    """
    Return one row for every region and group that both summaries of a set have.

    A row: {'region' or 'group': its name, 'metrics': what compare_runs and compare_group return}.
    """
    regions = [name for name in first.get('regions', {}) if name in second.get('regions', {})]
    groups = [
        name for name in _FROM_RECORDS if name in first['groups'] and name in second['groups']
    ]
    return [
        *({'region': name, 'metrics': compare_runs(*records, name, seed)} for name in regions),
        *({'group': name, 'metrics': compare_group(*records, name, seed)} for name in groups),
    ]


def in_words(metric: str, row: JsonDict, first: str, second: str) -> str:
    """Say what a comparison of one metric shows, in percent points."""
    low, high = row['interval']
    if low is None or high is None or row['difference'] is None:
        return 'not defined'
    interval = Interval(low, high)
    places = 1 if max(abs(low), abs(high)) >= 0.002 else 2
    span = f'[{100 * low:+.{places}f}, {100 * high:+.{places}f}]'
    said = f'{100 * row["difference"]:+.{places}f} {span}'
    if not interval.excludes_zero:
        return f'not resolved: {said}'
    better = first if (low > 0) != (metric in LOWER_IS_BETTER) else second
    return f'resolved: {better} is better, {said}'
