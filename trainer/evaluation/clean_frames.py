# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Clean frames in their order, from a labelled split, a folder of pictures or a ROS 2 bag."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ood_perception.bags.cameras import (
    CameraTopic,
    camera_frames,
    camera_messages,
    open_cameras,
)
from ood_perception.bags.metadata import is_bag
from ood_perception.bags.problems import FAIL, Problems
from ood_perception.bags.reading import Bag
from ood_perception.errors import ConfigError, DataError
from ood_perception.image.label_files import read_label
from ood_perception.types import Frame

from ..data.images import PictureList, list_pictures, read_image
from ..datasets import LAYOUTS, load_pictures
from ..datasets.layout import labels_of

UInt8Array = npt.NDArray[np.uint8]
Item = tuple[Frame, UInt8Array | None]


@dataclass(frozen=True)
class CleanFrames:
    """
    A source of frames without unknown objects.

    name: for reports. count: frames, an upper limit for a bag. fps: of the recording, 0 = not
    known. labelled: whether true class ids come with the frames. frames: a fresh iterator over
    (frame, labels uint8 (H, W) or None); the frame's camera is its drive or camera. cameras: those
    of a bag, () where frames are named after their drive.
    """

    name: str
    count: int
    fps: float
    labelled: bool
    frames: Callable[[], Iterator[Item]]
    cameras: tuple[str, ...] = ()


def open_clean(
    text: str, root: Path, fps: float, labels: str | None, class_names: tuple[str, ...]
) -> CleanFrames:
    """
    Open what --clean names: <layout>/<split> under root, a folder of pictures, or a bag.

    fps: stamps of pictures are this far apart. labels: None = do not use any, '' = the split's
    own, else a folder of PNGs with the bundle's class ids, named as the pictures. class_names:
    the bundle's, which a split's labels must share.

    Raises ConfigError for an unknown source, DataError for what cannot be read.
    """
    path = Path(text).expanduser()
    if path.exists() and is_bag(path):
        if labels is not None:
            raise ConfigError(f'{path} is a bag, which has no labels: leave --labels out')
        return _bag(path)
    layout, _, split = text.partition('/')
    if layout in LAYOUTS and split and not path.is_dir():
        return _split(load_pictures(layout, root / layout, split), text, fps, labels, class_names)
    if not path.is_dir():
        known = ', '.join(f'{name}/<split>' for name in LAYOUTS)
        raise ConfigError(
            f'{text!r} is no folder of pictures, no ROS 2 bag and none of {known}: give one'
        )
    return _folder(path, fps, labels)


def _split(
    pictures: PictureList, name: str, fps: float, labels: str | None, class_names: tuple[str, ...]
) -> CleanFrames:
    if labels:
        raise ConfigError(f'{name} has labels of its own: give --labels without a folder')
    if labels is not None and pictures.classes.names != class_names:
        raise ConfigError(
            f'{name} is labelled with {", ".join(pictures.classes.names)}, the bundle knows '
            f'{", ".join(class_names)}: leave --labels out, every obstacle counts then'
        )

    def frames() -> Iterator[Item]:
        for number, name in enumerate(pictures.names):
            image, truth = pictures.read(number)
            stamp = _stamp(number, fps)
            frame = Frame(image, pictures.sequences[number], stamp, name)
            yield frame, (None if labels is None else truth)

    return CleanFrames(name, len(pictures.names), 0.0, labels is not None, frames)


def _folder(folder: Path, fps: float, labels: str | None) -> CleanFrames:
    if labels == '':
        raise ConfigError(f'{folder} is a plain folder: give --labels the folder of its labels')
    images = list_pictures(folder / 'images' if (folder / 'images').is_dir() else folder)
    files = labels_of(images, Path(labels)) if labels else [None for _ in images]

    def frames() -> Iterator[Item]:
        for number, (path, label) in enumerate(zip(images, files, strict=True)):
            image, truth = read_image(path), read_label(label) if label else None
            if truth is not None and truth.shape != image.shape[:2]:
                raise DataError(
                    f'labels of {path.name} are {truth.shape}, its picture {image.shape[:2]}'
                )
            yield Frame(image, path.stem.rpartition('_')[0], _stamp(number, fps), path.stem), truth

    return CleanFrames(str(folder), len(images), 0.0, labels is not None, frames)


def _stamp(number: int, fps: float) -> int:
    """Return the stamp of a picture in nanoseconds; the first is not 0."""
    return round((number + 1) * 1e9 / fps)


def _bag(path: Path) -> CleanFrames:
    """Read every camera; a bag that is damaged is refused, its rates would mislead."""
    with Bag(path, Problems(FAIL)) as bag:
        cameras = open_cameras(bag)
        fps = _bag_fps(bag, cameras[0])
        name = '; '.join([f'bag {path}', *bag.notes])

    def frames() -> Iterator[Item]:
        with Bag(path, Problems(FAIL)) as bag, closing(camera_frames(bag, cameras)) as read:
            for frame in read:
                yield frame, None

    count = sum(camera.count for camera in cameras)
    names = tuple(camera.camera for camera in cameras)
    return CleanFrames(name, count, fps, False, frames, names)


def _bag_fps(bag: Bag, camera: CameraTopic) -> float:
    """Return the frames a second of one camera by the times of recording, 0 for under two."""
    times = [message.time_ns for message in camera_messages(bag, [camera])]
    span = (times[-1] - times[0]) / 1e9 if len(times) > 1 else 0.0
    return (len(times) - 1) / span if span > 0 else 0.0
