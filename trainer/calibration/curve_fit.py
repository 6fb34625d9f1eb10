# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Held-out calibration: surprisal of a score by counting in-distribution pixels above it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ood_perception.errors import DataError
from ood_perception.image.geometry import labels_to_grid
from ood_perception.image.views import on_grid
from ood_perception.postprocess.calibration import HeldOutSample
from ood_perception.postprocess.held_out import SIZE, Maps, StratifiedSample

from ..features import FeatureSet, tokens_of
from ..head_module import HeadModule
from ..progress import progress_bar
from .monotone_curve import KNOTS, CalibrationCurve, curve_through

LOG = logging.getLogger(__name__)
FloatArray = npt.NDArray[np.float64]
FEWEST_PIXELS = 1000
_SHALLOWEST = 0.999


class ScoreSample:
    """
    The scores of a stream of pixels in bounded memory, exact in the tail.

    Up to `capacity` values everything is kept. Beyond, the `tail` largest stay exact and of the
    rest a random part is kept, about capacity / 2 values at least: the standard error of e there
    is at most 0.5 / sqrt(capacity / 2), 1.2e-4 for the default.
    """

    def __init__(self, capacity: int = 1 << 25, tail: int = 1 << 20, seed: int = 0) -> None:
        self.capacity, self.tail = capacity, tail
        self.count = 0
        self._rate = 1.0
        self._rng = np.random.default_rng(seed)
        self._top = np.empty(0, np.float32)
        self._body = np.empty(0, np.float32)
        self._new: list[npt.NDArray[np.float32]] = []
        self._waiting = 0

    def add(self, values: npt.ArrayLike) -> None:
        """Take the scores of more pixels, float of any shape. Raises DataError for NaN."""
        new = np.asarray(values, dtype=np.float32).ravel()
        if not np.isfinite(new).all():
            raise DataError('a head gave a score that is not finite: it cannot be calibrated')
        self.count += len(new)
        self._new.append(new)
        self._waiting += len(new)
        if self._waiting > self.capacity:
            self._compact()

    def curve(self) -> tuple[FloatArray, FloatArray]:
        """
        Return (x ascending and distinct, e(x) = (1 + #{scores >= x}) / (count + 1)), float64.

        Below the exact tail # is the kept values' number divided by the rate at which they
        were kept.
        """
        self._compact()
        values = np.concatenate([np.sort(self._body), np.sort(self._top)])
        weights = np.ones(len(values))
        if len(self._body):
            weights[: len(self._body)] = (self.count - len(self._top)) / len(self._body)
        least = np.cumsum(weights[::-1])[::-1]
        first = np.concatenate([[True], np.diff(values) > 0])[: len(values)]
        e = (1 + least[first]) / (self.count + 1)
        return values[first].astype(np.float64), np.minimum(e, 1.0)

    def _compact(self) -> None:
        """Sort the new values into the tail and the thinned body; halve the body when full."""
        pool = np.concatenate([self._top, *self._new])
        self._new, self._waiting = [], 0
        cut = max(len(pool) - self.tail, 0)
        pool.partition(cut) if 0 < cut < len(pool) else None
        below, self._top = pool[:cut], pool[cut:]
        if self._rate < 1:
            below = below[self._rng.random(len(below)) < self._rate]
        self._body = np.concatenate([self._body, below])
        while len(self._body) > self.capacity:
            self._body = self._body[self._rng.random(len(self._body)) < 0.5]
            self._rate /= 2


def fit_curve(sample: ScoreSample, knots: int = KNOTS) -> CalibrationCurve:
    """
    Return the conformal table of a sample of in-distribution scores.

    Between two held-out scores the surprisal is interpolated, which lies on the safe side of
    the count. The counted part ends at e = 10 / n; from there on it is log-linear with the slope
    of the top 1 % (of the top 100 scores where there are fewer than 10 000). Raises DataError
    for fewer than 1000 scores.
    """
    if sample.count < FEWEST_PIXELS:
        raise DataError(
            f'{sample.count} held-out pixels calibrate nothing: take at least {FEWEST_PIXELS}'
        )
    x, e = sample.curve()
    tail = max(0.01, 100 / sample.count)
    return curve_through(
        x, e, deepest=10 / sample.count, shallowest=_SHALLOWEST, knots=knots, tail=tail
    )


@dataclass(frozen=True)
class ClassCurves:
    """
    The calibration of a head, one table a class.

    tables: class name -> table of the pixels of that class. pixels: held-out pixels of each.
    pooled: the table of the pixels of all classes together. borrowed: classes with too few
        held-out pixels of their own, which use the pooled table.
    """

    curves: Mapping[str, CalibrationCurve]
    pooled: CalibrationCurve
    pixels: Mapping[str, int]
    borrowed: tuple[str, ...]


@dataclass(frozen=True)
class HeldOutScores:
    """The raw scores of held-out pixels: each class's own, and all of them together."""

    classes: Mapping[str, ScoreSample]
    pooled: ScoreSample


@torch.inference_mode()
def collect_scores(
    head: HeadModule, features: FeatureSet, classes: Sequence[str]
) -> HeldOutScores:
    """
    Run a head over held-out images; return its raw scores by the true class of the pixel.

    classes: the names of the label ids. For a per-class head (one score a compiled class) the
    pixels of class c give their score c; a single score counts for every class. Scores are on
    the head's own output map, class borders included; void, padding and classes that the head
    does not compile are not counted.
    """
    samples = {name: ScoreSample(seed=i) for i, name in enumerate(head.compiled_classes)}
    pooled = ScoreSample(seed=len(samples))
    for index in progress_bar(range(len(features.names)), 'calibration'):
        scores = head.raw_scores(*tokens_of(features, head.layers, [index]))[0][0].numpy()
        labels = labels_to_grid(np.asarray(features.labels[index]), scores.shape[1:])
        for i, (name, sample) in enumerate(samples.items()):
            own = scores[i if len(scores) > 1 else 0][labels == classes.index(name)]
            sample.add(own)
            pooled.add(own)
    return HeldOutScores(samples, pooled)


def fit_class_curves(scores: HeldOutScores, knots: int = KNOTS) -> ClassCurves:
    """Fit every class's table and the pooled one; thin classes borrow the pooled one."""
    pooled = fit_curve(scores.pooled, knots)
    pixels = {name: sample.count for name, sample in scores.classes.items()}
    borrowed = tuple(name for name, count in pixels.items() if count < FEWEST_PIXELS)
    if borrowed:
        LOG.warning(
            'fewer than %d held-out pixels of %s: the table of all classes stands in',
            *(FEWEST_PIXELS, ', '.join(borrowed)),
        )
    curves = {
        name: pooled if name in borrowed else fit_curve(sample, knots)
        for name, sample in scores.classes.items()
    }
    return ClassCurves(curves, pooled, pixels, borrowed)


def sample_held_out(
    head: HeadModule,
    features: FeatureSet,
    classes: Sequence[str],
    *,
    views: Sequence[FeatureSet] = (),
    size: int = SIZE,
    seed: int = 0,
) -> HeldOutSample:
    """
    Run the calibrated head over held-out images; return the sample of its surprisal.

    classes: names by label id. Pixels of classes that the head does not hold are left out.
    views: the same images in the bundle's further views, which the sample tells apart.
    """
    sample = StratifiedSample(head.compiled_classes, size, seed)
    places = np.full(256, 255, np.uint8)
    for place, name in enumerate(head.compiled_classes):
        places[classes.index(name)] = place
    for surprisal, labels in surprisal_maps(head, features, views):
        sample.add(surprisal, places[labels])
    return sample.finish()


@torch.inference_mode()
def surprisal_maps(
    head: HeadModule, features: FeatureSet, views: Sequence[FeatureSet]
) -> Iterator[tuple[Maps, npt.NDArray[np.uint8]]]:
    """
    Yield an image's surprisal in each view and its true labels, on the whole image's grid.

    Float32 (V, S, gh*f, gw*f), -inf where a view does not hold the pixel, and uint8 (gh*f, gw*f).
    """
    every = torch.ones(len(head.compiled_classes))
    for i in progress_bar(range(len(features.names)), 'sets of classes'):
        whole = _maps(head, features, i, every)
        seen = [whole]
        for view in views:
            crops, geometry = _maps(head, view, i, every), view.geometries[i]
            placed = [on_grid(crop, geometry, features.geometries[i]) for crop in crops]
            seen.append(np.stack(placed))
        yield np.stack(seen), labels_to_grid(np.asarray(features.labels[i]), whole.shape[1:])


def _maps(head: HeadModule, features: FeatureSet, index: int, every: torch.Tensor) -> Maps:
    """Return the surprisal of one view of one image, float32 (S, gh*f, gw*f)."""
    least, _, *own = head.outputs(*tokens_of(features, head.layers, [index]), every)
    return torch.cat(own or [least]).numpy()
