# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Ground truth of recorded frames: a label topic matched by stamp, or a folder of label images.

A label is uint8 (H, W) of the frame's size: 1 anomaly, 0 normal, everything else ignored. Labels
of a topic are spooled to a folder first, so that nothing waits in memory for its frame, whatever
the order in which the two were recorded.
"""

from __future__ import annotations

import re
from bisect import bisect
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import cv2

from ood_perception.errors import ConfigError, DataError, ImageError
from ood_perception.image.decode import stamp_ns
from ood_perception.image.encodings import IMAGE_TYPES
from ood_perception.image.image_files import LABELS, label_files, need_anomaly, read_label
from ood_perception.types import Frame, UInt8Array

from . import problems as kinds
from .cameras import CameraTopic, listing
from .messages import label_image, leading_stamp
from .reading import Bag

ANOMALY = 1
# Stems: nanoseconds; seconds and nanoseconds; or the frame's index. The stamps of a recording
# have more digits than any index.
_SECONDS = re.compile(r'^(\d+)[._](\d{9})$')
_STAMP_DIGITS = 15
_UNITS = ((1_000_000_000, 'seconds'), (1_000_000, 'milliseconds'), (1_000, 'microseconds'))
_REMEDY = (
    'publish each label with the stamp of its frame, unchanged, or give a folder of labels named '
    'by the index of their frames (000000.png)'
)


@dataclass(frozen=True)
class LabelFolder:
    """One camera's label images, by stamp in nanoseconds or by index of the frame (from 0)."""

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


def label_topics(entries: Sequence[str], bag: Bag) -> set[str]:
    """Return the topics among the --ground-truth entries."""
    known = {topic for topic, _ in bag.topics}
    return known & {_split(entry, known)[1] for entry in entries}


def open_ground_truth(
    entries: Sequence[str], bag: Bag, cameras: Sequence[CameraTopic]
) -> dict[str, LabelFolder]:
    """
    Return the labels by camera; {} for no entries. They are there until the bag is closed.

    entries: topics of the bag or folders, with 'camera=' before them where there are several. A
    single folder may hold one folder per camera. Raises ConfigError for what is neither, DataError
    for labels without a single anomaly pixel.
    """
    truth: dict[str, LabelFolder] = {}
    topics = label_topics(entries, bag)
    by_name = {camera.camera: camera for camera in cameras}
    for entry in entries:
        name, place = _split(entry, topics)
        folder = bag.folder() if place in topics else Path(place)
        if not folder.is_dir():
            raise ConfigError(
                f'--ground-truth {entry!r} is neither a folder nor a topic of the bag, which '
                f'holds {listing(bag.topics)}'
            )
        spooled = _spool(bag, place, folder) if place in topics else {}
        if place in topics and not spooled and not bag.problems:
            raise DataError(f'--ground-truth {entry!r}: the topic has no messages')
        for camera in _cameras_of(entry, name, by_name, folder):
            labels = LabelFolder({}, {})
            if place not in topics:
                inside = folder / camera if camera and (folder / camera).is_dir() else folder
                labels = read_folder(inside)
            by_stamp = spooled or {stamp: [path] for stamp, path in labels.by_stamp.items()}
            truth[camera] = _matched(by_stamp, labels.by_index, bag, by_name[camera], entry)
    need_anomaly(_readable(truth.values()), (ANOMALY,), f'--ground-truth {" ".join(entries)}')
    return truth


def _matched(
    by_stamp: Mapping[int, Sequence[Path]],
    by_index: Mapping[int, Path],
    bag: Bag,
    camera: CameraTopic,
    entry: str,
) -> LabelFolder:
    """Return the labels that belong to one frame each; add what is wrong with the others."""
    place = f'--ground-truth {entry}'
    images = (image for image in bag.peek(camera.topic) if image.msgtype in IMAGE_TYPES)
    frames = [leading_stamp(image.data) for image in images] if by_stamp else []
    matched, texts = match_stamps(by_stamp, frames, place)
    for text in [*texts, *match_indices(by_index, camera.count, place)]:
        bag.problems.add(kinds.BAD_LABEL, entry, text)
    return LabelFolder(matched, by_index)


def _readable(folders: Iterable[LabelFolder]) -> Iterator[UInt8Array]:
    """Yield the labels; broken ones are added when their frame is compared."""
    for folder in folders:
        for path in (*folder.by_stamp.values(), *folder.by_index.values()):
            with suppress(DataError):
                yield read_label(path)


def match_stamps(
    labels: Mapping[int, Sequence[Path]], frames: Sequence[int], place: str
) -> tuple[dict[int, Path], list[str]]:
    """
    Return the labels by stamp that belong to one frame each, and what is wrong with the others.

    labels: files by stamp in nanoseconds; frames: stamps of the frames; place: for messages.
    A stamp that two labels or two frames share matches nothing. Raises DataError, with the
    nearest distance, when there are labels and none can be matched.
    """
    count = Counter(frames)
    total = sum(map(len, labels.values()))
    shared = [stamp for stamp, files in labels.items() if len(files) > 1 or count[stamp] > 1]
    alone = [stamp for stamp in labels if not count[stamp]]
    unique = (stamp for stamp in labels if len(labels[stamp]) == 1 == count[stamp])
    matched = {stamp: labels[stamp][0] for stamp in unique}
    problems = []
    if shared:
        number = sum(len(labels[stamp]) for stamp in shared)
        problems.append(
            f'{place}: {number} of {total} labels cannot be matched: several labels or several '
            f'frames have the same stamp (as {shared[0]}, {len(labels[shared[0]])} labels and '
            f'{count[shared[0]]} frames); {_REMEDY}'
        )
    if alone:
        problems.append(
            f'{place}: {len(alone)} of {total} stamps of labels are no stamp of a frame'
            f'{_nearest(alone, frames)}{_rounded(alone, frames)}; {_REMEDY}'
        )
    if labels and not matched:
        raise DataError('; '.join(problems))
    return matched, problems


def match_indices(labels: Mapping[int, Path], frames: int, place: str) -> list[str]:
    """Return what is wrong with labels by index; DataError when none is of a frame."""
    beyond = sorted(index for index in labels if index >= frames)
    if not beyond:
        return []
    text = (
        f'{place}: {len(beyond)} of {len(labels)} labels are named by an index that no frame has '
        f'(as {labels[beyond[0]].name}; the bag has {frames} frames, counted from 0)'
    )
    if len(beyond) == len(labels):
        raise DataError(text)
    return [text]


def _nearest(labels: Sequence[int], frames: Sequence[int]) -> str:
    """Return the smallest distance of a label to a frame in words."""
    known = sorted(set(frames))
    if not known:
        return ': there is no frame'
    pairs = []
    for label in labels:
        place = bisect(known, label)
        pairs += [(abs(label - frame), label, frame) for frame in known[max(0, place - 1) :][:2]]
    distance, label, frame = min(pairs)
    return f', the nearest are {distance / 1e9:g} s apart (label {label}, frame {frame})'


def _rounded(labels: Sequence[int], frames: Sequence[int]) -> str:
    """Return whether labels are stamped in a coarser unit than frames, in words."""
    for unit, name in _UNITS:
        if not any(label % unit for label in labels) and any(frame % unit for frame in frames):
            return f'; the stamps of the labels are rounded to {name}'
    return ''


def read_folder(folder: Path) -> LabelFolder:
    """Return a folder's label images; DataError for a name of no frame, two of one, and none."""
    by_stamp: dict[int, Path] = {}
    by_index: dict[int, Path] = {}
    for path in label_files(folder).values():
        seconds = _SECONDS.match(path.stem)
        if seconds:
            _add(by_stamp, int(seconds[1]) * 1_000_000_000 + int(seconds[2]), path)
        elif path.stem.isdigit():
            _add(by_stamp if len(path.stem) >= _STAMP_DIGITS else by_index, int(path.stem), path)
        else:
            raise DataError(
                f'label {path} is named by neither stamp nor index: name it like '
                '1700000000123456789.png, 1700000000_123456789.png or 000042.png'
            )
    if not by_stamp and not by_index:
        raise DataError(f'{folder} holds no label: give a folder of {", ".join(LABELS)}')
    return LabelFolder(by_stamp, by_index)


def _add(labels: dict[int, Path], key: int, path: Path) -> None:
    if key in labels:
        raise DataError(f'labels {labels[key]} and {path} are of the same frame: keep one')
    labels[key] = path


def _split(entry: str, topics: Collection[str]) -> tuple[str, str]:
    """Return (camera name or '', place); a topic without its '/' is one where no folder is."""
    name, equals, place = entry.partition('=')
    name, place = (name, place) if equals else ('', entry)
    rooted = f'/{place}'
    return name, rooted if rooted in topics and not Path(place).exists() else place


def _cameras_of(entry: str, name: str, names: Collection[str], folder: Path) -> list[str]:
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
            f'--ground-truth {entry!r}: say for which camera, as in {min(names)}={entry}'
        )
    return inside


def _spool(bag: Bag, topic: str, folder: Path) -> dict[int, list[Path]]:
    """Write a label topic's images into a folder; return the files by stamp."""
    files: dict[int, list[Path]] = {}
    for number, message in enumerate(bag.messages([topic])):
        place = f'{topic} at {message.time_ns}'
        try:
            if message.msgtype not in IMAGE_TYPES:
                raise DataError(f'{message.msgtype} is no label image: use Image mono8')
            content = bag.cdr.read(message.data, message.msgtype)
            file = folder / f'{number}.png'
            cv2.imwrite(str(file), label_image(content))
            files.setdefault(stamp_ns(content), []).append(file)
        except (DataError, ImageError) as error:
            bag.problems.add(kinds.BAD_LABEL, place, f'{place}: {error}')
    return files
