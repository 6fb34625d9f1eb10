# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Which storage files (.mcap, .db3) belong to a bag, what they share, and what metadata.yaml declares
about them. Recordings of ROS 1 are refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from ood_perception.errors import DataError
from ood_perception.image.image_files import visible
from ood_perception.yaml_files import read_yaml

from .remote import open_by_range

METADATA = 'metadata.yaml'
PACKED = '.zstd'
_REMEDY = ': copy the recording again, or make metadata.yaml again with ros2 bag reindex'
SUFFIXES = ('.mcap', '.db3')
# number of messages by (topic, message type)
Counts = dict[tuple[str, str], int]
# Some writers leave the encoding of CDR out; rosbag2 says cdr.
_CDR = ('cdr', '')
_ROS1_MAGIC = b'#ROSBAG V'


class Message(NamedTuple):
    """One recorded message; time_ns: when it was recorded (the log time). data: CDR."""

    topic: str
    msgtype: str
    time_ns: int
    data: bytes


class Ros1RecordingError(DataError):
    """A recording of ROS 1, whose messages are no CDR."""


def message_type(name: str, encoding: str = 'cdr') -> str:
    """
    Return 'package/msg/Name', also for the short form 'package/Name' that some writers use.

    What is not CDR is no ROS 2 message, whatever its schema is called: 'Name (json)'.
    """
    package, _, rest = name.partition('/')
    full = name if '/' in rest or not rest else f'{package}/msg/{rest}'
    return full if encoding in _CDR and full else f'{full or "no schema"} ({encoding or "cdr"})'


def is_ros1_bag(path: Path) -> bool:
    """Return whether a file is a .bag of ROS 1, by its first bytes."""
    try:
        with open_by_range(path) as file:
            return file.read(len(_ROS1_MAGIC)) == _ROS1_MAGIC
    except OSError:
        return False


def refuse_ros1_bag(path: Path) -> None:
    """Raise Ros1RecordingError for a .bag file."""
    if is_ros1_bag(path):
        raise Ros1RecordingError(
            f'{path} is a ROS 1 recording: convert it with '
            f'rosbags-convert --src {path} --dst {path.with_suffix("")} (pip install rosbags) and '
            'give that folder'
        )


def refuse_ros1(path: Path, profile: str, types: Collection[str]) -> None:
    """Raise Ros1RecordingError for an .mcap whose messages are all of ROS 1."""
    ros2 = any('/' in kind and not kind.endswith(')') for kind in types)
    ros1 = profile == 'ros1' or any(kind.endswith('(ros1)') for kind in types)
    if ros1 and not ros2:
        raise Ros1RecordingError(
            f'{path} holds messages of ROS 1: convert the .bag that it was made of with '
            'rosbags-convert --src drive.bag --dst drive (pip install rosbags), or this file to '
            'ROS 2 with kappe (pip install kappe)'
        )


@dataclass(frozen=True)
class BagFiles:
    """
    The storage files of a bag, in recorded order.

    missing: named by metadata.yaml and not there. unnamed: storage files that are there and that
    metadata.yaml does not name. storage: 'mcap', 'sqlite3' or '' (unknown).
    compression_mode: 'file', 'message' or '', as metadata.yaml says or the file names show.
    messages: number that metadata.yaml declares, None without one; declared: by topic.
    metadata: whether there is one.
    """

    files: tuple[Path, ...]
    missing: tuple[Path, ...] = ()
    unnamed: tuple[Path, ...] = ()
    storage: str = ''
    compression_mode: str = ''
    messages: int | None = None
    declared: Mapping[str, int] = field(default_factory=dict)
    metadata: bool = False


def is_bag(path: Path) -> bool:
    """
    Return whether a path is a bag: a folder with metadata.yaml or storage files, or one of these.

    A .bag of ROS 1 is one, too: opening it says how to convert it.
    """
    if path.is_dir():
        return (path / METADATA).is_file() or bool(_storage_files(path))
    return is_storage(path) or is_ros1_bag(path)


def find_files(path: Path) -> BagFiles:
    """Return a bag's files; DataError for what is no bag or has a metadata.yaml that lies."""
    if not path.exists():
        raise DataError(f'bag {path} does not exist: give its folder or storage file')
    if path.is_file():
        refuse_ros1_bag(path)
        if not is_storage(path):
            raise DataError(f'{path} is no bag: give a folder, or a file {_endings()}')
        return _by_names((path,))
    if (path / METADATA).is_file():
        return _by_metadata(path)
    files = _storage_files(path)
    if not files:
        for file in sorted(path.iterdir()):
            refuse_ros1_bag(file)
        raise DataError(f'{path} is no bag: it holds neither {METADATA} nor a file {_endings()}')
    return _by_names(files)


def _by_names(files: tuple[Path, ...]) -> BagFiles:
    packed = any(file.suffix == PACKED for file in files)
    storage = 'mcap' if _plain(files[0]).suffix.lower() == '.mcap' else 'sqlite3'
    return BagFiles(files, storage=storage, compression_mode='file' if packed else '')


def _by_metadata(folder: Path) -> BagFiles:
    path = folder / METADATA
    try:
        content: Any = read_yaml(path, 'bag description', DataError)
        known: dict[str, Any] = content['rosbag2_bagfile_information']
        # Old versions wrote paths from the recording machine; the files lie beside metadata.yaml.
        named = [folder / PurePath(name).name for name in known['relative_file_paths']]
        mode = str(known.get('compression_mode') or '').lower()
        form = str(known.get('compression_format') or '').lower()
        messages = int(known['message_count'])
        declared: Counter[str] = Counter()
        for row in known.get('topics_with_message_count') or []:
            declared[str(row['topic_metadata']['name'])] += int(row['message_count'])
        storage = str(known['storage_identifier'])
    except (DataError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f'{path} cannot be read ({type(error).__name__} {error}): make it again with '
            'ros2 bag reindex, or give the storage file itself'
        ) from error
    mode = '' if mode == 'none' else mode
    if mode and form != 'zstd':
        raise DataError(f'{path}: compression format {form!r} is not known, only zstd is')
    there = _storage_files(folder)
    if there and not named:  # a recorder writes the names when it ends
        return replace(_by_names(there), messages=messages, declared=declared, metadata=True)
    known_names = {_plain(file).name for file in named}
    beside = {file.name for file in folder.iterdir() if file.is_file()}  # a name may be any text
    return BagFiles(
        files=tuple(file for file in named if file.name in beside),
        missing=tuple(file for file in named if file.name not in beside),
        unnamed=tuple(file for file in there if _plain(file).name not in known_names),
        storage=storage,
        compression_mode=mode,
        messages=messages,
        declared=declared,
        metadata=True,
    )


def _storage_files(folder: Path) -> tuple[Path, ...]:
    """Return a folder's storage files; of a file and its packed form, the packed one."""
    files = [path for path in visible(folder) if is_storage(path)]
    packed = {path.stem for path in files if path.suffix == PACKED}
    return tuple(sorted((path for path in files if path.name not in packed), key=_in_order))


def is_storage(path: Path) -> bool:
    """Return whether a name ends in .mcap or .db3, or in one of them and .zstd, and is no ._x."""
    return _plain(path).suffix.lower() in SUFFIXES and not path.name.startswith('.')


def _plain(path: Path) -> Path:
    return path.with_suffix('') if path.suffix == PACKED else path


def _in_order(path: Path) -> tuple[int, str]:
    """Sort bag_2.mcap before bag_10.mcap, as rosbag2 splits bags."""
    number = path.name.split('.')[0].rpartition('_')[2]
    return (int(number) if number.isdigit() else 0), path.name


def _endings() -> str:
    return ' or '.join(f'*{suffix}' for suffix in SUFFIXES) + f' (also with {PACKED})'


def fewer_in_the_file(declared: Counts, topics: Counts) -> str:
    """Return what a file's statistics declare beyond what it holds, '' for nothing."""
    return _shortage('its statistics declare', _by_topic(declared), topics)


def fewer_in_the_bag(files: BagFiles, topics: Counts) -> str:
    """Return what metadata.yaml declares beyond what the files hold, '' for nothing."""
    by_topic = _shortage('metadata.yaml declares', files.declared, topics)
    found = sum(topics.values())
    if by_topic or files.messages is None or files.messages <= found:
        return by_topic
    return f'metadata.yaml declares {files.messages} messages, {found} are there{_REMEDY}'


def _shortage(who: str, declared: Mapping[str, int], topics: Counts) -> str:
    found = _by_topic(topics)
    short = [
        f'{count} messages of {topic}, {found[topic]} are there'
        for topic, count in sorted(declared.items())
        if count > found[topic]
    ]
    return f'{who} {"; ".join(short)}{_REMEDY}' if short else ''


def _by_topic(counts: Counts) -> Counter[str]:
    found: Counter[str] = Counter()
    for (topic, _), count in counts.items():
        found[topic] += count
    return found
