# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Run the node's pipeline over labelled images: one thread reads ahead, one measures behind.

Reading and measuring overlap with the engine, and no more than a few images are in memory at any
time. What is kept of each image is a record (record.py), loaded from cache when nothing changed.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..errors import ConfigError, DataError, ImageError
from ..pipeline import Pipeline
from ..types import Detection, Frame, UInt8Array
from .maritime import Segments
from .measure import Measured, measure
from .record import FORMAT, Kept, RecordSet, Skipped, file_name, load_record, save_record

LOG = logging.getLogger(__name__)
ON_ERROR = ('skip', 'fail')


@dataclass(frozen=True)
class ImageTask:
    """
    One labelled image to evaluate.

    name, sequence: unique in its set; the drive it is from. files: all that it is read from.
    read: returns uint8 (H, W, 3) RGB and uint8 (H, W) labels, 255 ignored; raises DataError.
    segments: returns the single obstacles of a sea image; None where the set has none.
    """

    name: str
    sequence: str
    files: tuple[Path, ...]
    read: Callable[[], tuple[UInt8Array, UInt8Array]]
    segments: Callable[[], Segments] | None = None


@dataclass(frozen=True)
class RunOptions:
    """
    How to run.

    batch: images that go through the engine together. on_error: 'skip' or 'fail' when an
    image or its labels are broken. progress: show a bar with the time left, on a terminal.
    """

    batch: int = 1
    on_error: str = 'fail'
    progress: bool = False

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ConfigError(f'batch {self.batch}: give 1 or more images')
        if self.on_error not in ON_ERROR:
            raise ConfigError(f'on-error {self.on_error!r}: choose one of {", ".join(ON_ERROR)}')


def run_tasks(
    pipeline: Pipeline,
    tasks: Sequence[ImageTask],
    measured: Measured,
    folder: Path,
    options: RunOptions,
    label: str = '',
    variant: str = '',
    failed: Mapping[str, str] | None = None,
) -> RecordSet:
    """
    Evaluate images into `folder`, one record each; those that are there already are kept.

    The folder must belong to this bundle, engine and settings alone; variant: a short name of what
    else the records depend on. label: of the progress bar. failed: why, by name, of images that
    are known to be broken: they are not tried again. Raises DataError for a broken image where
    options say 'fail', and where none is left.
    """
    failed = failed or {}
    names = [task.name for task in tasks]
    if len(set(names)) != len(names):
        raise DataError('two images of a set have the same name; rename one')
    run = _Run(pipeline, measured, options)
    for task in tasks:
        if task.name in failed:
            run.skip(task.name, failed[task.name])
    tasks = [task for task in tasks if task.name not in failed]
    hidden = None if options.progress else True  # None: shown on a terminal alone
    with tqdm(total=len(tasks), desc=label, unit='image', leave=False, disable=hidden) as bar:
        run.all_of(tasks, folder, variant, bar)
    kept = tuple(run.kept[name] for name in names if name in run.kept)
    skipped = tuple(run.skipped[name] for name in names if name in run.skipped)
    if not kept:
        raise DataError(
            f'{label or folder}: no image is left of {len(names)}'
            + (f'; {skipped[0].name}: {skipped[0].reason}' if skipped else '')
        )
    return RecordSet(kept, skipped)


def run_one(
    pipeline: Pipeline, task: ImageTask, measured: Measured, folder: Path, variant: str = ''
) -> Path:
    """Evaluate one image as run_tasks does; return its record. Raises DataError if broken."""
    run = _Run(pipeline, measured, RunOptions(on_error='skip'))
    with tqdm(disable=True) as bar:
        run.all_of([task], folder, variant, bar)
    if task.name in run.skipped:
        raise DataError(run.skipped[task.name].reason)
    return run.kept[task.name].path


@dataclass
class _Loaded:
    """An image on its way: read, or found as a record, or broken."""

    task: ImageTask
    content: str = ''
    path: Path = Path()
    found: bool = False
    image: UInt8Array | None = None
    labels: UInt8Array | None = None
    segments: Segments | None = None
    read_ms: float = 0.0
    error: str = ''

    @property
    def kept(self) -> Kept:
        return Kept(self.task.name, self.task.sequence, self.content, self.path)


class _Run:
    """kept, skipped: what has come out so far, by the image's name."""

    def __init__(self, pipeline: Pipeline, measured: Measured, options: RunOptions) -> None:
        self._pipeline, self._measured, self._options = pipeline, measured, options
        self.kept: dict[str, Kept] = {}
        self.skipped: dict[str, Skipped] = {}

    def all_of(self, tasks: Sequence[ImageTask], folder: Path, variant: str, bar: tqdm) -> None:
        """Read ahead, run, and measure behind."""
        with ThreadPoolExecutor(1, 'read') as reader, ThreadPoolExecutor(1, 'measure') as behind:
            pending: deque[Future[None]] = deque()
            most = 2 * self._options.batch
            for group in self._groups(_ahead(reader, tasks, folder, variant, most)):
                for item, detection in self._detections(group):
                    while len(pending) >= most:
                        pending.popleft().result()
                    pending.append(behind.submit(_keep, item, detection, self._measured))
                    self.kept[item.task.name] = item.kept
                bar.update(len(self.kept) + len(self.skipped) - bar.n)
            for future in pending:
                future.result()

    def _groups(self, loaded: Iterator[_Loaded]) -> Iterator[list[_Loaded]]:
        """Collect batches of images to run; sort out those that are done or broken."""
        group: list[_Loaded] = []
        for item in loaded:
            if item.error:
                self.skip(item.task.name, item.error)
            elif item.found:
                self.kept[item.task.name] = item.kept
            else:
                group.append(item)
            if len(group) == self._options.batch:
                yield group
                group = []
        yield group

    def _detections(self, group: list[_Loaded]) -> Iterator[tuple[_Loaded, Detection]]:
        """Run a batch; an image that the pipeline refuses is skipped like a broken file."""
        frames = [
            # The drive as the camera: images of one drive share their view.
            Frame(item.image, item.task.sequence, frame_id=item.task.name)
            for item in group
            if item.image is not None
        ]
        for item, result in zip(group, self._pipeline.run_each(frames), strict=True):
            if isinstance(result, ImageError):
                self.skip(item.task.name, str(result))
            else:
                yield item, result

    def skip(self, name: str, reason: str) -> None:
        """Note a broken image; DataError where the options say 'fail'."""
        if self._options.on_error == 'fail':
            raise DataError(f'{reason} (--on-error skip leaves such images out)')
        LOG.warning('skipped %s: %s', name, reason)
        self.skipped[name] = Skipped(name, reason)


def _ahead(
    reader: ThreadPoolExecutor, tasks: Sequence[ImageTask], folder: Path, variant: str, most: int
) -> Iterator[_Loaded]:
    """Yield the images in order, at most `most` of them read before they are asked for."""
    waiting: deque[Future[_Loaded]] = deque()
    for task in tasks:
        waiting.append(reader.submit(_load, task, folder, variant))
        if len(waiting) > most:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _load(task: ImageTask, folder: Path, variant: str) -> _Loaded:
    """Read an image unless its record is there; a broken one comes back with its error."""
    start = time.perf_counter()
    try:
        content = _content_of(task.files)
        path = folder / f'{file_name(task.name)[:80]}-{content[:16]}-{variant}.npz'
        if load_record(path) is not None:
            return _Loaded(task, content, path, found=True)
        image, labels = task.read()
        if labels.shape != image.shape[:2]:
            raise DataError(
                f'labels of {task.name} have {labels.shape[1]} x {labels.shape[0]} pixels, the '
                f'image has {image.shape[1]} x {image.shape[0]}'
            )
        segments = task.segments() if task.segments else None
    except DataError as error:
        return _Loaded(task, error=str(error))
    return _Loaded(task, content, path, False, image, labels, segments, _since(start))


def _content_of(files: Sequence[Path]) -> str:
    """Return the sha256 over the files' bytes."""
    digest = hashlib.sha256(f'record {FORMAT}'.encode())
    for path in files:
        try:
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        except OSError as error:
            raise DataError(f'{path} cannot be read: {error.strerror}') from error
    return digest.hexdigest()


def _keep(item: _Loaded, detection: Detection, measured: Measured) -> None:
    """Measure one detection and write its record."""
    assert item.labels is not None
    start = time.perf_counter()
    arrays = measure(detection, item.labels, measured, item.segments)
    arrays['read_measure_ms'] = np.array([item.read_ms, _since(start)])
    save_record(item.path, arrays)


def _since(start: float) -> float:
    return (time.perf_counter() - start) * 1e3
