# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Clean frames in their order, from a labelled split, a folder of images or a ROS 2 bag."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from ood_perception.bags.cameras import (
    CameraTopic,
    camera_frames,
    camera_messages,
    open_cameras,
)
from ood_perception.bags.metadata import is_bag
from ood_perception.bags.problems import FAIL, Problems
from ood_perception.bags.reading import Bag
from ood_perception.errors import ConfigError
from ood_perception.files import user_path
from ood_perception.types import Frame, UInt8Array

from ..data.images import ClassMap, ImageList, list_images
from ..datasets import LAYOUTS, load_images
from ..datasets.files import before_last, labels_of

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
    Open what --clean names: <layout>/<split> under root, a folder of images, or a bag.

    fps: stamps of images are this far apart. labels: None = do not use any, '' = the split's
    own, else a folder of PNGs with the bundle's class ids, named as the images. class_names:
    the bundle's, which a split's labels must share.

    Raises ConfigError for an unknown source, DataError for what cannot be read.
    """
    path = user_path(text)
    if path.exists() and is_bag(path):
        if labels is not None:
            raise ConfigError(f'{path} is a bag, which has no labels: leave --labels out')
        return _bag(path)
    layout, _, split = text.partition('/')
    if layout in LAYOUTS and split and not path.is_dir():
        return _split(load_images(layout, root / layout, split), text, fps, labels, class_names)
    if not path.is_dir():
        known = ', '.join(f'{name}/<split>' for name in LAYOUTS)
        raise ConfigError(
            f'{text!r} is no folder of images, no ROS 2 bag and none of {known}: give one'
        )
    return _folder(path, fps, labels)


def _split(
    images: ImageList, name: str, fps: float, labels: str | None, class_names: tuple[str, ...]
) -> CleanFrames:
    if labels:
        raise ConfigError(f'{name} has labels of its own: give --labels without a folder')
    if labels is not None and images.classes.names != class_names:
        raise ConfigError(
            f'{name} is labelled with {", ".join(images.classes.names)}, the bundle knows '
            f'{", ".join(class_names)}: leave --labels out, every obstacle counts then'
        )
    return _listed(images, name, fps, labels is not None)


def _folder(folder: Path, fps: float, labels: str | None) -> CleanFrames:
    if labels == '':
        raise ConfigError(f'{folder} is a plain folder: give --labels the folder of its labels')
    images = list_images(folder / 'images' if (folder / 'images').is_dir() else folder)
    files = labels_of(images, Path(labels)) if labels else []
    names = tuple(path.stem for path in images)
    own_ids = ClassMap((), (), {file_id: file_id for file_id in range(256)})
    frames = ImageList(names, tuple(images), tuple(files), tuple(before_last(names)), own_ids)
    return _listed(frames, str(folder), fps, labels is not None)


def _listed(images: ImageList, name: str, fps: float, labelled: bool) -> CleanFrames:
    def frames() -> Iterator[Item]:
        for number, photo in enumerate(images.names):
            image, truth = images.read(number)
            stamp = round((number + 1) * 1e9 / fps)  # in nanoseconds; the first is not 0
            frame = Frame(image, images.sequences[number], stamp, photo)
            yield frame, (truth if labelled else None)

    return CleanFrames(name, len(images), 0.0, labelled, frames)


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
