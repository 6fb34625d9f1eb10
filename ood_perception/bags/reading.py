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
from collections.abc import Collection, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from ood_perception.errors import DataError
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
from .database_file import DatabaseFile, finished_copy, is_unfinished
from .mcap_file import McapFile
from .messages import Cdr
from .metadata import (
    PACKED,
    Message,
    Ros1RecordingError,
    fewer_in_the_bag,
    fewer_in_the_file,
    find_files,
)
from .problems import Problems
from .remote import need_range_reader

StorageFile = McapFile | DatabaseFile


@dataclass(frozen=True)
class Limits:
    """Caps on what unpacking may make, in bytes."""

    message: int = MAX_MESSAGE_BYTES
    file: int = MAX_FILE_BYTES


class Bag:
    """
    An open bag. Use as a context manager.

    files: what was found on disk. topics: number of messages by (topic, message type).
    notes: what the report should say although nothing went wrong. cdr: reads the messages.
    message_compression: in words, how the messages read so far were stored.
    """

    def __init__(
        self,
        path: Path,
        problems: Problems,
        limits: Limits | None = None,
        scratch: Path | None = None,
    ) -> None:
        """
        Open the storage files.

        scratch: folder for unpacked files, on a disk with room; None: the system's. Raises
        DataError for what is no bag, and for a damaged or missing file when `problems` refuses or
        nothing else is left, DependencyError without rosbags.
        """
        self.path = path
        self.problems, self.cdr = problems, Cdr()
        self._limits, self._scratch = limits or Limits(), scratch
        self._stack = ExitStack()
        self._packed = self._plain = 0
        self._storages: list[tuple[Path, StorageFile]] = []
        self.notes: list[str] = []
        try:
            self.files = find_files(path)
            self._check_files()
            for file in self.files.files:
                self._open(file)
            if not self._storages:
                texts = '; '.join(problem.text for problem in problems.told)
                why = texts or 'an empty folder'
                raise DataError(f'bag {path} has no readable storage file: {why}')
            counts: Counter[tuple[str, str]] = Counter()
            for _, storage in self._storages:
                counts.update(storage.topics)
            self.topics = dict(counts)
            self._missing = self._check_declared()
        except BaseException:
            self._stack.close()
            raise

    def messages(self, topics: Collection[str]) -> Iterator[Message]:
        """Yield the topics' messages in recorded order; problems are added on the way."""
        for file, storage in self._storages:
            for item in self._guarded(file, storage, topics):
                message = self._unpacked(item)
                if message is not None:
                    yield message

    def peek(self, topic: str) -> Iterator[Message]:
        """Yield a topic's messages that can be read; nothing is counted."""
        for _, storage in self._storages:
            for message in storage.messages([topic], lambda text: None):
                with suppress(DataError):
                    yield self._plain_form(message)

    def folder(self) -> Path:
        """Return a new folder, which goes when the bag is closed."""
        folder = tempfile.TemporaryDirectory(prefix='.bag.', dir=self._scratch)
        return Path(self._stack.enter_context(folder))

    @property
    def lost(self) -> int:
        """Return how many recorded messages cannot be read, as far as anything counts them."""
        return self._missing + sum(storage.lost for _, storage in self._storages)

    @property
    def message_compression(self) -> str:
        """Return in words how the messages read so far were stored."""
        if not self._packed:
            return 'none'
        source = 'reported by the first bytes; no metadata.yaml says so'
        if self.files.compression_mode == 'message':
            source = 'metadata.yaml says so'
        return f'zstd, {self._packed} of {self._packed + self._plain} messages ({source})'

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
            'messages_declared': files.messages,
            'messages_indexed': sum(self.topics.values()),
            'messages_lost': self.lost,
            'notes': self.notes,
            'topics': [
                {'topic': topic, 'type': kind, 'messages': count}
                for (topic, kind), count in sorted(self.topics.items())
            ],
        }

    def _check_files(self) -> None:
        """Add files that metadata.yaml alone names, and those that it does not name."""
        for file in self.files.missing:
            text = f'metadata.yaml names {file.name}, which is not there: copy the whole bag'
            self.problems.add(kinds.MISSING_FILE, str(file), f'bag {self.path}: {text}')
        for file in self.files.unnamed:
            text = (
                f'metadata.yaml does not name {file.name}, which is not read: make '
                'metadata.yaml again with ros2 bag reindex, or give the file itself'
            )
            self.problems.add(kinds.UNNAMED_FILE, str(file), f'bag {self.path}: {text}')

    def _guarded(
        self, file: Path, storage: StorageFile, topics: Collection[str]
    ) -> Iterator[Message]:
        """Yield a file's messages; add what is damaged, and a disk that fails."""

        def tell(text: str) -> None:
            self.problems.add(kinds.DAMAGED_FILE, str(file), f'{file} is damaged: {text}')

        try:
            yield from storage.messages(topics, tell)
        except OSError as error:
            tell(f'it cannot be read to its end ({error})')

    def _check_declared(self) -> int:
        """Return how many messages are missing beside those known as lost; add a shortage."""
        found, lost = sum(self.topics.values()), 0
        declared = 0
        for _, storage in self._storages:
            there = sum(storage.topics.values())
            declared += max(there, sum(storage.declared.values()))
            lost += storage.lost
        fewer = fewer_in_the_bag(self.files, self.topics)
        if fewer and not self.problems:
            self.problems.add(kinds.FEWER_MESSAGES, str(self.path), f'bag {self.path}: {fewer}')
        return max(0, max(declared, self.files.messages or 0) - found - lost)

    def _plain_form(self, message: Message) -> Message:
        if not is_zstd(message.data):
            return message
        return message._replace(data=unpack_message(message.data, self._limits.message))

    def _unpacked(self, message: Message) -> Message | None:
        packed = is_zstd(message.data)
        self._packed, self._plain = self._packed + packed, self._plain + (not packed)
        try:
            return self._plain_form(message)
        except DataError as error:
            capped = isinstance(error, SizeCapError)
            place = f'{message.topic} at {message.time_ns}'
            problem = kinds.SIZE_CAP if capped else kinds.CORRUPT_MESSAGE
            self.problems.add(problem, place, f'{place}: {error}')
            return None

    def _open(self, file: Path) -> None:
        """Open one file, unpacked first where it is packed, and add what is wrong with it."""
        need_range_reader(file)
        try:
            readable = self._unpacked_file(file) if file.suffix == PACKED else file
            if readable.suffix.lower() == '.db3' and is_unfinished(readable):
                readable = self._finished(readable)
            mcap = readable.suffix.lower() == '.mcap'
            storage = McapFile(readable) if mcap else DatabaseFile(readable)
        except (SizeCapError, Ros1RecordingError):
            raise
        except (DataError, OSError) as error:
            text = f'{file} is damaged or cut off ({error}); 0 messages can be read'
            self.problems.add(kinds.DAMAGED_FILE, str(file), text)
            return
        self._storages.append((file, storage))
        fewer = fewer_in_the_file(storage.declared, storage.topics)
        if storage.damage:
            found = sum(storage.topics.values())
            text = f'{file} is damaged or cut off ({storage.damage}); {found} messages can be read'
            self.problems.add(kinds.DAMAGED_FILE, str(file), text)
        elif fewer:
            self.problems.add(kinds.FEWER_MESSAGES, str(file), f'{file}: {fewer}')

    def _finished(self, file: Path) -> Path:
        """Return a copy of an unfinished .db3 with all that its log holds, and say so."""
        copy, lost = finished_copy(file, self.folder())
        self.notes.append(f'{file.name} was not closed by its recorder: its log was read, too')
        if lost:
            self.problems.add(kinds.DAMAGED_FILE, str(file), f'{file}: {lost}')
        return copy

    def _unpacked_file(self, file: Path) -> Path:
        target = self.folder() / file.stem  # bag_0.mcap.zstd -> bag_0.mcap
        damage = unpack_file(file, target, self._limits.file)
        if damage:
            self.problems.add(kinds.DAMAGED_FILE, str(file), damage)
        return target

    def __enter__(self) -> Bag:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()
