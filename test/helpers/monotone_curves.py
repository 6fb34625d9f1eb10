# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A CalibrationCurve in numpy: the oracle of its graph."""

import numpy as np


def surprisal_of(table, x):
    """Return float64 surprisal of raw scores of any shape."""
    x = np.asarray(x, dtype=np.float64)
    knots = np.asarray(table.knots, dtype=np.float64)
    places = np.clip((x - table.start) / table.step, 0.0, len(knots) - 1.0)
    left = np.minimum(places.astype(np.int64), len(knots) - 2)
    inner = knots[left] + (places - left) * (knots[left + 1] - knots[left])
    inner = inner + table.high_slope * np.maximum(x - table.stop, 0.0)
    below = np.minimum(x - table.start, 0.0) * table.low_slope / knots[0]
    return np.where(x < table.start, knots[0] * np.exp(below), inner)
