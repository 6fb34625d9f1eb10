# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""How much a rate rests on: neighbouring frames are alike, so blocks of them are what is drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from ood_perception.adapt.observe import SeenFrame
from ood_perception.metrics.bootstrap import resample_weights
from ood_perception.metrics.false_alarm_rate import observed_rate
from ood_perception.postprocess.image_statistics import NEW_VIEW, difference
from ood_perception.types import Float64Array, Int64Array, JsonDict

FEWEST_BLOCKS = 6


@dataclass(frozen=True)
class Rate:
    """
    A target rate against what was flagged on frames that took no part in the calibration.

    target, observed, low, high: fractions; low, high: 95 % interval over blocks. before: what the
    parent bundle flags of the same pixels. blocks: how many, of block frames each. effective: so
    many independent pixels would give the same spread.
    """

    target: float
    observed: float
    low: float
    high: float
    before: float
    blocks: int
    block: int
    effective: int

    def to_json(self) -> JsonDict:
        """Return the fields by name, rates to four digits."""
        return {
            k: float(f'{v:.4g}') if isinstance(v, float) else v for k, v in asdict(self).items()
        }


def rate_over_blocks(
    target: float, flagged: Float64Array, before: Float64Array, pixels: Float64Array
) -> Rate:
    """
    Return the rate with its interval.

    flagged, before, pixels: float64 (n,), per frame in recorded order. The block is the one, of
    1, 2, 4, ... frames with at least 6 blocks, that gives the largest standard error: the error
    grows with the block until blocks are independent (Flyvbjerg and Petersen, 1989).
    """
    total = max(pixels.sum(), 1.0)
    rate = float(flagged.sum() / total)
    block, error = 1, 0.0
    length = 1
    while len(pixels) // length >= FEWEST_BLOCKS or length == 1:
        spread = _in_blocks(flagged - rate * pixels, length)
        count = len(spread)
        found = math.sqrt(float((spread**2).sum()) * count / max(count - 1, 1)) / total
        if found > error:
            block, error = length, found
        length *= 2
    alarms, drawn = _in_blocks(flagged, block), _in_blocks(pixels, block)
    _, interval = observed_rate(alarms, drawn, resample_weights(len(drawn)))
    effective = round(rate * (1 - rate) / error**2) if error else round(total)
    before_rate = float(before.sum() / total)
    freedom = max(len(drawn) - 1, 1)
    # Student's quantile in the place of the normal one: a bootstrap of few blocks is too narrow
    wider = (1 + 1.21 / freedom) * math.sqrt((freedom + 1) / freedom)
    low = max(rate - wider * (rate - interval.low), 0.0)
    high = min(rate + wider * (interval.high - rate), 1.0)
    return Rate(target, rate, low, high, before_rate, len(drawn), block, effective)


def _in_blocks(values: Float64Array, length: int) -> Float64Array:
    return np.add.reduceat(values, np.arange(0, len(values), length))


def stretches(count: int, most: int = 5) -> Int64Array:
    """Return the stretch, int64 (count,), that each frame is left out with: contiguous, alike."""
    parts = max(1, min(most, count))
    return np.asarray(np.arange(count) * parts // count, np.int64)


def distinct_views(frames: Sequence[SeenFrame]) -> int:
    """Return how many frames show something else than the last one that counted."""
    kept: dict[str, SeenFrame] = {}
    count = 0
    for frame in frames:
        last = kept.get(frame.camera)
        if last is None or difference(last.look.thumbnail, frame.look.thumbnail) >= NEW_VIEW:
            kept[frame.camera] = frame
            count += 1
    return count
