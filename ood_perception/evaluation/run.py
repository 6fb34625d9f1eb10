# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Run the node's pipeline over labelled pictures: one thread reads ahead, one measures behind.

Reading and measuring overlap with the engine, and no more than a few pictures are in memory at any
time. What is kept of each picture is a record (record.py), found again when nothing changed.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError, DataError, ImageError
from ..pipeline import Pipeline
from ..types import Detection, Frame, UInt8Array
from .measure import Measured, measure
from .record import FORMAT, Kept, RecordSet, Skipped, load_record, save_record

LOG = logging.getLogger(__name__)
ON_ERROR = ('skip', 'fail')


@dataclass(frozen=True)
class PictureTask:
    """
    One labelled picture to evaluate.

    name, sequence: unique in its set; the drive it is from. files: all that it is read from.
    read: returns uint8 (H, W, 3) RGB and uint8 (H, W) labels, 255 ignored; raises DataError.
    """

    name: str
    sequence: str
    files: tuple[Path, ...]
    read: Callable[[], tuple[UInt8Array, UInt8Array]]


@dataclass(frozen=True)
class RunOptions:
    """
    How to run.

    batch: pictures that go through the engine together. on_error: 'skip' or 'fail' when a
    picture or its labels are broken. progress: show a bar with the time left.
    """

    batch: int = 1
    on_error: str = 'fail'
    progress: bool = False

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ConfigError(f'batch {self.batch}: give 1 or more pictures')
        if self.on_error not in ON_ERROR:
            raise ConfigError(f'on-error {self.on_error!r}: choose one of {", ".join(ON_ERROR)}')


@dataclass
class _Loaded:
    """A picture on its way: read, or found, or broken."""

    task: PictureTask
    content: str = ''
    path: Path = Path()
    found: bool = False
    image: UInt8Array | None = None
    labels: UInt8Array | None = None
    read_ms: float = 0.0
    error: str = ''


@dataclass
class _Progress:
    """What has come out so far, by the picture's name."""

    kept: dict[str, Kept] = field(default_factory=dict)
    skipped: dict[str, Skipped] = field(default_factory=dict)


def run_tasks(
    pipeline: Pipeline,
    tasks: Sequence[PictureTask],
    measured: Measured,
    folder: Path,
    options: RunOptions,
    label: str = '',
) -> RecordSet:
    """
    Evaluate pictures into `folder`, one record each; those that are there already are kept.

    The folder must belong to this bundle, engine and settings alone. label: of the progress bar.
    Raises DataError for a broken picture where options say 'fail', and where none is left.
    """
    names = [task.name for task in tasks]
    if len(set(names)) != len(names):
        raise DataError('two pictures of a set have the same name; rename one')
    state = _Progress()
    with (
        _bar(len(tasks), label, options.progress) as tick,
        ThreadPoolExecutor(1, 'read') as reader,
        ThreadPoolExecutor(1, 'measure') as behind,
    ):
        pending: deque[Future[None]] = deque()
        for group in _groups(_ahead(reader, tasks, folder, 2 * options.batch), state, options):
            for item, detection in _detections(pipeline, group, state, options):
                while len(pending) >= 2 * options.batch:
                    pending.popleft().result()
                pending.append(behind.submit(_keep, item, detection, measured))
                state.kept[item.task.name] = _kept(item)
            tick(len(state.kept) + len(state.skipped))
        for future in pending:
            future.result()
        tick(len(state.kept) + len(state.skipped))
    kept = tuple(state.kept[name] for name in names if name in state.kept)
    skipped = tuple(state.skipped[name] for name in names if name in state.skipped)
    if not kept:
        raise DataError(
            f'{label or folder}: no picture is left of {len(tasks)}'
            + (f'; {skipped[0].name}: {skipped[0].reason}' if skipped else '')
        )
    return RecordSet(kept, skipped)


def _ahead(
    reader: ThreadPoolExecutor, tasks: Sequence[PictureTask], folder: Path, most: int
) -> Iterator[_Loaded]:
    """Yield the pictures in order, at most `most` of them read before they are asked for."""
    waiting: deque[Future[_Loaded]] = deque()
    for task in tasks:
        waiting.append(reader.submit(_load, task, folder))
        if len(waiting) > most:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _load(task: PictureTask, folder: Path) -> _Loaded:
    """Read a picture unless its record is there; a broken one comes back with its error."""
    start = time.perf_counter()
    try:
        content = _content_of(task.files)
        path = folder / f'{_slug(task.name)}-{content[:16]}.npz'
        if load_record(path) is not None:
            return _Loaded(task, content, path, found=True)
        image, labels = task.read()
        if labels.shape != image.shape[:2]:
            raise DataError(
                f'labels of {task.name} have {labels.shape[1]} x {labels.shape[0]} pixels, the '
                f'picture has {image.shape[1]} x {image.shape[0]}'
            )
    except DataError as error:
        return _Loaded(task, error=str(error))
    return _Loaded(task, content, path, False, image, labels, _since(start))


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


def _groups(
    loaded: Iterator[_Loaded], state: _Progress, options: RunOptions
) -> Iterator[list[_Loaded]]:
    """Collect batches of pictures to run; sort out those that are done or broken."""
    group: list[_Loaded] = []
    for item in loaded:
        if item.error:
            _skip(item, item.error, state, options)
        elif item.found:
            state.kept[item.task.name] = _kept(item)
        else:
            group.append(item)
        if len(group) == options.batch:
            yield group
            group = []
    yield group


def _skip(item: _Loaded, reason: str, state: _Progress, options: RunOptions) -> None:
    if options.on_error == 'fail':
        raise DataError(f'{reason} (--on-error skip leaves such pictures out)')
    LOG.warning('skipped %s: %s', item.task.name, reason)
    state.skipped[item.task.name] = Skipped(item.task.name, reason)


def _kept(item: _Loaded) -> Kept:
    return Kept(item.task.name, item.task.sequence, item.content, item.path)


def _detections(
    pipeline: Pipeline, group: list[_Loaded], state: _Progress, options: RunOptions
) -> Iterator[tuple[_Loaded, Detection]]:
    """Run a batch; a picture that the pipeline refuses is skipped like a broken file."""
    frames = [
        # The drive as the camera: pictures of one drive share their view.
        Frame(item.image, item.task.sequence, frame_id=item.task.name)
        for item in group
        if item.image is not None
    ]
    for item, result in zip(group, pipeline.run_each(frames), strict=True):
        if isinstance(result, ImageError):
            _skip(item, str(result), state, options)
        else:
            yield item, result


def _keep(item: _Loaded, detection: Detection, measured: Measured) -> None:
    """Measure one detection and write its record."""
    assert item.labels is not None
    start = time.perf_counter()
    arrays = measure(detection, item.labels, measured)
    arrays['read_measure_ms'] = np.array([item.read_ms, _since(start)])
    save_record(item.path, arrays)


class _bar:  # noqa: N801 - used like a function
    """A progress bar with the time left (tqdm, where it is installed), or none."""

    def __init__(self, total: int, label: str, show: bool) -> None:
        self._bar: Any = None
        if show:
            try:
                from tqdm import tqdm
            except ImportError:
                LOG.info('%s: %d pictures (pip install tqdm shows a bar)', label, total)
            else:
                self._bar = tqdm(total=total, desc=label, unit='picture')

    def __enter__(self) -> Callable[[int], None]:
        return self._to

    def _to(self, done: int) -> None:
        if self._bar is not None:
            self._bar.update(done - self._bar.n)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()


def _since(start: float) -> float:
    return (time.perf_counter() - start) * 1e3
