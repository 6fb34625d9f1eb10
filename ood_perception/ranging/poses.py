# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Values per camera in string parameters: poses '[camera:] 0,0,1.5 0,0.1,0', lines '0.4,0.42'."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from ood_perception.errors import ConfigError
from ood_perception.ranging.attitude import Mounting, mounting

# Instead of a pose: the tree of frames tells it.
FROM_TF = 'tf'
Pose = Mounting | Literal['tf']
POSE_EXAMPLE = (
    "'front: 0.75,0.1,1.5 0,0.26,0' (x,y,z in metres, then roll,pitch,yaw in radians), or "
    "'front: tf'"
)
LINE_EXAMPLE = "'front: 0.41,0.43' (height at the left and right end, shares of the image)"


def parse_poses(parameter: str, entries: Sequence[str]) -> dict[str, Pose]:
    """
    Return where the cameras sit, by name; the one without a name is under ''.

    The second triple, the camera body's roll, pitch and yaw in the base frame, may be left out.
    FROM_TF stands for a pose that tf tells. Raises ConfigError naming the parameter and the
    entry.
    """
    poses: dict[str, Pose] = {}
    for camera, words in _entries(entries):
        if words == [FROM_TF]:
            poses[camera] = 'tf'
            continue
        triples = [_numbers(word, 3) for word in words]
        if not 1 <= len(triples) <= 2 or None in triples:
            raise ConfigError(f'{parameter} has {words}: write it like {POSE_EXAMPLE}')
        poses[camera] = mounting(*(triple for triple in triples if triple))
    return poses


def parse_lines(parameter: str, entries: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Return where the horizon meets the image's sides, shares of the height, by camera."""
    lines = {}
    for camera, words in _entries(entries):
        ends = _numbers(words[0], 2) if len(words) == 1 else None
        if ends is None:
            raise ConfigError(f'{parameter} has {words}: write it like {LINE_EXAMPLE}')
        lines[camera] = (ends[0], ends[1])
    return lines


def parse_rpy(parameter: str, text: str) -> tuple[float, ...]:
    """Return roll, pitch and yaw of 'roll,pitch,yaw' in radians; '' is no rotation."""
    angles = _numbers(text, 3) if text.strip() else (0.0, 0.0, 0.0)
    if angles is None:
        raise ConfigError(f"{parameter} is {text!r}: write roll,pitch,yaw in radians, '0,0,0'")
    return angles


def _entries(entries: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Return the camera's name and the words of every entry that is not empty."""
    split = []
    for entry in entries:
        camera, colon, rest = entry.rpartition(':')
        if entry.strip():
            split.append((camera.strip() if colon else '', rest.split()))
    return split


def _numbers(word: str, count: int) -> tuple[float, ...] | None:
    """Return `count` finite numbers between commas, None if they are none."""
    try:
        numbers = tuple(float(part) for part in word.split(','))
    except ValueError:
        return None
    return numbers if len(numbers) == count and all(map(math.isfinite, numbers)) else None
