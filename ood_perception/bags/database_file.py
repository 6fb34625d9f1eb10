# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A .db3 file, whole or not: every row of messages that can be read, sorted by log time."""

from __future__ import annotations

import shutil
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from ood_perception.errors import DataError
from ood_perception.types import Tell

from .compression import MAX_MESSAGE_BYTES
from .metadata import Counts, Message, message_type

_LOG, _JOURNAL = '-wal', '-journal'
_LOG_HEAD, _FRAME_HEAD = 32, 24
_JOURNAL_MAGIC = bytes.fromhex('d9d505f920a163d7')


class DatabaseFile:
    """
    A .db3 file that is open, as McapFile. SQLite keeps no statistics, `declared` stays empty.

    Raises DataError for a file without the tables of a bag, and for a damaged one of which no
    message can be read. The file is never written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.declared: Counts = {}
        self._lost: set[int] = set()
        with closing(self._connected()) as database:
            _refuse_computed(database)
            self._keys = _topics(database)
            rows, damages = _rows(database)
            if _is_cut(path):
                damages.append('it is shorter than its first page says')
            unknown = sum(number not in self._keys for _, _, number in rows)
            if unknown:
                damages.append(f'{unknown} messages belong to topics that nothing defines')
            if damages:
                self._lost = {row for _, row, _ in rows if _data(database, row) is None}
        self.damage = '; '.join(damages)
        counts = Counter(number for _, row, number in rows if row not in self._lost)
        if self.damage and not counts:
            raise DataError(self.damage)
        self.topics: Counts = dict.fromkeys(self._keys.values(), 0)
        for number, key in self._keys.items():
            self.topics[key] += counts[number]

    @property
    def lost(self) -> int:
        """Return how many messages turned out to be unreadable."""
        return len(self._lost)

    def messages(self, topics: Collection[str], tell: Tell) -> Iterator[Message]:
        """Yield the topics' messages by log time; rows that cannot be read are left out."""
        chosen = {number for number, (topic, _) in self._keys.items() if topic in topics}
        unreadable = 0
        with closing(self._connected()) as database:
            for time, row, number in sorted(_rows(database)[0]):
                if number not in chosen or row in self._lost:
                    continue
                data = _data(database, row)
                if data is None:
                    unreadable += 1
                    self._lost.add(row)
                else:
                    yield Message(*self._keys[number], time, data)
        if unreadable:
            tell(f'{unreadable} of its messages cannot be read and are lost')

    def _connected(self) -> sqlite3.Connection:
        # Immutable: no lock, and nothing written beside a recording that may be read-only.
        database = sqlite3.connect(f'file:{quote(str(self._path))}?immutable=1', uri=True)
        # Without this SQLite refuses every file that is shorter than its head says.
        database.execute('PRAGMA writable_schema = 1')
        database.execute('PRAGMA trusted_schema = 0')
        if hasattr(database, 'setlimit'):  # from Python 3.11 on
            database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_MESSAGE_BYTES)
        return database


def _refuse_computed(database: sqlite3.Connection) -> None:
    """Raise DataError for a view or a computed column: reading it runs what the file says."""
    for name in ('topics', 'messages'):
        try:
            ((page,),) = database.execute(
                'SELECT rootpage FROM sqlite_master WHERE lower(name) = ?', (name,)
            )
            columns = list(database.execute(f'PRAGMA table_xinfo({name})')) if page else []
        except (sqlite3.Error, ValueError):
            continue  # no such table, or a damaged one: whoever reads it says so
        if not page or any(hidden for *_, hidden in columns):
            raise DataError(f'its {name} are computed, not stored: no recorder writes that')


def _topics(database: sqlite3.Connection) -> dict[int, tuple[str, str]]:
    try:
        rows = database.execute('SELECT id, name, type, serialization_format FROM topics')
        return {
            number: (str(topic), message_type(str(kind), str(form)))
            for number, topic, kind, form in rows
        }
    except sqlite3.Error as error:
        raise DataError(f'it holds no table of topics that can be read: {error}') from error


def _rows(database: sqlite3.Connection) -> tuple[list[tuple[int, int, int]], list[str]]:
    """Return (log time, id, topic) of the rows of messages, and what of them is damaged."""
    found: list[tuple[int, int, int]] = []
    damages: list[str] = []
    last, end, gap = -1, _last_row(database), False
    while True:
        try:
            for row, number, time in database.execute(
                'SELECT id, topic_id, timestamp FROM messages WHERE id > ? ORDER BY id', (last,)
            ):
                if gap:
                    damages.append(f'its messages up to number {row - 1} cannot be read')
                last, gap = row, False
                if isinstance(number, int) and isinstance(time, int):
                    found.append((time, row, number))
                else:
                    damages.append(f'its message {row} has no topic or time')
            return found, damages
        except sqlite3.Error as error:
            if not gap:
                damages.append(f'behind message {max(last, 0)}: {error}')
            last, gap = last + 1, True  # a page holds several rows: on until the next page
            if end is None or last >= end:
                return found, damages


def _data(database: sqlite3.Connection, row: int) -> bytes | None:
    """Return a message's bytes, None where they cannot be read."""
    try:
        ((data,),) = database.execute('SELECT data FROM messages WHERE id = ?', (row,))
    except (sqlite3.Error, ValueError):
        return None
    return data if isinstance(data, bytes) else None


def _is_cut(path: Path) -> bool:
    """Return whether a file has fewer bytes than the pages that its head counts."""
    with path.open('rb') as file:
        head = file.read(100)
    if len(head) < 100 or head[24:28] != head[92:96]:  # the count is of an older version then
        return False
    size = int.from_bytes(head[16:18], 'big')
    pages = int.from_bytes(head[28:32], 'big')
    return path.stat().st_size < pages * (1 << 16 if size == 1 else size)


def _last_row(database: sqlite3.Connection) -> int | None:
    try:
        ((last,),) = database.execute('SELECT max(id) FROM messages')
    except sqlite3.Error:
        return None
    return int(last) if last is not None else None


def is_unfinished(path: Path) -> bool:
    """Return whether a log or a journal beside a .db3 file has to be applied to it."""
    log, journal = _beside(path, _LOG), _beside(path, _JOURNAL)
    if log.is_file() and log.stat().st_size > _LOG_HEAD:
        return True
    if not journal.is_file():
        return False
    with journal.open('rb') as file:
        return file.read(len(_JOURNAL_MAGIC)) == _JOURNAL_MAGIC


def finished_copy(path: Path, folder: Path) -> tuple[Path, str]:
    """
    Return a copy with log and journal applied, and '' or what was lost in doing so.

    A recorder that was killed leaves messages in them alone, and SQLite merges them only into
    files that it may write. folder: on a disk with room for the copy. Raises DataError where
    SQLite cannot apply them.
    """
    target = folder / path.name
    for ending in ('', _LOG, _JOURNAL):
        if _beside(path, ending).is_file():
            shutil.copyfile(_beside(path, ending), _beside(target, ending))
    lost = (
        'the recorder was killed while it wrote: its last, unfinished transaction is lost'
        if _beside(target, _JOURNAL).is_file()
        else ''
    )
    try:
        with closing(sqlite3.connect(target)) as database:
            ((_, frames, _),) = database.execute('PRAGMA wal_checkpoint(PASSIVE)')
            lost = lost or _lost_frames(_beside(path, _LOG), frames)
            database.execute('PRAGMA journal_mode = DELETE').fetchall()
    except sqlite3.Error as error:
        raise DataError(f'the log beside it cannot be applied: {error}') from error
    return target, lost


def _lost_frames(log: Path, applied: int) -> str:
    """Return '' or that the log holds more pages than were applied: it was cut or damaged."""
    if not log.is_file():
        return ''
    with log.open('rb') as file:
        head = file.read(_LOG_HEAD)
        size = int.from_bytes(head[8:12], 'big') + _FRAME_HEAD
        file.seek(_LOG_HEAD + max(0, applied) * size)
        following = file.read(_FRAME_HEAD)
    # Behind the end lie pages of an earlier round of the log, which have other salts.
    if following[8:16] != head[16:24] or len(following) < _FRAME_HEAD:
        return ''
    return f'{log.name} is damaged or ends in the middle: what it holds behind that is lost'


def _beside(path: Path, ending: str) -> Path:
    """Return the file of this ending; SQLite writes it beside the file, not beside a link."""
    real = path.resolve()
    return real.with_name(real.name + ending)
