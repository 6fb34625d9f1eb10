# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Storage files without their end, read from their start as far as they go."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from ...errors import DependencyError
from .storage import StorageFile, Stored, message_type


class CutMcap:
    """
    An .mcap file without its end (the recorder was killed), read from its start.

    Opening reads it once to count. Messages come in the order in which they were written; those
    of the record where the file ends, or of a damaged chunk, are lost.
    damage: what ended the reading.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.damage = ''
        self.topics: dict[tuple[str, str], int] = {}
        for topic, kind, _, _ in self._records():
            self.topics[topic, kind] = self.topics.get((topic, kind), 0) + 1

    def messages(self, topics: Collection[str]) -> Iterator[Stored]:
        """Yield the topics' messages in the order in which they were written."""
        return (item for item in self._records() if item[0] in topics)

    def close(self) -> None:
        """Do nothing: the file is open only while it is read."""

    def _records(self) -> Iterator[Stored]:
        stream_reader = _mcap()
        names: dict[int, str] = {}
        channels: dict[int, tuple[str, str]] = {}
        with self._path.open('rb') as file:
            records = stream_reader.StreamReader(file).records
            while True:
                try:
                    record = next(records)
                except StopIteration:
                    return
                except Exception as error:  # the end of the file, in a dozen disguises
                    self.damage = f'{type(error).__name__} {error}'.strip()
                    return
                kind = type(record).__name__
                if kind == 'Schema':
                    names[record.id] = record.name
                elif kind == 'Channel':
                    channels[record.id] = (
                        record.topic,
                        message_type(names.get(record.schema_id, '')),
                    )
                elif kind == 'Message' and record.channel_id in channels:
                    yield *channels[record.channel_id], record.log_time, record.data


class CutDatabase:
    """
    A .db3 file without its end (the copy was cut off), read in the order of writing.

    Opening reads it once to count. topics: as those of IndexedFile.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.topics: dict[tuple[str, str], int] = {}
        for topic, kind, _, _ in self._rows():
            self.topics[topic, kind] = self.topics.get((topic, kind), 0) + 1

    def messages(self, topics: Collection[str]) -> Iterator[Stored]:
        """Yield the topics' messages in the order in which they were written."""
        return (item for item in self._rows() if item[0] in topics)

    def close(self) -> None:
        """Do nothing: the file is open only while it is read."""

    def _rows(self) -> Iterator[Stored]:
        try:
            database = sqlite3.connect(f'file:{self._path}?immutable=1', uri=True)
        except sqlite3.Error:
            return
        with closing(database):
            try:
                # Without this SQLite refuses every file that is shorter than its header says.
                database.execute('PRAGMA writable_schema = 1')
                known = database.execute('SELECT id, name, type FROM topics')
                named = {number: (topic, message_type(kind)) for number, topic, kind in known}
                rows = database.execute('SELECT topic_id, timestamp, data FROM messages')
            except sqlite3.Error:
                return
            while True:
                try:
                    row = next(rows, None)
                except sqlite3.Error:  # the first page that is not there
                    return
                if row is None:
                    return
                if row[0] in named:
                    yield *named[row[0]], row[1], bytes(row[2])


def salvage(path: Path) -> StorageFile | None:
    """Return a damaged file as far as it can be read, None where nothing can."""
    cut: CutMcap | CutDatabase = CutMcap(path) if path.suffix == '.mcap' else CutDatabase(path)
    return cut if cut.topics else None


def _mcap() -> Any:
    try:
        from mcap import stream_reader
    except ImportError as error:
        raise DependencyError(
            "reading an .mcap without its end needs mcap: pip install 'ood_perception[bags]'"
        ) from error
    return stream_reader
