# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
The calibration curve: observed against promised false-alarm rate over all rates, per class.

promise.py judges three rates; this is the whole curve, with intervals over pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ood_perception.metrics.bootstrap import RESAMPLES, resample_weights
from ood_perception.metrics.false_alarm_rate import POOLED, PictureAlarms
from ood_perception.types import Float64Array

from ..errors import ConfigError, DataError
from ..types import Float32Array, UInt8Array

CURVE_RATES: tuple[float, ...] = tuple(float(rate) for rate in np.geomspace(1e-4, 0.5, 38))
LEVEL = 0.95


@dataclass(frozen=True)
class CalibrationCurve:
    """
    One class's curve.

    promised: float64 (R,), rates in (0, 1). observed: float64 (R,), flagged share of the class's
    pixels, nan without pixels. low, high: 95 % bootstrap interval over pictures. pixels, pictures:
    how much it rests on (pictures that hold the class).
    """

    promised: Float64Array
    observed: Float64Array
    low: Float64Array
    high: Float64Array
    pixels: int
    pictures: int

    @property
    def worst_factor(self) -> float:
        """
        The largest ratio between observed and promised, whichever is larger; nan without pixels.

        Rates whose promise is less than ten pixels say nothing and are left out; inf where such a
        rate flags nothing at all.
        """
        told = self.promised * self.pixels >= 10
        if not told.any():
            return float('nan')
        with np.errstate(divide='ignore'):
            return float(np.exp(np.abs(np.log(self.observed[told] / self.promised[told])).max()))


def count_alarm_curve(
    surprisal: Float32Array,
    labels: UInt8Array,
    classes: int,
    rates: Sequence[float] = CURVE_RATES,
    group: str = '',
) -> PictureAlarms:
    """
    Count flagged pixels of one picture at many rates in one pass; like promise.count_alarms.

    surprisal: float32 (H, W) >= 0, no NaN. labels: uint8 (H, W), true class ids; ids >= classes
    are left out. rates: in (0, 1), ascending (else ConfigError).
    """
    if surprisal.shape != labels.shape:
        raise DataError(f'surprisal {surprisal.shape} and labels {labels.shape} differ in size')
    if not all(0.0 < rate < 1.0 for rate in rates) or list(rates) != sorted(set(rates)):
        raise ConfigError(f'promised rates {list(rates)} must lie between 0 and 1 and ascend')
    known = labels < classes
    values = surprisal[known]
    if np.isnan(values).any():
        raise DataError(
            f'{int(np.isnan(values).sum())} of {values.size} surprisals are NaN; '
            'label pixels that are not scored as void'
        )
    thresholds = np.array([-np.log10(rate) for rate in rates], np.float32)[::-1]
    width = len(rates) + 1
    level = np.searchsorted(thresholds, values, 'right')  # number of thresholds that it reaches
    places = labels[known].astype(np.int64) * width + level
    counts = np.bincount(places, minlength=classes * width).reshape(classes, width)
    reached = counts[:, ::-1].cumsum(axis=1)[:, :-1]  # from the highest threshold down
    return PictureAlarms(group, reached.T, counts.sum(axis=1))


def calibration_curves(
    pictures: Sequence[PictureAlarms],
    class_names: Sequence[str],
    pooled: Sequence[str],
    rates: Sequence[float] = CURVE_RATES,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, CalibrationCurve]:
    """
    Return one curve per class that occurs, and one ('pooled') over the classes named in `pooled`.

    pictures: counted at the same rates. class_names: names by id.
    Raises ConfigError for unknown names, DataError when counts and rates do not fit.
    """
    unknown = sorted(set(pooled) - set(class_names))
    if unknown:
        raise ConfigError(f'unknown classes {unknown}; known are {list(class_names)}')
    shape = (len(rates), len(class_names))
    if any(picture.flagged.shape != shape for picture in pictures) or not pictures:
        raise DataError(f'expected counts {shape} (rates, classes) of at least one picture')
    flagged = np.stack([p.flagged for p in pictures]).astype(np.float64)
    pixels = np.stack([p.pixels for p in pictures]).astype(np.float64)
    weights = resample_weights(len(pictures), resamples, seed)
    chosen = np.isin(np.array(class_names), list(pooled))
    members = [np.arange(len(class_names)) == index for index in range(len(class_names))]
    curves = {
        name: _curve(flagged[..., member].sum(-1), pixels[:, member].sum(-1), rates, weights)
        for name, member in zip([*class_names, POOLED], [*members, chosen], strict=True)
    }
    return {name: curve for name, curve in curves.items() if curve.pixels > 0}


def _curve(
    flagged: Float64Array, pixels: Float64Array, rates: Sequence[float], weights: Float64Array
) -> CalibrationCurve:
    """Make one curve of flagged (n, R) and pixels (n,)."""
    with np.errstate(invalid='ignore'):
        observed = flagged.sum(axis=0) / pixels.sum()
        samples = (weights @ flagged) / (weights @ pixels)[:, None]
    drawn = samples[~np.isnan(samples[:, 0])]
    tail = 0.5 * (1.0 - LEVEL)
    low, high = (
        np.quantile(drawn, [tail, 1 - tail], axis=0)
        if len(drawn)
        else np.full((2, len(rates)), np.nan)
    )
    return CalibrationCurve(
        np.array(rates),
        observed,
        low,
        high,
        int(pixels.sum()),
        int(np.count_nonzero(pixels)),
    )
