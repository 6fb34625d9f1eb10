# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""One storage file of a bag (.mcap, .db3): what is on it, and its messages in recorded order."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Protocol

from ...errors import DependencyError

SUFFIXES = ('.mcap', '.db3')
# topic, message type, log time in nanoseconds, bytes as stored
Stored = tuple[str, str, int, bytes]


class StorageFile(Protocol):
    """A storage file that is open."""

    topics: dict[tuple[str, str], int]

    def messages(self, topics: Collection[str]) -> Iterator[Stored]:
        """Yield the topics' messages in the order of their log times."""

    def close(self) -> None:
        """Close the file."""


class IndexedFile:
    """
    A whole file, read by its index.

    topics: number of messages by (topic, message type).
    Raises whatever rosbags raises for a file that is not whole.
    """

    def __init__(self, path: Path) -> None:
        self._reader = _rosbags().Reader(path)
        self._reader.open()
        self.topics: dict[tuple[str, str], int] = {}
        for connection in self._reader.connections:
            key = connection.topic, message_type(connection.msgtype)
            self.topics[key] = self.topics.get(key, 0) + connection.msgcount

    def messages(self, topics: Collection[str]) -> Iterator[Stored]:
        """Yield the topics' messages in the order of their log times."""
        chosen = [c for c in self._reader.connections if c.topic in topics]
        if chosen:
            for connection, time, data in self._reader.messages(chosen):
                yield connection.topic, message_type(connection.msgtype), time, bytes(data)

    def close(self) -> None:
        """Close the file."""
        self._reader.close()


def message_type(name: str) -> str:
    """Return 'package/msg/Name' for the short form 'package/Name' that some writers use."""
    package, _, rest = name.partition('/')
    return name if '/' in rest or not rest else f'{package}/msg/{rest}'


def _rosbags() -> Any:
    try:
        from rosbags import rosbag2
    except ImportError as error:
        raise DependencyError(
            "reading a bag needs rosbags: pip install 'ood_perception[bags]'"
        ) from error
    return rosbag2
