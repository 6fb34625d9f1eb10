# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The monotone table from raw score to surprisal: its values, an export-safe module, its fit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ood_perception.errors import ConfigError, DataError

FloatArray = npt.NDArray[np.float64]
KNOTS = 4096
_LEAST_RISE = 1e-6


@dataclass(frozen=True)
class CalibrationCurve:
    """
    A strictly increasing map from raw score x (higher = more anomalous) to surprisal > 0.

    start: x of the first knot.
    step: distance between knots in x, > 0.
    knots: float (M,), M >= 2, surprisal at the knots, > 0 and strictly increasing.
    low_slope: d surprisal / dx at and below the first knot, > 0; below it surprisal is
        knots[0] * exp((x - start) * low_slope / knots[0]), which stays positive.
    high_slope: d surprisal / dx beyond the last knot, > 0 (log-linear in the p-value).
    """

    start: float
    step: float
    knots: FloatArray
    low_slope: float
    high_slope: float

    def __post_init__(self) -> None:
        numbers = np.array([self.start, self.step, self.low_slope, self.high_slope])
        knots = np.asarray(self.knots)
        if knots.ndim != 1 or len(knots) < 2:
            raise ConfigError(f'a table needs knots of shape (M,), M >= 2, not {knots.shape}')
        if not (np.isfinite(numbers).all() and np.isfinite(knots).all()):
            raise ConfigError('a table holds values that are not finite: fit it again')
        if (numbers[1:] <= 0).any() or knots[0] <= 0 or (np.diff(knots) <= 0).any():
            raise ConfigError(
                f'a table must rise strictly above 0 (step {self.step:g}, slopes '
                f'{self.low_slope:g} and {self.high_slope:g}, first knot {knots[0]:g}, least rise '
                f'{np.diff(knots).min():g}): fit it again, with fewer knots or more pixels'
            )

    @property
    def stop(self) -> float:
        """The x of the last knot."""
        return self.start + self.step * (len(self.knots) - 1)


class CurveModule(nn.Module):
    """
    CalibrationCurve in float32 and operators of every runtime (Floor, Clip, Gather, Exp, Where).

    Equal steps make the look-up a Gather instead of a search.
    """

    knots: torch.Tensor
    rises: torch.Tensor

    def __init__(self, curve: CalibrationCurve) -> None:
        super().__init__()
        knots = np.asarray(curve.knots, dtype=np.float64)
        self.start, self.stop = float(curve.start), float(curve.stop)
        self.per_step = 1.0 / float(curve.step)
        self.last = float(len(knots) - 2)
        self.first = float(knots[0])
        self.low_rate = float(curve.low_slope) / self.first
        self.high_slope = float(curve.high_slope)
        self.register_buffer('knots', torch.tensor(knots, dtype=torch.float32))
        self.register_buffer('rises', torch.tensor(np.diff(knots), dtype=torch.float32))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return float32 surprisal > 0 of raw scores x, float32 of any shape."""
        above = x - self.start
        places = torch.clamp(above * self.per_step, 0.0, self.last + 1.0)
        left = torch.clamp(torch.floor(places), 0.0, self.last)
        index = left.to(torch.int64)
        inner = self.knots[index] + (places - left) * self.rises[index]
        inner = inner + self.high_slope * torch.relu(x - self.stop)
        below = self.first * torch.exp(torch.clamp(above, max=0.0) * self.low_rate)
        return torch.where(above < 0.0, below, inner)


def curve_through(
    x: FloatArray,
    e: FloatArray,
    *,
    deepest: float,
    shallowest: float,
    knots: int = KNOTS,
    tail: float = 0.01,
) -> CalibrationCurve:
    """
    Return the table through a falling curve of p-values.

    x: float64 (N,), ascending. e: float64 (N,) in (0, 1], falling. The knots cover
    deepest <= e <= shallowest; beyond the last the surprisal goes on with the slope that it has
    between e = tail and the last knot. Raises DataError where there is no such stretch.
    """
    distinct = len(np.unique(x))
    keep = np.concatenate([np.diff(x) > 0, [True]]) & (e > 0) & (e < 1)
    x, surprisal = x[keep], -np.log10(e[keep])
    limits = -np.log10([shallowest, deepest])
    ends = np.interp(limits, surprisal, x) if len(x) > 1 else np.zeros(2)
    if not ends[1] > ends[0]:
        raise DataError(
            f'{distinct} distinct scores give no calibration curve: more held-out pixels are '
            'needed, or the head scores everything alike'
        )
    places = np.linspace(*ends, knots)
    values = np.interp(places, x, surprisal)
    step = float(places[1] - places[0])
    values = values[0] + np.concatenate([[0], np.cumsum(np.maximum(np.diff(values), _LEAST_RISE))])
    bend = int(np.clip(np.searchsorted(values, -np.log10(tail)), 0, knots - 2))
    high = (values[-1] - values[bend]) / (places[-1] - places[bend])
    low = (values[1] - values[0]) / step
    return CalibrationCurve(float(ends[0]), step, values, float(low), float(high))
