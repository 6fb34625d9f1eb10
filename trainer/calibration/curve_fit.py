# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A falling curve of p-values to the monotone table that heads are served with."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ood_perception.errors import DataError

from .curve import MonotoneTable

FloatArray = npt.NDArray[np.float64]
KNOTS = 4096
_LEAST_RISE = 1e-6


def table_from_curve(
    x: FloatArray,
    e: FloatArray,
    *,
    deepest: float,
    shallowest: float,
    knots: int = KNOTS,
    tail: float = 0.01,
) -> MonotoneTable:
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
    return MonotoneTable(float(ends[0]), step, values, float(low), float(high))
