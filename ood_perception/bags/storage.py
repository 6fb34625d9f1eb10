# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What the storage files of bags (.mcap, .db3) share; recordings of ROS 1 are refused."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from ood_perception.errors import DataError

SUFFIXES = ('.mcap', '.db3')
# topic, message type, log time in nanoseconds, bytes as stored
Stored = tuple[str, str, int, bytes]
# number of messages by (topic, message type)
Counts = dict[tuple[str, str], int]
# Some writers leave the encoding of CDR out; rosbag2 says cdr.
_CDR = ('cdr', '')
_ROS1_MAGIC = b'#ROSBAG V'


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
        with path.open('rb') as file:
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
