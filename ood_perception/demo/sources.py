# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Where the demo's images come from: its own labelled frames, a folder, video, bag or camera."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ood_perception.bags.cameras import camera_frames, open_cameras
from ood_perception.bags.metadata import is_bag
from ood_perception.bags.problems import FAIL, Problems
from ood_perception.bags.reading import Bag
from ood_perception.errors import ConfigError, DataError
from ood_perception.files import user_path
from ood_perception.image.image_files import (
    IMAGES,
    label_files,
    list_images,
    read_image,
    read_label,
    tell,
)
from ood_perception.types import UInt8Array

VIDEOS = ('.mp4', '.avi', '.mkv', '.mov', '.webm', '.m4v', '.mpg', '.mpeg')
# Labelled images that the package ships, <place>/images and <place>/labels; NOTICE: whose.
ROAD, SEA = (Path(__file__).parent / 'assets' / place for place in ('road', 'sea'))
COMPOSED = (
    'The drive is real: frames of a dashboard camera on a highway (Udacity, MIT licence). The '
    'object on the road is not: this project drew it into each frame, with its shadow, so that '
    'its place is known. The head has seen neither.'
)


@dataclass(frozen=True)
class Image:
    """One image to publish, uint8 (H, W, 3) RGB; truth: uint8 (H, W) labels, see check_frame."""

    name: str
    image: UInt8Array
    truth: UInt8Array | None = None


@dataclass(frozen=True)
class Source:
    """
    Images and where they are from.

    description: for people. note: what the project drew itself, '' where nothing. images: a
    fresh iterator.
    """

    description: str
    note: str
    images: Callable[[], Iterator[Image]]


def open_source(text: str, limit: int, option: str = 'DEMO_INPUT') -> Source:
    """
    Return the images that an option names, at most `limit`; option: its name, for messages.

    text: a folder of images or a bag, a video, a bag file, a camera device (/dev/video0 or 0),
    or '' for the frames of a real drive that the package ships, with objects composed in.
    Raises ConfigError for what is not there or of no known kind, DataError for what cannot be
    read; images are read when they are asked for, and may raise DataError then.
    """
    if not text:
        description = 'frames of a real drive with objects composed in'
        return replace(_folder(ROAD, limit), description=description, note=COMPOSED)
    if text.isdigit() or text.startswith('/dev/'):
        return _recorded(f'camera {text}', device_frames(text, limit))
    path = user_path(text)
    if not path.exists():
        raise ConfigError(
            f'{option} {text!r} does not exist: give a folder of images, a video, a ROS 2 bag '
            "or a camera device such as /dev/video0; leave it empty for the demo's own images"
        )
    if is_bag(path):
        return _recorded(f'ROS 2 bag {path}', bag_frames(path, limit))
    if path.is_dir():
        return _folder(path, limit, option)
    if path.suffix.lower() in VIDEOS:
        return _recorded(f'video {path}', video_frames(path, limit))
    raise ConfigError(
        f'{option} {text!r}: a file ending in {path.suffix or "nothing"} is neither a video '
        f'({", ".join(VIDEOS)}) nor a bag (.mcap, .db3); for images give their folder'
    )


def spread(count: int, limit: int) -> list[int]:
    """Return at most `limit` indices of `count` things, evenly spread and ascending."""
    if count <= limit:
        return list(range(count))
    return [int(index) for index in np.linspace(0, count - 1, limit).round()]


def _recorded(description: str, images: Iterator[UInt8Array]) -> Source:
    def frames() -> Iterator[Image]:
        for number, image in enumerate(images):
            yield Image(f'frame {number + 1}', image)

    return Source(description, '', frames)


def _folder(folder: Path, limit: int, option: str = 'DEMO_INPUT') -> Source:
    """Return a folder of images; with images/ and labels/ inside, labelled ones."""
    images = folder / 'images' if (folder / 'images').is_dir() else folder
    labels = label_files(folder / 'labels') if images != folder else {}
    files = sorted(list_images(images), key=_in_order)
    if not files:
        raise ConfigError(
            f'{option} {str(folder)!r} holds no image ({", ".join(IMAGES)}): give the '
            'folder that holds them'
        )
    chosen = [files[index] for index in spread(len(files), limit)]
    bare = [path for path in files if labels and path.stem not in labels]
    if bare:
        tell(f'{folder}: {len(bare)} images have no label, such as {bare[0].name}: unchecked')

    def frames() -> Iterator[Image]:
        for path in chosen:
            image = read_image(path)
            label = labels.get(path.stem)
            yield Image(path.name, image, _truth(label, image) if label else None)

    return Source(f'images of {folder}', '', frames)


def _in_order(path: Path) -> tuple[int, str]:
    """Sort 2.jpg before 10.jpg."""
    digits = ''.join(c for c in path.stem if c.isdigit())
    return (int(digits) if digits else 0), path.name


def _truth(path: Path, image: UInt8Array) -> UInt8Array | None:
    """Return the labels of a label image (0 road, 1 obstacle), None for other ids."""
    labels = read_label(path)
    if labels.shape != image.shape[:2]:
        raise DataError(f'{path} is {labels.shape}, expected {image.shape[:2]} like its image')
    unknown = set(np.unique(labels).tolist()) - {0, 1, 255}
    if unknown:
        # Another data set's ids: without their meaning nothing can be checked.
        tell(f'{path.parent} holds ids beside 0, 1 and 255: its images are shown unchecked')
        return None
    return labels


def video_frames(path: Path, limit: int) -> Iterator[UInt8Array]:
    """Yield at most `limit` frames, uint8 (H, W, 3) RGB, spread over a video file."""
    capture = _opened(str(path), f'video {path}', 'its codec may be missing: convert it to H.264')
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    wanted = spread(count, limit) if count > limit else range(limit)
    return _grab(capture, f'video {path}', wanted)


def device_frames(device: str, limit: int) -> Iterator[UInt8Array]:
    """Yield `limit` frames, uint8 (H, W, 3) RGB, of a camera device (/dev/video0 or 0)."""
    if device.startswith('/dev/') and not Path(device).exists():
        raise ConfigError(f'camera {device} does not exist: is it plugged in? (ls /dev/video*)')
    name: str | int = int(device) if device.isdigit() else device
    capture = _opened(name, f'camera {device}', 'is another program using it, may you read it?')
    return _grab(capture, f'camera {device}', range(limit))


def bag_frames(path: Path, limit: int) -> Iterator[UInt8Array]:
    """
    Yield at most `limit` images, uint8 (H, W, 3) RGB, spread over a bag's fullest camera.

    Raises DependencyError without rosbags, DataError for a bag that cannot be read.
    """
    with Bag(path, Problems(FAIL)) as opened:
        fullest = max(open_cameras(opened), key=lambda camera: camera.count)
        wanted = frozenset(spread(fullest.count, limit))
        for frame in camera_frames(opened, [fullest], wanted):
            yield frame.image


def _opened(name: str | int, what: str, remedy: str) -> Any:
    capture = cv2.VideoCapture(name)
    if not capture.isOpened():
        raise DataError(f'{what} cannot be opened: {remedy}')
    return capture


def _grab(capture: Any, what: str, wanted: Sequence[int]) -> Iterator[UInt8Array]:
    """Yield the frames with the wanted numbers, ascending; DataError when there is none."""
    count = 0
    try:
        for before, number in pairwise([-1, *wanted]):
            for _ in range(number - before - 1):
                capture.grab()
            fine, image = capture.read()
            if not fine:
                break
            count += 1
            yield np.ascontiguousarray(image[..., ::-1], dtype=np.uint8)
    finally:
        capture.release()
    if not count:
        raise DataError(f'{what} gave no frame: it is empty or cannot be decoded')
