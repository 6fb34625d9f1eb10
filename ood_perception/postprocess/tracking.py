# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Obstacles over time: an obstacle is announced once it was there in m of the last n frames.

Boxes move with constant velocity: a Kalman filter with white-noise acceleration (Y. Bar-Shalom,
X. R. Li, T. Kirubarajan, "Estimation with Applications to Tracking and Navigation", 2001, section
6.2). Every noise is a share of the box's own size, so gains depend on times alone and one 2 x 2
covariance serves all four values.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ood_perception.errors import ConfigError
from ood_perception.postprocess.mask import only
from ood_perception.types import BoolArray, Detection

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


LONGEST_WINDOW = 64
# Frames without usable stamps (equal ones, zeros) are taken to be this far apart.
_USUAL_SECONDS = 0.1
# Least overlap of the grown boxes, and how far a small box reaches as a share of the width.
_LEAST_OVERLAP = 0.1
_LEAST_REACH = 0.01
# An image full of specks must not slow the node down: the tracks seen last are kept.
_MOST_TRACKS = 1000


@dataclass(frozen=True)
class Persistence:
    """
    When an obstacle is announced.

    window, required: n and m: an obstacle is announced when its track was detected in m of the
        last n frames that were processed, and from then on whenever it is detected, until it was
        missing for n frames. n = 1 turns tracking off; m = 1 of n > 1 gives identities without
        delay. 1 <= m <= n <= LONGEST_WINDOW.
    mask: also remove from the mask what is not announced.
    longest_gap: seconds between two frames after which all is forgotten, > 0.

    Raises ConfigError for a value out of range.
    """

    window: int = 1
    required: int = 1
    mask: bool = False
    longest_gap: float = 2.0

    def __post_init__(self) -> None:
        if not 1 <= self.required <= self.window <= LONGEST_WINDOW:
            raise ConfigError(
                f'persistence {self.required} of {self.window} frames: give 1 <= required <= '
                f'window <= {LONGEST_WINDOW}; 1 of 1 turns it off'
            )
        if not 0.0 < self.longest_gap < float('inf'):
            raise ConfigError(f'persistence gap {self.longest_gap:g} s: give seconds above 0')

    @property
    def active(self) -> bool:
        """Whether anything is tracked at all."""
        return self.window > 1


@dataclass(frozen=True)
class Tracked:
    """
    A detection after tracking.

    detection: with the announced obstacles alone, in their order; its mask is the full one unless
        Persistence.mask is set.
    tracks: the track number of each of its obstacles, > 0 and never used twice for a camera;
        () when tracking is off.
    """

    detection: Detection
    tracks: tuple[int, ...] = ()


class Tracker:
    """Follows each camera's obstacles, frames in order; one thread, settings may be replaced."""

    def __init__(self, settings: Persistence | None = None) -> None:
        self.settings = settings or Persistence()
        self._cameras: dict[str, _Camera] = {}

    def reset(self) -> None:
        """Forget all tracks; their numbers are not used again."""
        for camera in self._cameras.values():
            camera.forget()

    def update(self, detection: Detection) -> Tracked:
        """Take the next detection of its camera; return what is announced."""
        settings, name = self.settings, detection.frame.camera
        if not settings.active:
            self._cameras.pop(name, None)
            return Tracked(detection)
        camera = self._cameras.setdefault(name, _Camera())
        tracks, announced = camera.update(detection, settings)
        numbers = tuple(int(number) for number in tracks[announced])
        if settings.mask:
            return Tracked(only(detection, announced), numbers)
        pairs = zip(detection.obstacles, announced, strict=True)
        obstacles = tuple(obstacle for obstacle, told in pairs if told)
        return Tracked(replace(detection, obstacles=obstacles), numbers)


class _Camera:
    """The tracks of one camera, as arrays over T tracks."""

    def __init__(self) -> None:
        self._next = 1
        self._stamp_ns = 0
        self._size = (0, 0)
        self.forget()

    def forget(self) -> None:
        """Drop all tracks."""
        self._states = first_states(np.zeros((0, 4)))
        self._numbers = np.zeros(0, np.int64)
        self._history = np.zeros((0, LONGEST_WINDOW), bool)  # newest frame first
        self._announced = np.zeros(0, bool)

    def update(
        self, detection: Detection, settings: Persistence
    ) -> tuple[npt.NDArray[np.int64], BoolArray]:
        """Return the track number, int64 (N,), of every obstacle and whether it is announced."""
        width = detection.geometry.camera_width
        states = self._until(detection, settings.longest_gap)
        rows_of = [(o.x, o.y, o.width, o.height) for o in detection.obstacles]
        boxes: Boxes = np.array(rows_of, dtype=np.float64).reshape(-1, 4)
        alike = overlaps(states.boxes, boxes, least=_LEAST_REACH * width)
        rows, columns = matches(alike, _LEAST_OVERLAP)
        seen = np.zeros(len(self._numbers), bool)
        seen[rows] = True
        new = np.ones(len(boxes), bool)
        new[columns] = False
        self._states = updated(states, rows, boxes[columns]).joined(first_states(boxes[new]))
        track_of = np.empty(len(boxes), np.intp)
        track_of[columns] = rows
        track_of[new] = len(seen) + np.arange(new.sum())
        self._count(seen, int(new.sum()), settings)
        result = self._numbers[track_of], self._announced[track_of]
        self._drop(settings.window)
        return result

    def _until(self, detection: Detection, longest_gap: float) -> BoxStates:
        """Return the states at the detection's time; time or size that jumps forgets all."""
        geometry, stamp = detection.geometry, detection.frame.stamp_ns
        size = (geometry.camera_height, geometry.camera_width)
        seconds = (stamp - self._stamp_ns) / 1e9
        if size != self._size or not 0.0 <= seconds <= longest_gap:
            self.forget()
        self._stamp_ns, self._size = stamp, size
        usable = 0.0 < seconds <= longest_gap
        return predicted(self._states, seconds if usable else _USUAL_SECONDS)

    def _count(self, seen: BoolArray, new: int, settings: Persistence) -> None:
        """Enter this frame into the histories: old tracks were seen or not, `new` ones begin."""
        fresh = np.zeros((new, LONGEST_WINDOW), bool)
        self._history = np.concatenate([self._history, fresh])
        self._history[:, 1:] = self._history[:, :-1].copy()
        self._history[:, 0] = np.concatenate([seen, np.ones(new, bool)])
        self._numbers = np.concatenate([self._numbers, self._next + np.arange(new)])
        self._next += new
        enough = self._history[:, : settings.window].sum(axis=1) >= settings.required
        self._announced = np.concatenate([self._announced, np.zeros(new, bool)]) | enough

    def _drop(self, window: int) -> None:
        """Forget tracks that the last `window` frames did not see, and the oldest of too many."""
        keep: BoolArray = np.asarray(self._history[:, :window].any(axis=1), dtype=np.bool_)
        if np.count_nonzero(keep) > _MOST_TRACKS:
            ages = np.where(keep, self._history.argmax(axis=1), LONGEST_WINDOW)
            keep = np.zeros_like(keep)
            keep[np.argsort(ages, kind='stable')[:_MOST_TRACKS]] = True
        self._states = self._states.only(keep)
        self._numbers, self._history = self._numbers[keep], self._history[keep]
        self._announced = self._announced[keep]
