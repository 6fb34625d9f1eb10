# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The frames that a reader of the report should look at first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ood_perception.evaluation.maritime import sea_labels
from ood_perception.evaluation.measure import INSPECTION, Measured
from ood_perception.evaluation.record import Kept, RecordSet, unpack_detection
from ood_perception.evaluation.second_pass import ReadPicture
from ood_perception.metrics.lars import OBSTACLE, coloured
from ood_perception.postprocess.overlay import OverlayOptions, draw_overlay, outline
from ood_perception.types import BoolArray, Frame, JsonDict, UInt8Array

from .html import save_jpeg

LABEL_COLOR, SHORE_COLOR = (64, 128, 255), (255, 255, 255)
SMALLEST_WIDTH = 640


@dataclass(frozen=True)
class ShownFrame:
    """A frame of the report: its set, a JPEG beside the page, and its row of the summary."""

    data: str
    source: str
    row: JsonDict


def worst_pictures(pictures: Sequence[JsonDict], count: int) -> list[JsonDict]:
    """
    Choose pictures of a summary: by the share of the anomaly that the mask left out, and by the
    share of normal pixels that it flagged; alternately, each at most once, the worst first.
    """

    def ordered(name: str) -> list[JsonDict]:
        rows = [row for row in pictures if row.get(name)]
        return sorted(rows, key=lambda row: (-row[name], row['name']))

    queues = [ordered('anomaly_missed'), ordered('normal_flagged')]
    chosen: list[JsonDict] = []
    while len(chosen) < count and any(queues):
        for queue in queues:
            while queue and queue[0] in chosen:
                queue.pop(0)
            if queue and len(chosen) < count:
                chosen.append(queue.pop(0))
    return chosen


def draw_worst(
    folder: Path,
    data: str,
    pictures: Sequence[JsonDict],
    records: RecordSet,
    read: ReadPicture,
    measured: Measured,
    count: int,
) -> list[ShownFrame]:
    """
    Write the worst frames of a set as JPEG under `folder`/frames.

    pictures: the rows of its summary. read: picture name -> uint8 (H, W, 3) RGB and labels uint8
    (H, W).
    """
    kept = {one.name: one for one in records.kept}
    frames = []
    for number, row in enumerate(worst_pictures(pictures, count), 1):
        picture = _drawn(records, kept[row['name']], read, measured)
        safe = ''.join(c if c.isalnum() else '_' for c in data)
        source = save_jpeg(folder, f'frames/{safe}_{number:02d}.jpg', picture, width=960)
        frames.append(ShownFrame(data, source, row))
    return frames


def _drawn(records: RecordSet, kept: Kept, read: ReadPicture, measured: Measured) -> UInt8Array:
    """Return a kept detection over its picture, with what people labelled outlined."""
    image, labels = read(kept.name)
    arrays: dict[str, Any] = records.load(kept)
    detection = unpack_detection(arrays, Frame(image, frame_id=kept.name))
    if measured.sea is not None:
        areas = coloured(sea_labels(detection, measured.sea))
        picture = np.asarray(cv2.addWeighted(image, 0.55, areas, 0.45, 0), np.uint8)
        return _outlined(picture, labels == OBSTACLE, SHORE_COLOR)
    if measured.kind == INSPECTION:
        picture = draw_overlay(detection, OverlayOptions(boxes=False, region=False, legend=False))
        return _outlined(*_enlarged(picture, labels == 1), LABEL_COLOR)
    picture = draw_overlay(detection)
    return _outlined(picture, labels == 1, LABEL_COLOR) if measured.regions else picture


def _enlarged(picture: UInt8Array, area: BoolArray) -> tuple[UInt8Array, BoolArray]:
    """Enlarge small pictures by a whole factor, so that outlines do not cover what they mark."""
    factor = -(-SMALLEST_WIDTH // picture.shape[1])
    size = (picture.shape[1] * factor, picture.shape[0] * factor)
    large = cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR)
    marked = cv2.resize(area.view(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    return np.asarray(large, np.uint8), marked > 0


def _outlined(picture: UInt8Array, area: BoolArray, color: tuple[int, int, int]) -> UInt8Array:
    outline(picture, area, color, max(2, picture.shape[0] // 270))
    return picture
