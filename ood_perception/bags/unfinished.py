# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
What a recorder that was killed leaves beside its .db3: a write-ahead log or a rollback journal.

Messages may be in the log alone. SQLite merges it only into files that it may write, so both are
copied; the recording itself stays untouched.
"""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from ood_perception.errors import DataError

_LOG, _JOURNAL = '-wal', '-journal'
_LOG_HEAD, _FRAME_HEAD = 32, 24
_JOURNAL_MAGIC = bytes.fromhex('d9d505f920a163d7')


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

    folder: on a disk with room for the copy. Raises DataError where SQLite cannot apply them.
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
