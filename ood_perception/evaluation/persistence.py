# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What persistence costs and saves on sequences: false obstacles, delay, objects announced."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ood_perception.metrics.false_obstacles import false_components

from ..geometry import labels_to_grid, to_network
from ..postprocess import find_components, obstacle_order
from ..tracking import Persistence, Tracker
from ..types import BoolArray, Detection

# An object counts as seen in a frame when this share of its cells is in the mask.
SEEN = 0.1


@dataclass(frozen=True)
class PersistenceResult:
    """
    Sums over sequences for one m of n.

    frames: clean frames. shown: false obstacles in them, each frame anew. announced: distinct
    ones, each once. objects: sequences with an object; detected, told: those where the plain mask
    and where the announced obstacles ever held it. seen_frames, told_frames: frames in which.
    delays: per object that was told, frames from the first detection to the announcement.
    """

    required: int
    window: int
    frames: int
    shown: int
    announced: int
    objects: int
    detected: int
    told: int
    seen_frames: int
    told_frames: int
    delays: tuple[int, ...]


class PersistenceMeter:
    """
    Follows sequences with one setting; call `begin` before each sequence.

    The mask is always reduced to what is announced, so that it tells which pixels are.
    """

    def __init__(self, required: int, window: int) -> None:
        """Raise ConfigError for an impossible m of n."""
        self.settings = Persistence(window, required, mask=True)
        self._tracker = Tracker(self.settings)
        self._frames = self._shown = 0
        self._known: set[tuple[str, int]] = set()
        self._seen: list[list[bool]] = []
        self._told: list[list[bool]] = []

    def begin(self, with_object: bool) -> None:
        """Begin a sequence: nothing of the one before counts."""
        self._tracker.reset()
        if with_object:
            self._seen.append([])
            self._told.append([])

    def add_clean(self, detection: Detection, normal: npt.NDArray[np.int8] | None) -> None:
        """Take a clean frame; normal: int8 (gh, gw) of alarms.normal_cells or None."""
        tracked = self._tracker.update(detection)
        reduced = tracked.detection
        components = find_components(reduced.mask, reduced.surprisal)
        order = obstacle_order(components, reduced.geometry)
        false = false_components(components, normal)[order]
        self._frames += 1
        self._shown += int(false.sum())
        for track, is_false in zip(tracked.tracks, false, strict=bool(tracked.tracks)):
            if is_false:
                self._known.add((detection.frame.camera, track))

    def add_object(self, detection: Detection, thing: BoolArray) -> None:
        """Take a frame with an object; thing: bool (H, W), its pixels in the camera picture."""
        size = (detection.mask.shape[0], detection.mask.shape[1])
        pixels = to_network(thing.astype(np.uint8), detection.geometry, labels=True)
        cells = labels_to_grid(pixels, size) == 1
        tracked = self._tracker.update(detection)
        self._seen[-1].append(holds(detection.mask, cells))
        self._told[-1].append(holds(tracked.detection.mask, cells))

    def result(self) -> PersistenceResult:
        """Return the sums so far."""
        told = [number for number, row in enumerate(self._told) if any(row)]
        delays = tuple(self._told[n].index(True) - self._seen[n].index(True) for n in told)
        return PersistenceResult(
            self.settings.required,
            self.settings.window,
            self._frames,
            self._shown,
            len(self._known) if self.settings.active else self._shown,
            len(self._seen),
            sum(any(row) for row in self._seen),
            len(told),
            sum(map(sum, self._seen)),
            sum(map(sum, self._told)),
            delays,
        )


def holds(mask: BoolArray, cells: BoolArray) -> bool:
    """Return whether a mask holds at least the share SEEN of an object's cells, both (gh, gw)."""
    count = int(cells.sum())
    return count > 0 and int((mask & cells).sum()) >= SEEN * count
