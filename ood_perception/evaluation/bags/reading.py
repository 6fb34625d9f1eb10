# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Bags as recorded: a folder with metadata.yaml, a folder of storage files, or one storage file.

Files and messages that are zstd-compressed are unpacked, whether metadata.yaml says so or only the
first bytes do; what was found is kept for the report.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from ...errors import DataError, DependencyError
from ...types import JsonDict
from . import problems as kinds
from .compression import (
    MAX_FILE_BYTES,
    MAX_MESSAGE_BYTES,
    SizeCapError,
    is_zstd,
    unpack_file,
    unpack_message,
)
from .metadata import find_files
from .problems import Problem, Problems
from .salvage import salvage
from .storage import SUFFIXES, IndexedFile, StorageFile, Stored


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
        try:
            self.files = find_files(path)
            for file in self.files.missing:
                problems.meet(_missing(path, file))
            for file in self.files.files:
                self._open(file, scratch)
            if not self._storages:
                raise DataError(f'bag {path} has no readable storage file: {_tell(problems)}')
        except BaseException:
            self._stack.close()
            raise
        self.topics: dict[tuple[str, str], int] = {}
        for _, storage in self._storages:
            for key, count in storage.topics.items():
                self.topics[key] = self.topics.get(key, 0) + count

    def messages(self, topics: Collection[str]) -> Iterator[Message]:
        """Yield the topics' messages in recorded order; problems are met on the way."""
        for file, storage in self._storages:
            for item in self._guarded(file, storage.messages(topics)):
                message = self._unpacked(item)
                if message is not None:
                    yield message

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
            'topics': [
                {'topic': topic, 'type': kind, 'messages': count}
                for (topic, kind), count in sorted(self.topics.items())
            ],
        }

    def _guarded(self, file: Path, items: Iterator[Stored]) -> Iterator[Stored]:
        """Yield until the storage library fails, and name the file then."""
        while True:
            try:
                item = next(items)
            except StopIteration:
                return
            except Exception as error:  # rosbags raises classes of its storage libraries
                text = f'{file} is damaged, its messages end before the index does ({error})'
                self._problems.meet(Problem(kinds.DAMAGED_FILE, str(file), text))
                return
            yield item

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
        """Open one file, unpacked first where it is packed, by its index or from its start."""
        readable = file
        try:
            if file.suffix not in SUFFIXES:
                readable = self._unpacked_file(file, scratch)
            storage: StorageFile = IndexedFile(readable)
        except (DependencyError, SizeCapError):
            raise
        except Exception as error:  # rosbags raises classes of its storage libraries
            reason = str(error) or type(error).__name__
            cut = salvage(readable)
            found = sum(cut.topics.values()) if cut else 0
            text = f'{file} is damaged or cut off ({reason}); {found} messages can be read'
            self._problems.meet(Problem(kinds.DAMAGED_FILE, str(file), text))
            if cut is None:
                return
            storage = cut
        self._stack.callback(storage.close)
        self._storages.append((file, storage))

    def _unpacked_file(self, file: Path, scratch: Path) -> Path:
        folder = self._stack.enter_context(
            tempfile.TemporaryDirectory(prefix='.bag.', dir=scratch)
        )
        target = Path(folder) / file.stem  # bag_0.mcap.zstd -> bag_0.mcap
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


def _missing(path: Path, file: Path) -> Problem:
    text = f'bag {path}: metadata.yaml names {file.name}, which is not there: copy the whole bag'
    return Problem(kinds.MISSING_FILE, str(file), text)


def _tell(problems: Problems) -> str:
    texts = [problem.text for problem in problems.told]
    return '; '.join(texts) or 'an empty folder'
