# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The frames that a reader of the report should look at first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..overlay import draw_overlay
from ..types import Frame, JsonDict, UInt8Array
from .page import save_jpeg
from .record import Kept, RecordSet, unpack_detection
from .report import ShownFrame

LABEL_COLOR = (64, 128, 255)
ReadPicture = Callable[[str], tuple[UInt8Array, UInt8Array]]


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
    folder: Path, data: str, summary: JsonDict, records: RecordSet, read: ReadPicture, count: int
) -> list[ShownFrame]:
    """
    Write the worst frames of a set as JPEG under `folder`/frames.

    read: picture name -> uint8 (H, W, 3) RGB and labels uint8 (H, W).
    """
    kept = {one.name: one for one in records.kept}
    outlined = 'regions' in summary
    frames = []
    for number, row in enumerate(worst_pictures(summary['pictures'], count), 1):
        picture = _drawn(records, kept[row['name']], read, outlined)
        safe = ''.join(c if c.isalnum() else '_' for c in data)
        source = save_jpeg(folder, f'frames/{safe}_{number:02d}.jpg', picture, width=960)
        frames.append(ShownFrame(data, source, _caption(row)))
    return frames


def _drawn(records: RecordSet, kept: Kept, read: ReadPicture, outlined: bool) -> UInt8Array:
    """Return the overlay of a kept detection, with the labelled anomalies outlined."""
    image, labels = read(kept.name)
    arrays: dict[str, Any] = records.load(kept)
    picture = draw_overlay(unpack_detection(arrays, Frame(image, frame_id=kept.name)))
    if outlined:
        anomaly = np.ascontiguousarray(labels == 1).view(np.uint8)
        contours, _ = cv2.findContours(anomaly, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
        cv2.drawContours(picture, contours, -1, LABEL_COLOR, max(2, picture.shape[0] // 270))
    return picture


def _caption(row: JsonDict) -> str:
    """Say what the picture's numbers are."""
    parts = [f'picture {row["name"]}']
    if row.get('objects'):
        parts.append(f'{row["objects_found"]} of {row["objects"]} objects found')
        parts.append(f'{100 * row["anomaly_missed"]:.0f} % of their pixels missed')
    if row.get('normal_flagged') is not None:
        parts.append(f'{100 * row["normal_flagged"]:.1f} % of the normal pixels flagged')
    return '; '.join(parts)
