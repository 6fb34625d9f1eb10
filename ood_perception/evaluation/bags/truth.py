# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Ground truth of recorded frames: a label topic matched by stamp, or a folder of label pictures.

A label is uint8 (H, W) of the frame's size: 1 anomaly, 0 normal, everything else ignored. Labels
of a topic are spooled to a folder first, so that nothing waits in memory for its frame, whatever
the order in which the two were recorded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import cv2

from ...errors import ConfigError, DataError, ImageError
from ...label_images import label_files, need_anomaly, read_label
from ...types import Frame, UInt8Array
from . import problems as kinds
from .messages import Cdr, label_picture, stamp_ns
from .problems import Problem, Problems
from .reading import Bag
from .topics import IMAGES, CameraTopic, listing

ANOMALY = 1
# Stems: nanoseconds; seconds and nanoseconds; or the frame's index. The stamps of a recording
# have more digits than any index.
_SECONDS = re.compile(r'^(\d+)[._](\d{9})$')
_STAMP_DIGITS = 15


@dataclass(frozen=True)
class LabelFolder:
    """One camera's label pictures, by stamp in nanoseconds or by index of the frame (from 0)."""

    by_stamp: Mapping[int, Path]
    by_index: Mapping[int, Path]

    def label(self, frame: Frame, index: int) -> UInt8Array | None:
        """Return the frame's label, None without; DataError when it does not fit the frame."""
        path = self.by_stamp.get(frame.stamp_ns) or self.by_index.get(index)
        if path is None:
            return None
        labels = read_label(path, 'label')
        if labels.shape != frame.image.shape[:2]:
            raise DataError(
                f'label {path} is {labels.shape}, its frame {frame.image.shape[:2]}: labels have '
                'the size of the frame'
            )
        return labels


def label_topics(entries: Sequence[str], bag: Bag) -> dict[str, str]:
    """Return {topic: camera name or ''} of those --ground-truth entries that are topics."""
    known = {topic for topic, _ in bag.topics}
    pairs = (_split(entry) for entry in entries)
    return {place: name for name, place in pairs if place in known}


def open_ground_truth(
    entries: Sequence[str],
    bag: Bag,
    cameras: Sequence[CameraTopic],
    cdr: Cdr,
    problems: Problems,
    scratch: Path,
) -> dict[str, LabelFolder]:
    """
    Return the labels by camera; {} for no entries.

    entries: topics of the bag or folders, with 'camera=' before them where there are several. A
    single folder may hold one folder per camera. Raises ConfigError for what is neither, DataError
    for labels without a single anomaly pixel.
    """
    names = {camera.camera for camera in cameras}
    truth: dict[str, LabelFolder] = {}
    topics = label_topics(entries, bag)
    for number, entry in enumerate(entries):
        name, place = _split(entry)
        if place in topics:
            folder = scratch / f'labels_{number}'
            _spool(bag, place, cdr, problems, folder)
        elif Path(place).is_dir():
            folder = Path(place)
        else:
            raise ConfigError(
                f'--ground-truth {entry!r} is neither a folder nor a topic of the bag, which '
                f'holds {listing(bag.topics)}'
            )
        for camera in _cameras_of(entry, name, names, folder):
            inside = folder / camera if camera and (folder / camera).is_dir() else folder
            truth[camera] = read_folder(inside)
    need_anomaly(_readable(truth.values()), (ANOMALY,), f'--ground-truth {" ".join(entries)}')
    return truth


def _readable(folders: Iterable[LabelFolder]) -> Iterator[UInt8Array]:
    """Yield the labels; broken ones are met when their frame is compared."""
    for folder in folders:
        for path in (*folder.by_stamp.values(), *folder.by_index.values()):
            with suppress(DataError):
                yield read_label(path)


def read_folder(folder: Path) -> LabelFolder:
    """Return a folder's label pictures; DataError for a file named by neither stamp nor index."""
    by_stamp: dict[int, Path] = {}
    by_index: dict[int, Path] = {}
    for path in label_files(folder).values():
        seconds = _SECONDS.match(path.stem)
        if seconds:
            by_stamp[int(seconds[1]) * 1_000_000_000 + int(seconds[2])] = path
        elif path.stem.isdigit():
            (by_stamp if len(path.stem) >= _STAMP_DIGITS else by_index)[int(path.stem)] = path
        else:
            raise DataError(
                f'label {path} is named by neither stamp nor index: name it like '
                '1700000000123456789.png, 1700000000_123456789.png or 000042.png'
            )
    return LabelFolder(by_stamp, by_index)


def _split(entry: str) -> tuple[str, str]:
    """Return (camera name or '', place)."""
    name, equals, place = entry.partition('=')
    return (name, place) if equals else ('', entry)


def _cameras_of(entry: str, name: str, names: set[str], folder: Path) -> list[str]:
    if name and name not in names:
        raise ConfigError(
            f'--ground-truth {entry!r}: there is no camera {name!r}, only '
            f'{", ".join(map(repr, sorted(names)))}'
        )
    if name or len(names) == 1:
        return [name or next(iter(names))]
    inside = [camera for camera in sorted(names) if (folder / camera).is_dir()]
    if not inside:
        raise ConfigError(
            f'--ground-truth {entry!r}: say for which camera, as in {sorted(names)[0]}={entry}'
        )
    return inside


def _spool(bag: Bag, topic: str, cdr: Cdr, problems: Problems, folder: Path) -> None:
    """Write a label topic's pictures into a folder by their stamps; a later one replaces."""
    folder.mkdir()
    for message in bag.messages([topic]):
        place = f'{topic} at {message.time_ns}'
        try:
            if message.msgtype not in IMAGES:
                raise DataError(f'{message.msgtype} is no label picture: use Image mono8')
            content = cdr.read(message.data, message.msgtype)
            file = folder / f'{stamp_ns(content):0{_STAMP_DIGITS}d}.png'
            cv2.imwrite(str(file), label_picture(content))
        except (DataError, ImageError) as error:
            problems.meet(Problem(kinds.BAD_LABEL, place, f'{place}: {error}'))
