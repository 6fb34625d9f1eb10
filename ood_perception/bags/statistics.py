# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What is counted per camera and against labels, and the frames that are worth a look."""

from __future__ import annotations

import csv
import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TextIO, TypeVar

import numpy as np
import numpy.typing as npt

from ood_perception.evaluation.results import interval_record, plain
from ood_perception.image.geometry import camera_window
from ood_perception.metrics.binning import BINS, binned_metrics, label_counts, lower_edges
from ood_perception.metrics.bootstrap import RESAMPLES, ImageHistograms, metric_intervals
from ood_perception.postprocess.image_score import inspect
from ood_perception.postprocess.output_maps import OutputMaps
from ood_perception.postprocess.overlay import OverlayOptions, draw_overlay
from ood_perception.reports.html import embedded
from ood_perception.texts import table_cell
from ood_perception.types import Detection, JsonDict, UInt8Array

Item = TypeVar('Item')
_SHOWN = 6
_IMAGE_WIDTH = 480
COLUMNS = (
    'camera', 'index', 'log_time_ns', 'stamp_ns', 'frame_id', 'height', 'width', 'scored_share',
    'flagged_share', 'obstacles', 'largest_surprisal',
)  # fmt: skip
# Intervals are wide; they are drawn from bins that are 64 times as coarse as those of the values.
_COARSE = BINS // 64
METRICS = ('average_precision', 'average_precision_with_outside', 'auroc', 'fpr95')


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
        judged = inspect(detection)
        self.scored += judged.scored
        self.flagged += judged.flagged
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


class FrameTable:
    """frames.csv: one line per evaluated frame, written to an open file as they come."""

    def __init__(self, file: TextIO) -> None:
        self._writer: Any = csv.writer(file, lineterminator='\n')
        self._writer.writerow(COLUMNS)

    def add(self, detection: Detection, index: int, time_ns: int) -> None:
        """Write a frame's line."""
        frame, judged = detection.frame, inspect(detection)
        largest = max(0.0, judged.surprisal)  # 0 where nothing is scored
        self._writer.writerow(
            (
                table_cell(frame.camera), index, time_ns, frame.stamp_ns,
                table_cell(frame.frame_id), *frame.image.shape[:2], f'{judged.scored:.6f}',
                f'{judged.flagged:.6f}', len(detection.obstacles), f'{largest:.6f}',
            )
        )  # fmt: skip


class Highest(Generic[Item]):
    """Keeps the `most` items of the highest rank; of equals those that came first."""

    def __init__(self, most: int) -> None:
        self._most, self._number = most, 0
        self._heap: list[tuple[float, int, Item]] = []  # the numbers differ: no item is compared

    def add(self, rank: float, make: Callable[[], Item]) -> None:
        """Keep what `make` returns where it is among the highest; make is called only then."""
        self._number += 1
        full = len(self._heap) == self._most
        if not self._most or (full and rank <= self._heap[0][0]):
            return
        keep = heapq.heapreplace if full else heapq.heappush
        keep(self._heap, (rank, -self._number, make()))

    @property
    def items(self) -> list[Item]:
        """What is kept, the highest first."""
        return [item for _, _, item in sorted(self._heap, reverse=True)]


@dataclass(frozen=True)
class Shown:
    """A frame with its overlay as an HTML image source."""

    caption: str
    source: str


class HighestFrames:
    """Keeps small, compressed overlays of the few frames with the highest-scoring obstacles."""

    def __init__(self) -> None:
        self._kept: Highest[Shown] = Highest(_SHOWN)

    def add(self, detection: Detection, index: int) -> None:
        """Draw the frame if it is among the highest-scoring so far."""

        def shown() -> Shown:
            camera = detection.frame.camera or 'camera'
            caption = f'{camera}, frame {index}, stamp {detection.frame.stamp_ns} ns'
            image = embedded(draw_overlay(detection, OverlayOptions()), _IMAGE_WIDTH)
            return Shown(caption, image)

        if detection.obstacles:
            self._kept.add(float(detection.obstacles[0].surprisal), shown)

    @property
    def frames(self) -> Sequence[Shown]:
        """The kept frames, highest-scoring first."""
        return self._kept.items


class LabelledFrames:
    """
    Counts of the labelled frames: fine ones of all together, coarse ones of each (8 KiB).

    The values carry bounds on what the order inside bins can change (metrics/binning.py). The
    frame is the unit of the bootstrap. Pixels that the network does not see are left out.
    """

    def __init__(self) -> None:
        self._positives = np.zeros(BINS, np.int64)
        self._negatives = np.zeros(BINS, np.int64)
        self._each: list[npt.NDArray[np.int32]] = []
        self._missed: list[int] = []

    def __len__(self) -> int:
        return len(self._missed)

    def add(self, maps: OutputMaps, labels: UInt8Array) -> None:
        """Add a frame; labels: uint8 (H, W), 1 anomaly, 0 normal, else ignored."""
        seen = camera_window(maps.detection.geometry)
        surprisal = maps.image('surprisal')[seen]
        scored = ~np.isnan(surprisal)
        counts = label_counts(np.nan_to_num(surprisal, copy=False), labels[seen], scored)
        normal, anomaly = counts[1]
        self._negatives += normal
        self._positives += anomaly
        self._each.append(_coarse(counts[1]).astype(np.int32))
        self._missed.append(int(counts[0, 1].sum()))

    def counts(self) -> TruthCounts:
        """Return what other recordings' counts are added to."""
        both = np.stack([self._negatives, self._positives])
        return TruthCounts(len(self), both, sum(self._missed))

    def record(self, seed: int = 0) -> JsonDict:
        """Return the metrics, their bounds and their 95 % intervals; None where undefined."""
        return _record(self.counts(), np.stack(self._each), self._missed, seed)


@dataclass(frozen=True)
class TruthCounts:
    """
    The labelled pixels of a recording by score: what recordings are merged by, exactly.

    frames: labelled ones. counts: int64 (2, BINS), normal and anomaly. missed: anomaly pixels
    outside the region of interest.
    """

    frames: int
    counts: npt.NDArray[np.int64]
    missed: int


def merged_record(parts: Sequence[TruthCounts], seed: int = 0) -> JsonDict:
    """
    Return LabelledFrames.record of recordings together: the same values as of one long recording.

    Here the recording, not the frame, is the unit of the bootstrap.
    """
    counts = np.sum([part.counts for part in parts], axis=0)
    whole = TruthCounts(
        sum(part.frames for part in parts), counts, sum(part.missed for part in parts)
    )
    each = np.stack([_coarse(part.counts) for part in parts])
    return _record(whole, each, [part.missed for part in parts], seed)


def _coarse(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return (2, BINS) as (2, _COARSE)."""
    return np.asarray(counts.reshape(2, _COARSE, -1).sum(2))


def _record(
    whole: TruthCounts, each: npt.NDArray[np.integer[Any]], missed: Sequence[int], seed: int
) -> JsonDict:
    """Return the metrics of all, with intervals over what has a row of coarse counts in `each`."""
    exact = binned_metrics(whole.counts[1], whole.counts[0], whole.missed)
    units = ImageHistograms(
        lower_edges()[:: BINS // _COARSE],
        each[:, 1].astype(np.int64),
        each[:, 0].astype(np.int64),
        np.array(missed, np.int64),
    )
    intervals = metric_intervals(units, RESAMPLES, seed)
    found = {name: getattr(exact, name) for name in METRICS}
    return {
        'frames': whole.frames,
        'anomaly_pixels': exact.positives,
        'normal_pixels': exact.negatives,
        'anomaly_pixels_outside_the_region': exact.missed,
        'metrics': {name: plain(values[0]) for name, values in found.items()},
        'bounds': {name: [plain(v) for v in values[1:]] for name, values in found.items()},
        'intervals': {name: interval_record(intervals[name]) for name in METRICS},
    }
