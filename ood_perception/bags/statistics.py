# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What is counted per camera, and the frames that are worth a look."""

from __future__ import annotations

import csv
import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ood_perception.postprocess.overlay import OverlayOptions, draw_overlay
from ood_perception.reports.html import embedded
from ood_perception.texts import table_cell
from ood_perception.types import Detection, JsonDict

_SHOWN = 6
_PICTURE_WIDTH = 480
COLUMNS = (
    'camera', 'index', 'log_time_ns', 'stamp_ns', 'frame_id', 'height', 'width', 'scored_share',
    'flagged_share', 'obstacles', 'largest_surprisal',
)  # fmt: skip


@dataclass
class CameraStatistics:
    """
    Sums over one camera's frames.

    messages: read from the bag. evaluated: frames that gave a result. scored, flagged: sums of
    shares of the score grid. stamps: smallest and largest.
    """

    messages: int = 0
    evaluated: int = 0
    frames_with_obstacles: int = 0
    obstacles: int = 0
    scored: float = 0.0
    flagged: float = 0.0
    labelled: int = 0
    first_stamp: int | None = None
    last_stamp: int | None = None
    sizes: set[tuple[int, int]] = field(default_factory=set)

    def add(self, detection: Detection) -> None:
        """Add a frame."""
        stamp = detection.frame.stamp_ns
        self.evaluated += 1
        self.obstacles += len(detection.obstacles)
        self.frames_with_obstacles += bool(detection.obstacles)
        self.scored += float(detection.scored.mean())
        self.flagged += flagged_share(detection)
        self.first_stamp = stamp if self.first_stamp is None else min(self.first_stamp, stamp)
        self.last_stamp = stamp if self.last_stamp is None else max(self.last_stamp, stamp)
        self.sizes.add(detection.frame.image.shape[:2])

    def to_json(self) -> JsonDict:
        """Return the sums and what follows from them."""
        seconds = ((self.last_stamp or 0) - (self.first_stamp or 0)) / 1e9
        count = max(1, self.evaluated)
        return {
            'messages': self.messages,
            'evaluated': self.evaluated,
            'skipped': self.messages - self.evaluated,
            'labelled': self.labelled,
            'frames_with_obstacles': self.frames_with_obstacles,
            'obstacles': self.obstacles,
            'obstacles_per_minute': 60 * self.obstacles / seconds if seconds > 0 else None,
            'scored_share': self.scored / count,
            'flagged_share_of_scored': self.flagged / count,
            'first_stamp_ns': self.first_stamp,
            'last_stamp_ns': self.last_stamp,
            'sizes': [f'{width}x{height}' for height, width in sorted(self.sizes)],
        }


def flagged_share(detection: Detection) -> float:
    """Return the flagged share of the scored cells, 0 where nothing is scored."""
    scored = int(np.count_nonzero(detection.scored))
    return int(np.count_nonzero(detection.mask)) / max(1, scored)


def largest_surprisal(detection: Detection) -> float:
    """Return the largest surprisal that is scored, 0 where nothing is."""
    return float(np.max(detection.surprisal, where=detection.scored, initial=0.0))


class FrameTable:
    """frames.csv: one line per evaluated frame, written as they come. Use as a context manager."""

    def __init__(self, path: Path) -> None:
        self._file = path.open('w', encoding='utf-8', newline='')
        self._writer: Any = csv.writer(self._file, lineterminator='\n')
        self._writer.writerow(COLUMNS)

    def add(self, detection: Detection, index: int, time_ns: int) -> None:
        """Write a frame's line."""
        frame = detection.frame
        self._writer.writerow(
            (
                table_cell(frame.camera), index, time_ns, frame.stamp_ns,
                table_cell(frame.frame_id),
                *frame.image.shape[:2], f'{detection.scored.mean():.6f}',
                f'{flagged_share(detection):.6f}', len(detection.obstacles),
                f'{largest_surprisal(detection):.6f}',
            )
        )  # fmt: skip

    def __enter__(self) -> FrameTable:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()


@dataclass(frozen=True, order=True)
class Shown:
    """A frame with its overlay as an HTML picture source; ordered by surprisal, then age."""

    surprisal: float
    minus_number: int
    caption: str = field(compare=False)
    source: str = field(compare=False)


class StrangestFrames:
    """Keeps the overlays of the few frames with the strangest obstacles, small and compressed."""

    def __init__(self) -> None:
        self._kept: list[Shown] = []
        self._number = 0

    def add(self, detection: Detection, index: int) -> None:
        """Draw the frame if it is among the strangest so far."""
        self._number += 1
        if not detection.obstacles:
            return
        surprisal = float(detection.obstacles[0].surprisal)
        if len(self._kept) == _SHOWN and surprisal <= self._kept[0].surprisal:
            return
        camera = detection.frame.camera or 'camera'
        caption = f'{camera}, frame {index}, stamp {detection.frame.stamp_ns} ns'
        picture = embedded(draw_overlay(detection, OverlayOptions()), _PICTURE_WIDTH)
        heapq.heappush(self._kept, Shown(surprisal, -self._number, caption, picture))
        if len(self._kept) > _SHOWN:
            heapq.heappop(self._kept)

    @property
    def frames(self) -> Sequence[Shown]:
        """The kept frames, strangest first."""
        return sorted(self._kept, reverse=True)
