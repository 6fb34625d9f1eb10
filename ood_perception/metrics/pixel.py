# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
AP, AUROC, FPR95 and best F1 of scored pixels, all from one `Curve`.

Label 1 is an anomaly, 0 is normal, all others are ignored; the pixels of all images are pooled,
never averaged per image. A point of a curve is one threshold t, from high to low, and counts
``score >= t``. The curve comes from the scores themselves (`full_curve`: exact), from bins
(binning.binned_curve: exact at their edges, bounded between them), or from draws of
images (bootstrap.py: many curves at once). Ranking is done on the float32 surprisal itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError, DataError
from ..types import BoolArray, Float32Array, Float64Array, Int64Array, UInt8Array

TRUE_POSITIVE_RATE = 0.95


@dataclass(frozen=True)
class ScoredImage:
    """
    The valid pixels of one image (or of a pool of images).

    positives, negatives: float32, scores of the anomaly and of the normal pixels, ascending.
    missed: number of anomaly pixels that the region of interest leaves out.
    weights: float64, of each of the positives (aupro.region_image), None = not weighted.
    components: number of true components whose pixels weigh 1 together.
    """

    positives: Float32Array
    negatives: Float32Array
    missed: int = 0
    weights: Float64Array | None = None
    components: int = 0


def scored_image(
    scores: Float32Array, labels: UInt8Array, roi: BoolArray | None = None
) -> ScoredImage:
    """
    Split one image's scores by its labels.

    scores: float32 (H, W), higher = more anomalous, no NaN where scored.
    labels: uint8 (H, W), 1 anomaly, 0 normal, everything else ignored.
    roi: bool (H, W), pixels to score; None scores all.
    Raises DataError for unequal shapes or NaN scores.
    """
    if scores.shape != labels.shape or (roi is not None and roi.shape != labels.shape):
        raise DataError(
            f'scores {scores.shape}, labels {labels.shape} and region of interest '
            f'{None if roi is None else roi.shape} differ in size; resize the scores to the labels'
        )
    anomaly, normal = labels == 1, labels == 0
    missed = 0
    if roi is not None:
        missed = int(np.count_nonzero(anomaly & ~roi))
        anomaly, normal = anomaly & roi, normal & roi
    return ScoredImage(_sorted(scores[anomaly]), _sorted(scores[normal]), missed)


def _sorted(scores: Float32Array) -> Float32Array:
    """Sort a fresh array in place; NaN sorts last, so one look finds it."""
    ordered = scores.astype(np.float32, copy=False)
    ordered.sort()
    if ordered.size and np.isnan(ordered[-1]):
        raise DataError(
            f'{int(np.isnan(ordered).sum())} of {ordered.size} scores are NaN; '
            'leave pixels that are not scored out of the region of interest'
        )
    return ordered


def pool(images: Sequence[ScoredImage]) -> ScoredImage:
    """Pool images, weights where all have them; memory: one float32 copy of all valid pixels."""
    empty = np.empty(0, np.float32)
    positives = np.concatenate([empty, *(p.positives for p in images)])
    parts = [p.weights for p in images if p.weights is not None]
    weights = None
    if len(parts) == len(images):
        order = np.argsort(positives, kind='stable')
        weights = np.concatenate([np.empty(0), *parts])[order]
    return ScoredImage(
        _sorted(positives),
        _sorted(np.concatenate([empty, *(p.negatives for p in images)])),
        sum(p.missed for p in images),
        weights,
        sum(p.components for p in images),
    )


@dataclass(frozen=True)
class Curve:
    """
    Counts at descending thresholds: of one set, (K,), or of R sets at once, (R, K).

    thresholds: float (K,), descending.
    found, alarms: int64 or float64 (..., K), anomaly and normal pixels with score >= threshold.
    positives, negatives: (...), all anomaly and normal pixels.
    missed: (...), anomaly pixels that the region of interest leaves out.
    weights: float64 (..., K), cumulated weights of the anomaly pixels (aupro.component_shares),
        None = no component-averaged AP.
    """

    thresholds: Float32Array | Float64Array
    found: Int64Array | Float64Array
    alarms: Int64Array | Float64Array
    positives: float | Float64Array
    negatives: float | Float64Array
    missed: float | Float64Array = 0
    weights: Float64Array | None = None

    @property
    def recall(self) -> Float64Array:
        """Recall (true positive rate), float64 (..., K); nan without positives."""
        return fraction(self.found, self.positives)

    @property
    def false_positive_rate(self) -> Float64Array:
        """False positive rate, float64 (..., K); nan without negatives."""
        return fraction(self.alarms, self.negatives)

    @property
    def precision(self) -> Float64Array:
        """Precision, float64 (..., K); 0 where no anomaly is found."""
        with np.errstate(invalid='ignore', divide='ignore'):
            return np.where(self.found > 0, self.found / (self.found + self.alarms), 0.0)

    @property
    def f1(self) -> Float64Array:
        """2 TP / (2 TP + FP + FN), float64 (..., K); nan without positives."""
        total = np.asarray(self.positives, np.float64)[..., None]
        with np.errstate(invalid='ignore', divide='ignore'):
            f1: Float64Array = 2 * self.found / (self.found + self.alarms + total)
        return np.where(total > 0, f1, np.nan)


def fraction(counts: Int64Array | Float64Array, total: float | Float64Array) -> Float64Array:
    """Divide (..., K) by (...); nan where the total is 0."""
    return _ratio(counts, np.asarray(total, np.float64)[..., None])


def _ratio(part: npt.ArrayLike, whole: npt.ArrayLike) -> Float64Array:
    with np.errstate(invalid='ignore', divide='ignore'):
        return np.where(np.asarray(whole) > 0, np.divide(part, whole), np.nan)


def full_curve(pixels: ScoredImage) -> Curve:
    """
    Return the curve over every distinct score, those of normal pixels included.

    Memory: up to 20 bytes per pixel; for sets that are too large see binning.py.
    """
    scores = np.unique(np.concatenate([pixels.positives, pixels.negatives]))[::-1]
    below = np.searchsorted(pixels.positives, scores, 'left')
    cumulated = None
    if pixels.weights is not None:
        above = np.concatenate([np.cumsum(pixels.weights[::-1])[::-1], [0.0]])
        cumulated = above[below]
    return Curve(
        scores,
        pixels.positives.size - below,
        pixels.negatives.size - np.searchsorted(pixels.negatives, scores, 'left'),
        pixels.positives.size,
        pixels.negatives.size,
        pixels.missed,
        cumulated,
    )


@dataclass(frozen=True)
class PixelMetrics:
    """
    The metrics of one curve, or (R,) of R curves; nan where a set cannot define them.

    average_precision: step rule (sum of recall steps times precision), nan without positives.
    average_precision_with_outside: the same when the anomaly pixels outside the region of interest
        count as never found.
    fpr95: false positive rate at the first point, from high scores, with recall >= 0.95.
    auroc: area under the ROC curve, a tie counting half.
    best_f1: largest 2 TP / (2 TP + FP + FN) over all thresholds, nan without positives.
    component_average_precision: AP in which every true component weighs the same, see
        component_precision; nan without weights.
    best_f1_threshold: the highest threshold that reaches best_f1; the prediction is score >= it.
    positives, negatives, missed: numbers of pixels, as the curve has them.
    """

    average_precision: float | Float64Array
    average_precision_with_outside: float | Float64Array
    fpr95: float | Float64Array
    auroc: float | Float64Array
    best_f1: float | Float64Array
    component_average_precision: float | Float64Array
    best_f1_threshold: float | Float64Array
    positives: float | Float64Array
    negatives: float | Float64Array
    missed: float | Float64Array


METRICS = (
    'average_precision',
    'average_precision_with_outside',
    'fpr95',
    'auroc',
    'best_f1',
    'component_average_precision',
)
"""The metrics that have intervals."""


def pixel_metrics(curve: Curve) -> PixelMetrics:
    """Return the metrics of a curve: floats for one of (K,), float64 (R,) for R of (R, K)."""
    values: tuple[Float64Array, ...] = (np.full(curve.found.shape[:-1], np.nan),) * 7
    if curve.found.shape[-1]:
        average, f1 = _average_precision(curve), curve.f1
        best = np.argmax(f1, axis=-1)
        values = (
            average,
            average * _ratio(curve.positives, np.add(curve.positives, curve.missed)),
            _first_reaching(curve),
            _auroc(curve),
            np.take_along_axis(f1, best[..., None], axis=-1)[..., 0],
            component_precision(curve),
            np.where(np.isnan(average), np.nan, curve.thresholds[best]),
        )
    numbers = [float(v) if curve.found.ndim == 1 else v for v in values]
    return PixelMetrics(*[*numbers, curve.positives, curve.negatives, curve.missed])


def exact_metrics(images: Sequence[ScoredImage]) -> PixelMetrics:
    """Return the metrics of the pooled pixels of images, without any binning."""
    return pixel_metrics(full_curve(pool(images)))


def steps(values: Int64Array | Float64Array) -> Float64Array:
    """Return the rise of each point above the one before; the first is above 0."""
    return np.diff(values, axis=-1, prepend=0).astype(np.float64)


def _average_precision(curve: Curve) -> Float64Array:
    return _ratio(np.sum(steps(curve.found) * curve.precision, axis=-1), curve.positives)


def _auroc(curve: Curve) -> Float64Array:
    heights = curve.found - 0.5 * steps(curve.found)  # a tie counts half
    area = np.sum(steps(curve.alarms) * heights, axis=-1)
    return _ratio(area, np.multiply(curve.positives, curve.negatives, dtype=np.float64))


def component_precision(curve: Curve) -> Float64Array:
    """
    Return the component-averaged AP (...,); nan without weights and where no component counts.

    AP with anomaly pixels that weigh 1 / size of their component, all weights scaled so that they
    sum to the number of anomaly pixels: recall is the mean over components of the fraction that is
    found, and the balance of anomalies and normal pixels stays.
    """
    if curve.weights is None:
        return np.full(curve.found.shape[:-1], np.nan)
    recall = fraction(curve.weights, curve.weights[..., -1])
    weighted = Curve(
        curve.thresholds,
        recall * np.asarray(curve.positives, np.float64)[..., None],
        curve.alarms,
        curve.positives,
        curve.negatives,
    )
    precise = np.nan_to_num(weighted.precision)
    average: Float64Array = np.sum(steps(recall) * precise, axis=-1)
    return average


def fpr95(curve: Curve, variant: str = 'benchmark') -> float:
    """
    Return the false positive rate at a recall of 0.95 by one of FPR95_VARIANTS.

    curve: of one set, (K,). nan without positives or without negatives. ConfigError for an unknown
    variant.
    """
    if variant not in FPR95_VARIANTS:
        raise ConfigError(f'unknown variant {variant!r} of FPR95; known are {[*FPR95_VARIANTS]}')
    if curve.positives == 0 or curve.negatives == 0:
        return float('nan')
    return float(FPR95_VARIANTS[variant](curve))


def fpr95_variants(curve: Curve) -> dict[str, float]:
    """Return FPR95 by every published definition: variant -> value."""
    return {variant: fpr95(curve, variant) for variant in FPR95_VARIANTS}


def _first_reaching(curve: Curve) -> Float64Array:
    """First point with recall >= 0.95 of all points: Fishyscapes, SMIYC, UEM."""
    first = np.argmax(curve.recall >= TRUE_POSITIVE_RATE, axis=-1)[..., None]
    rate = np.take_along_axis(curve.false_positive_rate, first, axis=-1)[..., 0]
    return np.where(np.asarray(curve.positives) > 0, rate, np.nan)


def _first_above(curve: Curve) -> Float64Array:
    """First corner with recall > 0.95: RbA, DenseHybrid."""
    rate: Float64Array = curve.false_positive_rate[_strict_point(curve)]
    return rate


def strict_threshold(curve: Curve) -> float:
    """Return the score of the 'strict' point (open-set calibration); nan without positives."""
    if curve.positives == 0:
        return float('nan')
    return float(curve.thresholds[_strict_point(curve)])


def _strict_point(curve: Curve) -> int:
    corners = _corners(curve)
    return int(corners[np.argmax(curve.recall[corners] > TRUE_POSITIVE_RATE)])


def _nearest_recall(curve: Curve) -> Float64Array:
    """Point with the recall nearest to 0.95, from the lowest threshold up: RPL."""
    stop = int(np.argmax(curve.found == curve.positives)) + 1
    distance = np.abs(curve.recall[:stop] - TRUE_POSITIVE_RATE)
    rate: Float64Array = curve.false_positive_rate[stop - 1 - np.argmin(distance[::-1])]
    return rate


def _nearest_corner(curve: Curve) -> Float64Array:
    """Corner with the recall nearest to 0.95, from the highest threshold down: cDNP."""
    corners = _corners(curve)
    recall = np.concatenate([[0.0], curve.recall[corners]])
    rates = np.concatenate([[0.0], curve.false_positive_rate[corners]])
    rate: Float64Array = rates[np.argmin(np.abs(recall - TRUE_POSITIVE_RATE))]
    return rate


FPR95_VARIANTS: dict[str, Callable[[Curve], Float64Array]] = {
    'benchmark': _first_reaching,
    'strict': _first_above,
    'nearest_recall': _nearest_recall,
    'nearest_roc_corner': _nearest_corner,
}


def _corners(curve: Curve) -> Int64Array:
    """
    Return the points that scikit-learn's roc_curve keeps: not those on a line with even steps.

    It compares second differences of the counts, so points on a line with uneven steps stay.
    """
    if curve.thresholds.size <= 2:
        return np.arange(curve.thresholds.size)
    bent = (np.diff(curve.alarms, 2) != 0) | (np.diff(curve.found, 2) != 0)
    return np.flatnonzero(np.concatenate([[True], bent, [True]]))
