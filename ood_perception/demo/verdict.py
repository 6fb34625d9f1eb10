# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What is known of a demo image, and whether the demo did its job: object found, rate kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from ood_perception.types import MASK_NOT_SCORED, MASK_OBSTACLE, UInt8Array

ROAD, OBSTACLE = 0, 1  # ids of labels
# An object counts as found when this share of its pixels is flagged.
FOUND_SHARE = 0.25
# Objects that cover fewer patches than this are below what the backbone resolves: not counted.
MINIMUM_PATCHES = 2.0
REQUIRED_FOUND = 0.8
ALLOWED_EXCESS = 3.0


@dataclass(frozen=True)
class ObjectCheck:
    """
    One object in one frame.

    box: x, y, width, height in pixels. covered: flagged share of its pixels, 0..1.
    counted: whether it is large enough to count.
    """

    box: tuple[int, int, int, int]
    covered: float
    counted: bool

    @property
    def found(self) -> bool:
        """Whether enough of it is flagged."""
        return self.covered >= FOUND_SHARE


@dataclass(frozen=True)
class FrameCheck:
    """
    One frame against its truth.

    road_pixels: scored road pixels, but those within one patch of an object, which sees the
    object, too. flagged: how many of them are flagged.
    """

    objects: tuple[ObjectCheck, ...] = ()
    road_pixels: int = 0
    flagged: int = 0


@dataclass(frozen=True)
class Verdict:
    """
    Of all frames: objects counted and found, the flagged share of the rest of the road.

    target: the node's false_alarm_rate. checked: frames with a known truth. reasons: why the
    demo failed, empty when it passed.
    """

    target: float
    checked: int
    counted: int
    found: int
    road_pixels: int
    flagged: int
    reasons: tuple[str, ...] = field(default=())

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return not self.reasons

    @property
    def share(self) -> float:
        """Flagged share of the rest of the road, 0..1; 0 where no road was scored."""
        return self.flagged / self.road_pixels if self.road_pixels else 0.0


def check_frame(mask: UInt8Array, labels: UInt8Array, patch: float) -> FrameCheck:
    """
    Compare the node's mask with the labels, uint8 (H, W): ROAD, OBSTACLE, all others not judged.

    patch: side of a network patch in camera pixels.
    """
    flagged, scored = mask == MASK_OBSTACLE, mask != MASK_NOT_SCORED
    anomaly = (labels == OBSTACLE).astype(np.uint8)
    count, parts, stats, _ = cv2.connectedComponentsWithStats(anomaly, connectivity=8)
    hits = np.bincount(parts[flagged], minlength=count)
    size = 2 * int(np.ceil(patch)) + 1
    near = cv2.dilate(anomaly, np.ones((size, size), np.uint8)) > 0
    rest = (labels == ROAD) & scored & ~near
    return FrameCheck(
        objects=tuple(
            ObjectCheck((x, y, width, height), hit / area, area >= MINIMUM_PATCHES * patch * patch)
            for (x, y, width, height, area), hit in zip(
                stats[1:].tolist(), hits[1:].tolist(), strict=True
            )
        ),
        road_pixels=int(rest.sum()),
        flagged=int((rest & flagged).sum()),
    )


def judge(checks: Sequence[FrameCheck], target: float) -> Verdict:
    """Return the verdict over all frames with a known truth; without any, nothing is judged."""
    objects = [one for check in checks for one in check.objects if one.counted]
    found = sum(one.found for one in objects)
    road, flagged = sum(c.road_pixels for c in checks), sum(c.flagged for c in checks)
    reasons = []
    if checks and not objects:
        reasons.append('no frame held an object of countable size, so nothing could be found')
    if objects and found < REQUIRED_FOUND * len(objects):
        reasons.append(
            f'the object was found {found} of {len(objects)} times, fewer than '
            f'{REQUIRED_FOUND:.0%}'
        )
    if checks and not road:
        reasons.append('no road pixel was scored: the region of interest was empty')
    if road and flagged / road >= ALLOWED_EXCESS * target:
        reasons.append(
            f'{flagged / road:.2%} of the rest of the road was flagged, not below '
            f'{ALLOWED_EXCESS:g} times the target {target:.2%}'
        )
    return Verdict(target, len(checks), len(objects), found, road, flagged, tuple(reasons))
