# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Labelled pictures on their way to the pipeline: read ahead, or found as records, or broken."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError
from ..types import UInt8Array
from .maritime import Segments
from .record import FORMAT, load_record


@dataclass(frozen=True)
class PictureTask:
    """
    One labelled picture to evaluate.

    name, sequence: unique in its set; the drive it is from. files: all that it is read from.
    read: returns uint8 (H, W, 3) RGB and uint8 (H, W) labels, 255 ignored; raises DataError.
    segments: returns the single obstacles of a sea picture; None where the set has none.
    """

    name: str
    sequence: str
    files: tuple[Path, ...]
    read: Callable[[], tuple[UInt8Array, UInt8Array]]
    segments: Callable[[], Segments] | None = None


@dataclass
class Loaded:
    """A picture on its way: read, or found, or broken."""

    task: PictureTask
    content: str = ''
    path: Path = Path()
    found: bool = False
    image: UInt8Array | None = None
    labels: UInt8Array | None = None
    segments: Segments | None = None
    read_ms: float = 0.0
    error: str = ''


def ahead(
    reader: ThreadPoolExecutor,
    tasks: Sequence[PictureTask],
    folder: Path,
    variant: str,
    most: int,
) -> Iterator[Loaded]:
    """
    Yield the pictures in order, at most `most` of them read before they are asked for.

    variant: part of the records' names, so that what was measured otherwise is not found.
    """
    waiting: deque[Future[Loaded]] = deque()
    for task in tasks:
        waiting.append(reader.submit(_load, task, folder, variant))
        if len(waiting) > most:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _load(task: PictureTask, folder: Path, variant: str) -> Loaded:
    """Read a picture unless its record is there; a broken one comes back with its error."""
    start = time.perf_counter()
    try:
        content = _content_of(task.files)
        path = folder / f'{_slug(task.name)}-{content[:16]}-{variant}.npz'
        if load_record(path) is not None:
            return Loaded(task, content, path, found=True)
        image, labels = task.read()
        if labels.shape != image.shape[:2]:
            raise DataError(
                f'labels of {task.name} have {labels.shape[1]} x {labels.shape[0]} pixels, the '
                f'picture has {image.shape[1]} x {image.shape[0]}'
            )
        segments = task.segments() if task.segments else None
    except DataError as error:
        return Loaded(task, error=str(error))
    milliseconds = 1e3 * (time.perf_counter() - start)
    return Loaded(task, content, path, False, image, labels, segments, milliseconds)


def _content_of(files: Sequence[Path]) -> str:
    """Return the sha256 over the files' bytes."""
    digest = hashlib.sha256(f'record {FORMAT}'.encode())
    for path in files:
        try:
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        except OSError as error:
            raise DataError(f'{path} cannot be read: {error.strerror}') from error
    return digest.hexdigest()


def _slug(name: str) -> str:
    return ''.join(c if c.isalnum() or c in '-_.' else '_' for c in name)[:80]
