# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Clean frames: of a ROS 2 bag, a folder of images or a video, evenly spread over it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ood_perception.bags.cameras import CameraTopic, camera_frames, open_cameras
from ood_perception.bags.metadata import is_bag
from ood_perception.bags.problems import FAIL, Problems
from ood_perception.bags.reading import Bag
from ood_perception.demo.sources import open_source, spread
from ood_perception.errors import ConfigError
from ood_perception.files import user_path
from ood_perception.image.image_files import list_images, read_image
from ood_perception.types import Frame


@dataclass(frozen=True)
class Drive:
    """
    A source of clean frames.

    description: for people. count: frames that will be taken, an upper limit. frames: a fresh
    iterator, in recorded order; the stamps of images and videos are 0.
    """

    description: str
    count: int
    frames: Callable[[], Iterator[Frame]]


def open_drive(text: str, limit: int, topics: Sequence[str] = ()) -> Drive:
    """
    Return at most `limit` frames of a bag, a folder or a video, evenly spread.

    topics: of a bag, '/topic' or 'name=/topic', () = every camera. Raises ConfigError for what is
    not there or of no known kind, DataError for what cannot be read.
    """
    path = user_path(text)
    if text.isdigit() or text.startswith('/dev/') or not text:
        raise ConfigError(
            f'--clean {text!r}: record the camera first; give a bag, folder or video'
        )
    if path.exists() and is_bag(path):
        return open_bag(path, topics).drive(limit)
    if topics:
        raise ConfigError(f'--topics {" ".join(topics)}: {path} is no bag, so it has no topics')
    # of a labelled set the images alone: its labels are not read
    images = path / 'images' if (path / 'images').is_dir() else path
    source = open_source(str(images), limit, '--clean')
    count = min(limit, len(list_images(images))) if path.is_dir() else limit

    def frames() -> Iterator[Frame]:
        for image in source.images():
            yield Frame(image.image, '', 0, image.name)

    kind, place = 'images of' if path.is_dir() else 'video', path.absolute()
    name = f'{place.parent.name}/images' if place.name == 'images' else place.name
    return Drive(f'{kind} {name}', count, frames)


def of_images(paths: Sequence[Path]) -> Drive:
    """Return the named images as frames, in their order."""

    def frames() -> Iterator[Frame]:
        for path in paths:
            yield Frame(read_image(path), '', 0, path.name)

    return Drive(f'{len(paths)} images', len(paths), frames)


@dataclass(frozen=True)
class CleanBag:
    """A bag's cameras, with what is said of them."""

    path: Path
    cameras: tuple[CameraTopic, ...]
    description: str

    @property
    def count(self) -> int:
        """How many frames its index tells of."""
        return sum(camera.count for camera in self.cameras)

    def drive(self, limit: int) -> Drive:
        """Return at most `limit` of its frames, evenly spread."""
        wanted = spread(self.count, limit)

        def frames() -> Iterator[Frame]:
            with Bag(self.path, Problems(FAIL)) as bag:
                read = camera_frames(bag, self.cameras, frozenset(wanted))
                for number, frame in zip(wanted, read, strict=False):  # one may not be there
                    yield Frame(frame.image, frame.camera, frame.stamp_ns, f'frame {number}')

        return Drive(self.description, min(self.count, limit), frames)


def open_bag(path: Path, topics: Sequence[str]) -> CleanBag:
    """Look at a bag's cameras, see open_drive; DataError for a damaged one."""
    with Bag(path, Problems(FAIL)) as bag:
        cameras = open_cameras(bag, topics)
        names = ', '.join(camera.topic for camera in cameras)
        return CleanBag(path, cameras, '; '.join([f'bag {path.name}, {names}', *bag.notes]))
