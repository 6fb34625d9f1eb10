# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Boxes that move with constant velocity, and how alike two boxes are.

Kalman filter with white-noise acceleration: Y. Bar-Shalom, X. R. Li, T. Kirubarajan, "Estimation
with Applications to Tracking and Navigation", 2001, section 6.2. Every noise is a share of the
box's own size, so gains depend on times alone and one 2 x 2 covariance serves all four values.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Boxes = npt.NDArray[np.float64]

# In box sizes: how much a detected edge jitters (standard deviation), how fast a box may be when
# first seen (per second), and how its speed wanders (spectral density, per second cubed). A thing
# 20 m ahead at 10 m/s grows with half its size a second squared.
_JITTER = 0.1
_SPEED = 3.0
_WANDER = 1.0


@dataclass(frozen=True)
class BoxStates:
    """
    What is known of T moving boxes.

    means: float64 (T, 4, 2): centre x, centre y, width, height; value in pixels and its velocity
        in pixels per second.
    covariances: float64 (T, 2, 2) of value and velocity, in box sizes squared.
    """

    means: npt.NDArray[np.float64]
    covariances: npt.NDArray[np.float64]

    @property
    def boxes(self) -> Boxes:
        """float64 (T, 4): left, top, width, height."""
        centre, size = self.means[:, :2, 0], np.maximum(self.means[:, 2:, 0], 1.0)
        return np.concatenate([centre - size / 2, size], axis=1)

    def only(self, keep: npt.NDArray[np.bool_]) -> BoxStates:
        """Return those that `keep`, bool (T,), names."""
        return BoxStates(self.means[keep], self.covariances[keep])

    def joined(self, other: BoxStates) -> BoxStates:
        """Return these and the others behind them."""
        return BoxStates(
            np.concatenate([self.means, other.means]),
            np.concatenate([self.covariances, other.covariances]),
        )


def first_states(boxes: Boxes) -> BoxStates:
    """Return the states of boxes (T, 4), left, top, width, height, seen for the first time."""
    means = np.zeros((len(boxes), 4, 2))
    means[..., 0] = _values(boxes)
    covariance = np.diag([_JITTER**2, _SPEED**2])
    return BoxStates(means, np.repeat(covariance[None], len(boxes), axis=0))


def predicted(states: BoxStates, seconds: float) -> BoxStates:
    """Return the states `seconds` > 0 later."""
    step = np.array([[1.0, seconds], [0.0, 1.0]])
    noise = _WANDER * np.array(
        [[seconds**3 / 3, seconds**2 / 2], [seconds**2 / 2, seconds]], dtype=np.float64
    )
    return BoxStates(states.means @ step.T, step @ states.covariances @ step.T + noise)


def updated(states: BoxStates, index: npt.NDArray[np.intp], boxes: Boxes) -> BoxStates:
    """Return the states after states `index` (N,) were measured as boxes (N, 4)."""
    means, covariances = states.means.copy(), states.covariances.copy()
    prior = covariances[index]
    gain = prior[:, :, 0] / (prior[:, :1, 0] + _JITTER**2)
    error = _values(boxes) - means[index, :, 0]
    means[index] += error[:, :, None] * gain[:, None, :]
    covariances[index] = prior - gain[:, :, None] * prior[:, :1, :]
    return BoxStates(means, covariances)


def overlaps(first: Boxes, second: Boxes, reach: float = 0.5, least: float = 0.0) -> Boxes:
    """
    Return the intersection over union, float64 (T, N) in [0, 1], of boxes grown on every side.

    first, second: (T, 4) and (N, 4), left, top, width, height. reach: by this share of their own
    width and height, and by `least` pixels at least, so that small boxes that moved past their
    own size are still compared (F. Yang et al., "Hard to track objects with irregular motions and
    similar appearances?", WACV 2023). reach = least = 0 is the usual overlap.
    """
    low_a, high_a = _grown(first, reach, least)
    low_b, high_b = _grown(second, reach, least)
    low = np.maximum(low_a[:, None], low_b[None])
    high = np.minimum(high_a[:, None], high_b[None])
    common = np.prod(np.maximum(high - low, 0.0), axis=2)
    areas_a, areas_b = np.prod(high_a - low_a, axis=1), np.prod(high_b - low_b, axis=1)
    union = areas_a[:, None] + areas_b[None] - common
    shares: Boxes = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    return shares


def matches(similarity: Boxes, least: float) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """
    Pair rows with columns, most alike first, each at most once.

    similarity: (T, N); pairs below `least` are never made. Returns the rows and columns of the
    pairs, equally long. Greedy: the components of one mask seldom overlap, so it rarely differs
    from the best assignment, and it needs no solver (compared with scipy's in the tests).
    """
    rows, columns = np.nonzero(similarity >= least)
    order = np.argsort(-similarity[rows, columns], kind='stable')
    free_row = np.ones(similarity.shape[0], bool)
    free_column = np.ones(similarity.shape[1], bool)
    chosen = []
    for place in order.tolist():
        row, column = int(rows[place]), int(columns[place])
        if free_row[row] and free_column[column]:
            free_row[row] = free_column[column] = False
            chosen.append((row, column))
    pairs = np.array(chosen, dtype=np.intp).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _values(boxes: Boxes) -> Boxes:
    """Return left, top, width, height as centre x, centre y, width, height."""
    return np.concatenate([boxes[:, :2] + boxes[:, 2:] / 2, boxes[:, 2:]], axis=1)


def _grown(boxes: Boxes, reach: float, least: float) -> tuple[Boxes, Boxes]:
    """Return the low and high corners (T, 2) of grown boxes."""
    margin = np.maximum(reach * boxes[:, 2:], least)
    return boxes[:, :2] - margin, boxes[:, :2] + boxes[:, 2:] + margin
