# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""One score for a whole image, and the threshold that flawless images give it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ood_perception.errors import ConfigError
from ood_perception.types import BoolArray, Detection, Float32Array


@dataclass(frozen=True)
class Inspection:
    """
    What one image as a whole is judged by.

    surprisal: the image score, NaN when nothing was scored. scored: share of the image's grid
    that was scored, in [0, 1]. flagged: share of the scored cells that are in the mask, in [0, 1].
    """

    surprisal: float
    scored: float
    flagged: float


def inspect(detection: Detection, top_share: float = 0.0) -> Inspection:
    """Return the image's judgement; top_share as in image_surprisal."""
    scored = int(np.count_nonzero(detection.scored))
    return Inspection(
        surprisal=image_surprisal(detection.surprisal, detection.scored, top_share),
        scored=scored / detection.scored.size,
        flagged=int(np.count_nonzero(detection.mask)) / scored if scored else 0.0,
    )


def image_surprisal(surprisal: Float32Array, scored: BoolArray, top_share: float = 0.0) -> float:
    """
    Return the image score: the mean of the largest surprisals inside the region.

    surprisal: float32 (gh, gw). scored: bool (gh, gw). top_share: share of the scored cells that
    are averaged, in [0, 1]; 0 is the maximum (DRAEM's rule on MVTec AD), 1 the mean; at least one
    cell counts. NaN where nothing is scored. Raises ConfigError for another share.
    """
    check_top_share(top_share)
    values = surprisal[scored]
    if not values.size:
        return math.nan
    count = max(1, math.ceil(top_share * values.size))
    if count == 1:
        return float(values.max())
    largest = np.partition(values, values.size - count)[-count:]
    return float(largest.mean(dtype=np.float64))


def check_top_share(top_share: float) -> None:
    """Raise ConfigError unless the share is from 0 to 1."""
    if not 0.0 <= top_share <= 1.0:
        raise ConfigError(f'top share {top_share:g}: give a share of the pixels, from 0 to 1')


def image_threshold(scores: Sequence[float], rate: float) -> float:
    """
    Return the least threshold at which a flawless image is called defective with chance <= rate.

    scores: image scores of n flawless images that no fitting has seen. An image is called
    defective where its score is *greater than or equal to* the threshold. The threshold is the
    k-th smallest score with k = ceil((n + 1) (1 - rate)), taken one float up: split conformal
    prediction (Vovk et al. 2005; Lei et al. 2018, section 2.2), exact for exchangeable images.
    Raises ConfigError for a rate outside (0, 1), scores that are not finite, or fewer than
    1 / rate - 1 images.
    """
    if not 0.0 < rate < 1.0:
        raise ConfigError(f'rate {rate:g} of wrongly rejected images: give one inside (0, 1)')
    values = np.sort(np.asarray(scores, dtype=np.float64))
    if not np.isfinite(values).all():
        raise ConfigError('an image score is not finite: was an image without scored pixels used?')
    # A tiny tolerance: (n + 1) (1 - rate) of an exact case lands just above a whole number.
    place = math.ceil((values.size + 1) * (1.0 - rate) - 1e-9)
    if place > values.size:
        least = math.ceil(1.0 / rate - 1e-9) - 1
        raise ConfigError(
            f'{values.size} flawless images cannot state a rate of {rate:g}: take at least '
            f'{least}, or a larger rate'
        )
    return float(np.nextafter(values[place - 1], np.inf))
