# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Draw a held-out sample in bounded memory: the rare anomalous pixels are all kept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ood_perception.errors import DataError
from ood_perception.postprocess.calibration import HeldOutSample

Maps = npt.NDArray[np.float32]
Stratum = tuple[int, int, int]  # class, level of the own surprisal, level of the least
SIZE = 250
LEVELS_PER_DECADE = 2
DEEPEST_LEVEL = 11  # surprisal 5.5 and above: so few pixels that all are kept


class StratifiedSample:
    """
    A weighted sample of pixels in bounded memory, every stratum of equal size.

    A stratum is a true class, half a decade of the pixel's own surprisal (its class's, or the only
    one) and half a decade of the least over all classes, each in the view where it is greatest.
    The least surprisal over a set that holds the class lies between the two, so whatever is
    anomalous to a set comes from strata with few pixels, of which most are kept.

    classes: names, in the order of the maps. size: pixels kept per stratum: the standard error
    of a stratum's share is at most 0.5 / sqrt(size).
    """

    def __init__(self, classes: Sequence[str], size: int = SIZE, seed: int = 0) -> None:
        self.classes, self.size = tuple(classes), size
        self._rng = np.random.default_rng(seed)
        self._counts: dict[Stratum, int] = {}
        self._kept: dict[Stratum, tuple[npt.NDArray[np.float64], Maps]] = {}

    def add(self, surprisal: Maps, truth: npt.NDArray[np.uint8]) -> None:
        """
        Take one image's pixels.

        surprisal: float32 (V, S, ...) of V views, S = one per class or 1; -inf where a view does
        not hold the pixel. truth: uint8 (...), the true class as its place in `classes`; pixels of
        other values are left out.
        """
        vectors = np.moveaxis(surprisal.reshape(*surprisal.shape[:2], -1), 2, 0)
        places = truth.ravel()
        for c in range(len(self.classes)):
            mine = vectors[places == c]
            own = _levels(mine[..., c if mine.shape[2] > 1 else 0].max(axis=1))
            least = _levels(mine.min(axis=2).max(axis=1))
            code = own * (DEEPEST_LEVEL + 1) + least
            for value in np.unique(code):
                stratum = (c, *divmod(int(value), DEEPEST_LEVEL + 1))
                self._merge(stratum, mine[code == value])

    def _merge(self, stratum: Stratum, new: Maps) -> None:
        """Keep the pixels with the smallest random keys: a uniform sample of all seen so far."""
        keys = self._rng.random(len(new))
        self._counts[stratum] = self._counts.get(stratum, 0) + len(new)
        if stratum in self._kept:
            old_keys, old = self._kept[stratum]
            keys, new = np.concatenate([old_keys, keys]), np.concatenate([old, new])
        if len(keys) > self.size:
            least = np.argpartition(keys, self.size)[: self.size]
            keys, new = keys[least], new[least]
        self._kept[stratum] = keys, new

    def finish(self) -> HeldOutSample:
        """Return the sample; DataError when no pixel was added."""
        if not self._kept:
            raise DataError(
                'no held-out pixel of a known class: check labels and calibration list'
            )
        strata = sorted(self._kept)
        parts = [self._kept[stratum][1] for stratum in strata]
        sizes = [len(part) for part in parts]
        weights = [self._counts[s] / n for s, n in zip(strata, sizes, strict=True)]
        pixels = np.concatenate(parts)
        return HeldOutSample(
            self.classes,
            pixels if pixels.shape[1] > 1 else pixels[:, 0],
            np.repeat([c for c, *_ in strata], sizes).astype(np.uint8),
            np.repeat(weights, sizes).astype(np.float32),
        )


def _levels(surprisal: Maps) -> npt.NDArray[np.int64]:
    """Return the half decade of each value, 0 to DEEPEST_LEVEL."""
    return np.minimum((surprisal * LEVELS_PER_DECADE).astype(np.int64), DEEPEST_LEVEL)
