# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""False obstacles on clean frames, counted for a grid of false-alarm rates and minimum areas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError, DataError
from ..image.geometry import camera_area_of_cell, labels_to_grid, to_network
from ..postprocess.mask import (
    Components,
    make_mask,
    obstacle_order,
    obstacles_of,
    surprisal_threshold,
)
from ..postprocess.tracking import Persistence, Tracker
from ..types import BoolArray, Detection, Geometry, UInt8Array

Counts = npt.NDArray[np.int32]
# 0.05 ... 1e-5 in steps of 1, 2, 5.
RATES = tuple(
    float(f'{digit}e-{power}') for power in (2, 3, 4, 5) for digit in (5, 2, 1)
)  # 5e-2, 2e-2, 1e-2, 5e-3 ...
# Shares of a patch: minimum areas that mean the same for every camera.
PATCHES = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True)
class AlarmCounts:
    """
    False obstacles of n frames in their order.

    rates: R false-alarm rates; areas: A minimum areas in camera pixels, ascending.
    counts: int32 (n, R, A), false obstacles of each frame or, where `distinct`, those announced
        for the first time in it. groups: the drive or camera of each frame; frames of one group
        are in their order.
    distinct: an obstacle that lasts over frames counts once.
    """

    rates: tuple[float, ...]
    areas: tuple[float, ...]
    counts: Counts
    groups: tuple[str, ...]
    distinct: bool = False


class AlarmCounter:
    """
    Counts the false obstacles of detections, frame by frame, at every pair of the grid.

    One engine run serves all pairs: mask and components are made anew from the surprisal at each
    rate. Keeps R * A numbers a frame (and, where distinct, R * A trackers).
    """

    def __init__(
        self,
        rates: Sequence[float] = RATES,
        areas: Sequence[float] = (0.0,),
        persistence: Persistence | None = None,
        hysteresis_rate: float = 0.0,
    ) -> None:
        """
        Prepare for one pass over the frames.

        rates, areas: see AlarmCounts, sorted here. persistence: count each obstacle once, when
        it is announced; frames of a camera must then be consecutive. None: every frame anew.
        hysteresis_rate: as in Settings; rates that are not looser have no such test.
        Raises ConfigError for a rate outside (0, 1), a negative area or an inactive persistence.
        """
        self.rates = tuple(sorted({float(rate) for rate in rates}, reverse=True))
        self.areas = tuple(sorted({float(area) for area in areas}))
        if not self.rates or not self.areas or self.areas[0] < 0:
            raise ConfigError(
                f'rates {list(rates)} and areas {list(areas)}: give at least one of each, '
                'areas of 0 or more camera pixels'
            )
        for rate in self.rates:
            surprisal_threshold(rate)
        if persistence is not None and not persistence.active:
            raise ConfigError('persistence 1 of 1 tracks nothing: give a window of 2 or more')
        self._trackers = [
            [_FirstAnnounced(persistence) for _ in self.areas] if persistence else []
            for _ in self.rates
        ]
        self._distinct = persistence is not None
        self._hysteresis = hysteresis_rate
        self._counts: list[Counts] = []
        self._groups: list[str] = []

    def add(self, detection: Detection, normal: npt.NDArray[np.int8] | None = None) -> None:
        """Count a camera's next frame; normal: of normal_cells, None: all obstacles are false."""
        self._counts.append(
            np.stack([self._count(detection, normal, row) for row in range(len(self.rates))])
        )
        self._groups.append(detection.frame.camera)

    def result(self) -> AlarmCounts:
        """Return all counts so far; DataError before the first frame."""
        if not self._counts:
            raise DataError('no frame was counted: the source is empty')
        counts = np.stack(self._counts)
        return AlarmCounts(self.rates, self.areas, counts, tuple(self._groups), self._distinct)

    def _count(
        self, detection: Detection, normal: npt.NDArray[np.int8] | None, row: int
    ) -> Counts:
        """Return int32 (A,): the false obstacles of a frame at one rate."""
        rate = self.rates[row]
        seed = self._hysteresis if self._hysteresis < rate else 0.0
        mask, components = make_mask(detection.surprisal, detection.scored, rate, seed_rate=seed)
        false = false_components(components, normal)
        size = (mask.shape[0], mask.shape[1])
        areas = components.areas * camera_area_of_cell(detection.geometry, size)
        if not self._distinct:
            return np.array([np.sum(false & (areas >= a)) for a in self.areas], np.int32)
        obstacles = obstacles_of(components, detection.geometry)
        order = obstacle_order(components, detection.geometry)
        false, areas = false[order], areas[order]
        counts = []
        for tracker, area in zip(self._trackers[row], self.areas, strict=True):
            large = np.flatnonzero(areas >= area)
            part = replace(detection, obstacles=tuple(obstacles[i] for i in large))
            counts.append(tracker.count(part, false[large]))
        return np.array(counts, np.int32)


class _FirstAnnounced:
    """Tells how many false obstacles are announced for the first time."""

    def __init__(self, persistence: Persistence) -> None:
        self._tracker = Tracker(persistence)
        self._known: set[tuple[str, int]] = set()

    def count(self, detection: Detection, false: BoolArray) -> int:
        """Take a frame whose obstacles are false or not, bool (N,)."""
        tracked = self._tracker.update(detection)
        # Obstacles keep their order, so the announced ones are found by identity.
        told = {id(obstacle) for obstacle in tracked.detection.obstacles}
        wrong = [f for o, f in zip(detection.obstacles, false, strict=True) if id(o) in told]
        new = 0
        for number, is_false in zip(tracked.tracks, wrong, strict=True):
            key = (detection.frame.camera, number)
            if is_false and key not in self._known:
                self._known.add(key)
                new += 1
        return new


def normal_cells(
    labels: UInt8Array,
    chosen: Sequence[int],
    classes: int,
    geometry: Geometry,
    grid: tuple[int, int],
) -> npt.NDArray[np.int8]:
    """
    Return what the labels say of each cell: 1 in-distribution, 0 another class, -1 unknown.

    labels: uint8 (H, W), true class ids; ids >= classes are unknown. chosen: the ids of the
    in-distribution classes. grid: (gh, gw). Returns int8 (gh, gw).
    """
    cells = labels_to_grid(to_network(labels, geometry, labels=True), grid)
    table = np.full(256, -1, np.int8)
    table[:classes] = 0
    table[list(chosen)] = 1
    return table[cells]


def false_components(components: Components, normal: npt.NDArray[np.int8] | None) -> BoolArray:
    """
    Return which components are false obstacles, bool (n,).

    normal: int8 (gh, gw) of normal_cells: a component is false when more than half of its cells
    of known class are in-distribution; one without any is not counted, nor is a car, which is
    flagged by design. None: all are false.
    """
    count = len(components.areas)
    if normal is None:
        return np.ones(count, bool)
    inside = components.patches > 0
    owners, truth = components.patches[inside] - 1, normal[inside]
    chosen = np.bincount(owners[truth == 1], minlength=count)
    known = np.bincount(owners[truth >= 0], minlength=count)
    return np.asarray(2 * chosen > known, dtype=np.bool_)
