# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""One storage file of a bag (.mcap, .db3): what is on it, and its messages in recorded order."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Protocol

SUFFIXES = ('.mcap', '.db3')
# topic, message type, log time in nanoseconds, bytes as stored
Stored = tuple[str, str, int, bytes]
# number of messages by (topic, message type)
Counts = dict[tuple[str, str], int]
# Some writers leave the encoding of CDR out; rosbag2 says cdr.
_CDR = ('cdr', '')


class StorageFile(Protocol):
    """
    A storage file that is open.

    topics: messages that are there. promised: those that the file's own statistics promise, {}
    without any. damage: what is wrong with the file as far as opening it showed, '' for nothing.
    lost: number of messages found unreadable since.
    """

    topics: Counts
    promised: Counts
    damage: str

    @property
    def lost(self) -> int: ...

    def messages(self, topics: Collection[str], tell: Callable[[str], None]) -> Iterator[Stored]:
        """Yield the topics' messages by log time; tell: called with what turns out damaged."""

    def close(self) -> None:
        """Close the file."""


def message_type(name: str, encoding: str = 'cdr') -> str:
    """
    Return 'package/msg/Name', also for the short form 'package/Name' that some writers use.

    What is not CDR is no ROS 2 message, whatever its schema is called: 'Name (json)'.
    """
    package, _, rest = name.partition('/')
    full = name if '/' in rest or not rest else f'{package}/msg/{rest}'
    return full if encoding in _CDR and full else f'{full or "no schema"} ({encoding or "cdr"})'


def in_words(counts: Counts) -> str:
    """Return '/front/image_raw 2, /imu 1'."""
    return ', '.join(f'{topic} {count}' for (topic, _), count in sorted(counts.items()) if count)
