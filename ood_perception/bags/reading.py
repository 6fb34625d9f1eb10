# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Bags as recorded: a folder with metadata.yaml, a folder of storage files, or one storage file.

Files and messages that are zstd-compressed are unpacked, whether metadata.yaml says so or only the
first bytes do; what was found is kept for the report.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from ood_perception.errors import DataError, DependencyError
from ood_perception.types import JsonDict

from . import problems as kinds
from .compression import (
    MAX_FILE_BYTES,
    MAX_MESSAGE_BYTES,
    SizeCapError,
    is_zstd,
    unpack_file,
    unpack_message,
)
from .database_file import finished_copy, is_unfinished
from .metadata import PACKED, BagFiles, fewer_in_the_bag, fewer_in_the_file, find_files
from .problems import Problem, Problems
from .storage import Counts, Ros1RecordingError, StorageFile, Stored


def open_storage(path: Path) -> StorageFile:
    """Return an .mcap or .db3 file, whole or not; DataError when nothing in it can be read."""
    from .database_file import DatabaseFile
    from .mcap_file import McapFile

    return McapFile(path) if path.suffix.lower() == '.mcap' else DatabaseFile(path)


@dataclass(frozen=True)
class Limits:
    """Caps on what unpacking may make, in bytes."""

    message: int = MAX_MESSAGE_BYTES
    file: int = MAX_FILE_BYTES


@dataclass(frozen=True)
class Message:
    """
    One recorded message, unpacked.

    time_ns: when it was recorded (the log time). data: CDR. compressed: it was stored zstd-packed.
    """

    topic: str
    msgtype: str
    time_ns: int
    data: bytes
    compressed: bool = False


class Bag:
    """
    An open bag. Use as a context manager.

    files: what was found on disk. topics: number of messages by (topic, message type).
    notes: what the report should say although nothing went wrong.
    message_compression: in words, how the messages read so far were stored.
    """

    def __init__(self, path: Path, problems: Problems, limits: Limits, scratch: Path) -> None:
        """
        Open the storage files.

        scratch: folder for unpacked files, on a disk with room. Raises DataError for what is no
        bag, and for a damaged or missing file when `problems` refuses or nothing else is left.
        """
        self.path = path
        self._problems, self._limits = problems, limits
        self._stack = ExitStack()
        self._packed = self._plain = 0
        self._storages: list[tuple[Path, StorageFile]] = []
        self.notes: list[str] = []
        try:
            self.files = find_files(path)
            for problem in _other_files(path, self.files):
                problems.meet(problem)
            for file in self.files.files:
                self._open(file, scratch)
            if not self._storages:
                raise DataError(f'bag {path} has no readable storage file: {_tell(problems)}')
            self.topics = _sum(storage.topics for _, storage in self._storages)
            self._missing = self._check_promise()
        except BaseException:
            self._stack.close()
            raise

    def messages(self, topics: Collection[str]) -> Iterator[Message]:
        """Yield the topics' messages in recorded order; problems are met on the way."""
        for file, storage in self._storages:
            for item in self._guarded(file, storage, topics):
                message = self._unpacked(item)
                if message is not None:
                    yield message

    def peek(self, topic: str) -> Iterator[Message]:
        """Yield a topic's messages that can be read; nothing is counted or met."""
        for _, storage in self._storages:
            for name, kind, time, data in storage.messages([topic], lambda text: None):
                with suppress(DataError):
                    plain = unpack_message(data, self._limits.message) if is_zstd(data) else data
                    yield Message(name, kind, time, plain)

    @property
    def lost(self) -> int:
        """Return how many recorded messages cannot be read, as far as anything counts them."""
        return self._missing + sum(storage.lost for _, storage in self._storages)

    @property
    def message_compression(self) -> str:
        """Return in words how the messages read so far were stored."""
        if not self._packed:
            return 'none'
        told = (
            'metadata.yaml says so'
            if self.files.compression_mode == 'message'
            else ('told by the first bytes; no metadata.yaml says so')
        )
        return f'zstd, {self._packed} of {self._packed + self._plain} messages ({told})'

    def to_json(self) -> JsonDict:
        """Return what was found, for the report; read the messages first."""
        files = self.files
        return {
            'path': str(self.path),
            'files': [file.name for file in files.files],
            'storage': files.storage,
            'metadata': files.metadata,
            'file_compression': 'zstd' if files.compression_mode == 'file' else 'none',
            'message_compression': self.message_compression,
            'messages_promised': files.messages,
            'messages_indexed': sum(self.topics.values()),
            'messages_lost': self.lost,
            'notes': self.notes,
            'topics': [
                {'topic': topic, 'type': kind, 'messages': count}
                for (topic, kind), count in sorted(self.topics.items())
            ],
        }

    def _guarded(
        self, file: Path, storage: StorageFile, topics: Collection[str]
    ) -> Iterator[Stored]:
        """Yield a file's messages; meet what is damaged, and a disk that fails."""

        def tell(text: str) -> None:
            problem = Problem(kinds.DAMAGED_FILE, str(file), f'{file} is damaged: {text}')
            self._problems.meet(problem)

        try:
            yield from storage.messages(topics, tell)
        except OSError as error:
            tell(f'it cannot be read to its end ({error})')

    def _check_promise(self) -> int:
        """Return how many messages are missing beside those known as lost; meet a shortage."""
        found, lost = sum(self.topics.values()), 0
        promised = 0
        for _, storage in self._storages:
            there = sum(storage.topics.values())
            promised += max(there, sum(storage.promised.values()))
            lost += storage.lost
        fewer = fewer_in_the_bag(self.files, self.topics)
        if fewer and not self._problems:
            text = f'bag {self.path}: {fewer}'
            self._problems.meet(Problem(kinds.FEWER_MESSAGES, str(self.path), text))
        return max(0, max(promised, self.files.messages or 0) - found - lost)

    def _unpacked(self, item: Stored) -> Message | None:
        topic, kind, time, data = item
        packed = is_zstd(data)
        self._packed, self._plain = self._packed + packed, self._plain + (not packed)
        if not packed:
            return Message(topic, kind, time, data)
        try:
            return Message(topic, kind, time, unpack_message(data, self._limits.message), True)
        except DependencyError:
            raise
        except DataError as error:
            capped = isinstance(error, SizeCapError)
            place = f'{topic} at {time}'
            self._problems.meet(
                Problem(
                    kinds.SIZE_CAP if capped else kinds.CORRUPT_MESSAGE, place, f'{place}: {error}'
                )
            )
            return None

    def _open(self, file: Path, scratch: Path) -> None:
        """Open one file, unpacked first where it is packed, and meet what is wrong with it."""
        try:
            readable = self._unpacked_file(file, scratch) if file.suffix == PACKED else file
            if readable.suffix.lower() == '.db3' and is_unfinished(readable):
                readable = self._finished(readable, scratch)
            storage = open_storage(readable)
        except (DependencyError, SizeCapError, Ros1RecordingError):
            raise
        except (DataError, OSError) as error:
            text = f'{file} is damaged or cut off ({error}); 0 messages can be read'
            self._problems.meet(Problem(kinds.DAMAGED_FILE, str(file), text))
            return
        self._stack.callback(storage.close)
        self._storages.append((file, storage))
        fewer = fewer_in_the_file(storage)
        if storage.damage:
            found = sum(storage.topics.values())
            text = f'{file} is damaged or cut off ({storage.damage}); {found} messages can be read'
            self._problems.meet(Problem(kinds.DAMAGED_FILE, str(file), text))
        elif fewer:
            self._problems.meet(Problem(kinds.FEWER_MESSAGES, str(file), f'{file}: {fewer}'))

    def _finished(self, file: Path, scratch: Path) -> Path:
        """Return a copy of an unfinished .db3 with all that its log holds, and say so."""
        copy, lost = finished_copy(file, self._folder(scratch))
        self.notes.append(f'{file.name} was not closed by its recorder: its log was read, too')
        if lost:
            self._problems.meet(Problem(kinds.DAMAGED_FILE, str(file), f'{file}: {lost}'))
        return copy

    def _folder(self, scratch: Path) -> Path:
        folder = tempfile.TemporaryDirectory(prefix='.bag.', dir=scratch)
        return Path(self._stack.enter_context(folder))

    def _unpacked_file(self, file: Path, scratch: Path) -> Path:
        target = self._folder(scratch) / file.stem  # bag_0.mcap.zstd -> bag_0.mcap
        damage = unpack_file(file, target, self._limits.file)
        if damage:
            self._problems.meet(Problem(kinds.DAMAGED_FILE, str(file), damage))
        return target

    def __enter__(self) -> Bag:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()


def _other_files(path: Path, files: BagFiles) -> Iterator[Problem]:
    for file in files.missing:
        text = f'metadata.yaml names {file.name}, which is not there: copy the whole bag'
        yield Problem(kinds.MISSING_FILE, str(file), f'bag {path}: {text}')
    for file in files.unnamed:
        text = (
            f'metadata.yaml does not name {file.name}, which is not read: make '
            'metadata.yaml again with ros2 bag reindex, or give the file itself'
        )
        yield Problem(kinds.UNNAMED_FILE, str(file), f'bag {path}: {text}')


def _sum(counts: Iterable[Counts]) -> Counts:
    total: Counter[tuple[str, str]] = Counter()
    for one in counts:
        total.update(one)
    return dict(total)


def _tell(problems: Problems) -> str:
    texts = [problem.text for problem in problems.told]
    return '; '.join(texts) or 'an empty folder'
