# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Calibration curves fitted again on a drive's predicted ground, robustly, and what they flag."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ood_perception.adapt.blocks import Rate, rate_over_blocks, stretches
from ood_perception.adapt.observe import SeenFrame
from ood_perception.errors import DataError
from ood_perception.loader import Model
from ood_perception.postprocess.calibration import ClassSetCalibration, HeldOutSample
from ood_perception.postprocess.held_out import StratifiedSample
from ood_perception.settings import chosen_classes
from ood_perception.types import BoolArray, Float32Array, Int64Array, UInt16Array

RATES = (0.01, 0.02, 0.05)
_PER_STRATUM = 1000
_HIGH, _OFTEN = 0.95, 0.5
# what is kept of a surprisal, ascending: the finite numbers of float16 that are not negative
_VALUES = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
_ALL = ('normal',)


@dataclass(frozen=True)
class Cleaned:
    """
    A drive's frames without what is most likely no ground.

    frames: without the places where the score is high in most frames (the own vehicle, dirt on
    the lens), which were the fraction `fixed` of the cells. trimmed: also without the fraction
    `share` of them that scores highest.
    """

    frames: tuple[SeenFrame, ...]
    trimmed: tuple[SeenFrame, ...]
    fixed: float
    share: float


def cleaned(
    frames: Sequence[SeenFrame], contamination: float, fitted: BoolArray | None = None
) -> Cleaned:
    """
    Leave out places that score high in most frames, then the highest fraction of the rest.

    contamination: the fraction of the predicted ground that is assumed to be no ground, in [0, 1).
    Where a drive holds none, a target rate r flags up to r + contamination. fitted: bool (n,), the
    frames that say what to leave out; nothing is fitted on the others, which are trimmed whole.
    None = all. DataError where no ground is left.
    """
    told = np.ones(len(frames), bool) if fitted is None else fitted
    size = max((int(frame.cells.max(initial=0)) for frame in frames), default=0) + 1
    fixed = _fixed_places([frames[k] for k in np.flatnonzero(told).tolist()], size)
    moving = [frame.only(~fixed[frame.cells]) for frame in frames]
    pairs = list(zip(moving, told.tolist(), strict=True))
    total = sum(len(frame.cells) for frame, own in zip(frames, told, strict=True) if own)
    left = sum(len(frame.cells) for frame, own in pairs if own)
    if not left:
        raise DataError('no ground was found in any frame: is it the camera of the bundle?')
    served = np.concatenate([frame.served for frame, own in pairs if own])
    highest = np.quantile(served.astype(np.float32), 1 - contamination)
    trimmed = [frame.only((frame.served <= highest) & own) for frame, own in pairs]
    kept = sum(len(frame.cells) for frame in trimmed)
    return Cleaned(tuple(moving), tuple(trimmed), 1 - left / total, 1 - kept / left)


def _fixed_places(frames: Sequence[SeenFrame], size: int) -> BoolArray:
    """Return bool (size,): among the highest 5 % in at least half of at least ten frames."""
    served = np.concatenate([frame.served for frame in frames]).astype(np.float32)
    if not len(served):
        return np.zeros(size, bool)
    high = np.quantile(served, _HIGH)
    seen, often = np.zeros(size), np.zeros(size)
    for frame in frames:
        seen[frame.cells] += 1
        often[frame.cells] += frame.served > high
    return (seen >= 10) & (often >= _OFTEN * seen)


@dataclass(frozen=True)
class Normal:
    """The classes that an engine was compiled for, and those of them that count as normal."""

    classes: tuple[str, ...]
    chosen: tuple[str, ...]

    @classmethod
    def of(cls, model: Model) -> Normal:
        """Return a model's."""
        chosen = chosen_classes(model.bundle.manifest, model.pipeline.settings)
        return cls(tuple(model.engine.compiled_classes), tuple(chosen))

    def raw(self, frame: SeenFrame) -> Float32Array:
        """Return a frame's surprisal before any calibration of the class set, float32 (N,)."""
        shown = frame.surprisal if frame.surprisal.shape[1] > 1 else frame.surprisal[:, 0]
        sample = HeldOutSample(self.classes, shown, frame.truth, np.ones(0, np.float32))
        return sample.served(self.chosen).astype(np.float32)

    def curves(
        self, frames: Sequence[SeenFrame], stretch: Int64Array
    ) -> dict[int, ClassSetCalibration]:
        """Return the curve of all frames but each stretch's, by stretch; -1: of all of them."""
        places = [self._places(frame) for frame in frames]
        found = {}
        for part in (-1, *np.unique(stretch).tolist()):
            others = [places[k] for k in np.flatnonzero(stretch != part).tolist()]
            shown = any(len(one) for one in others)
            found[part] = _curve_of(_in_stretches(others if shown else places))
        return found

    def as_left_out(self, frames: Sequence[SeenFrame]) -> list[SeenFrame]:
        """
        Return the frames with the surprisal that their curve needs to flag the target of new ones.

        A curve flags more of a stretch that it was not fitted on: few frames hold the highest
        scores, and new ones have theirs elsewhere. So each stretch's pixels count with the
        p-values that curves of the others give them.
        """
        shown = [frame for frame in frames if len(frame.cells)]
        maps = _maps(_in_stretches([self._places(frame) for frame in shown]))
        moved = []
        for frame, part in zip(shown, stretches(len(shown)).tolist(), strict=True):
            seen = np.isfinite(frame.surprisal)  # a view that does not hold the pixel: -inf
            found = maps[part](frame.surprisal.astype(np.float32))
            kept = np.where(seen, np.minimum(found, _VALUES[-1]), frame.surprisal)
            moved.append(replace(frame, surprisal=kept.astype(np.float16)))
        return moved

    def _places(self, frame: SeenFrame) -> UInt16Array:
        """Return where in _VALUES a frame's pixels are, uint16 (N,)."""
        # a curve makes 0 of what is below 0; -0.0 has other bits than 0.0
        raw = np.maximum(self.raw(frame), 0.0) + np.float32(0.0)
        return np.minimum(raw.astype(np.float16).view(np.uint16), np.uint16(_VALUES.size - 1))


def _in_stretches(places: Sequence[UInt16Array]) -> Int64Array:
    """Return how often stretches of the frames with any pixels have each value, int64 (S, M)."""
    shown = [one for one in places if len(one)]
    counts = np.zeros((min(5, len(shown)), _VALUES.size), np.int64)
    for part, one in zip(stretches(len(shown)).tolist(), shown, strict=True):
        counts[part] += np.bincount(one, minlength=_VALUES.size)
    return counts


def _curve(values: Float32Array, counts: Int64Array) -> ClassSetCalibration:
    places = np.flatnonzero(counts)
    shown = values[places, None]
    sample = HeldOutSample(
        _ALL, shown, np.zeros(len(places), np.uint8), counts[places].astype(float)
    )
    return sample.calibration(_ALL)


def _maps(parts: Int64Array) -> list[Callable[[Float32Array], Float32Array]]:
    """Return what makes of each stretch's surprisal that which has the p-value the others give."""
    if len(parts) < 2:
        return [np.array for _ in parts]
    total = parts.sum(0)
    whole = _curve(_VALUES, total)
    back = ClassSetCalibration(whole.y, whole.x, 1 / whole.slope)
    curves = [_curve(_VALUES, total - part) for part in parts]
    return [partial(_through, curve, back) for curve in curves]


def _through(
    first: ClassSetCalibration, second: ClassSetCalibration, surprisal: Float32Array
) -> Float32Array:
    return second(first(surprisal))


def _curve_of(parts: Int64Array) -> ClassSetCalibration:
    """Return the curve of stretches, see Normal.as_left_out; parts: int64 (S, _VALUES.size)."""
    moved = [one(_VALUES) for one in _maps(parts)]
    return _curve(np.concatenate(moved), parts.ravel())


def served_sample(
    frames: Sequence[SeenFrame], classes: Sequence[str], parent: HeldOutSample | None
) -> HeldOutSample:
    """
    Return the small sample that a bundle carries: the drive's pixels of the classes it shows.

    Classes that the drive does not show keep the parent's pixels, where it has a sample of the
    same views.
    """
    drawn = StratifiedSample(classes, _PER_STRATUM)
    for frame in frames:
        drawn.add(np.moveaxis(frame.surprisal, 0, 2).astype(np.float32), frame.truth)
    sample = drawn.finish()
    if parent is None or parent.surprisal.shape[1:] != sample.surprisal.shape[1:]:
        return sample
    other = ~np.isin(parent.truth, np.unique(sample.truth))
    return HeldOutSample(
        sample.classes,
        np.concatenate([sample.surprisal, parent.surprisal[other]]),
        np.concatenate([sample.truth, parent.truth[other]]),
        np.concatenate([sample.weight, parent.weight[other]]),
    )


def left_out_rates(
    fitted_on: Sequence[SeenFrame],
    measured: Sequence[SeenFrame],
    stretch: Int64Array,
    normal: Normal,
) -> list[Rate]:
    """
    Return what curves of the other stretches flag of each stretch's pixels.

    fitted_on, measured: the same frames, trimmed and not. stretch: int64 (n,), see stretches.
    """
    curves = normal.curves(fitted_on, stretch)
    levels = -np.log10(RATES)[:, None]
    flagged, before = [], []
    for part, frame in zip(stretch.tolist(), measured, strict=True):
        flagged.append((curves[part](normal.raw(frame)) >= levels).sum(1))
        before.append((frame.served >= levels).sum(1))
    pixels = np.array([len(frame.cells) for frame in measured], np.float64)
    counts = np.array([flagged, before], np.float64).transpose(0, 2, 1)
    rows = zip(RATES, counts[0], counts[1], strict=True)
    return [rate_over_blocks(target, row, was, pixels) for target, row, was in rows]
