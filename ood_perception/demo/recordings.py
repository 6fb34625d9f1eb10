# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Pictures out of videos, camera devices and ROS 2 bags, for the demo."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ood_perception.bags.cameras import camera_frames, open_cameras
from ood_perception.bags.metadata import is_bag
from ood_perception.bags.problems import FAIL, Problems
from ood_perception.bags.reading import Bag
from ood_perception.errors import ConfigError, DataError
from ood_perception.types import UInt8Array

__all__ = ['bag', 'camera', 'is_bag', 'video']


def video(path: Path, limit: int) -> Iterator[UInt8Array]:
    """Yield at most `limit` frames, uint8 (H, W, 3) RGB, spread over a video file."""
    capture = _opened(str(path), f'video {path}', 'its codec may be missing: convert it to H.264')
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    step = max(1, count // limit)
    return _grab(capture, f'video {path}', limit, step)


def camera(device: str, limit: int) -> Iterator[UInt8Array]:
    """Yield `limit` frames, uint8 (H, W, 3) RGB, of a camera device (/dev/video0 or 0)."""
    if device.startswith('/dev/') and not Path(device).exists():
        raise ConfigError(f'camera {device} does not exist: is it plugged in? (ls /dev/video*)')
    name: str | int = int(device) if device.isdigit() else device
    capture = _opened(name, f'camera {device}', 'is another program using it, may you read it?')
    return _grab(capture, f'camera {device}', limit, step=1)


def bag(path: Path, limit: int) -> Iterator[UInt8Array]:
    """
    Yield at most `limit` pictures, uint8 (H, W, 3) RGB, spread over a bag's fullest camera.

    Raises DependencyError without rosbags, DataError for a bag that cannot be read.
    """
    with Bag(path, Problems(FAIL)) as opened:
        fullest = max(open_cameras(opened), key=lambda camera: camera.count)
        step = max(1, fullest.count // limit)
        for frame in islice(camera_frames(opened, [fullest], step), limit):
            yield frame.image


def _opened(name: str | int, what: str, remedy: str) -> Any:
    capture = cv2.VideoCapture(name)
    if not capture.isOpened():
        raise DataError(f'{what} cannot be opened: {remedy}')
    return capture


def _grab(capture: Any, what: str, limit: int, step: int) -> Iterator[UInt8Array]:
    """Yield every `step`-th frame until there are `limit`; DataError when there is none."""
    count = 0
    try:
        while count < limit:
            fine, picture = capture.read()
            if not fine:
                break
            count += 1
            yield np.ascontiguousarray(picture[..., ::-1], dtype=np.uint8)
            for _ in range(step - 1):
                capture.grab()
    finally:
        capture.release()
    if not count:
        raise DataError(f'{what} gave no frame: it is empty or cannot be decoded')
