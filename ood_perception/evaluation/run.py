# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Run the node's pipeline over labelled pictures: one thread reads ahead, one measures behind.

Reading and measuring overlap with the engine, and no more than a few pictures are in memory at any
time. What is kept of each picture is a record (record.py), found again when nothing changed.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..errors import ConfigError, DataError, ImageError
from ..pipeline import Pipeline
from ..types import Detection, Frame
from .loading import Loaded, PictureTask, ahead
from .measure import Measured, measure
from .record import Kept, RecordSet, Skipped, save_record

LOG = logging.getLogger(__name__)
ON_ERROR = ('skip', 'fail')


@dataclass(frozen=True)
class RunOptions:
    """
    How to run.

    batch: pictures that go through the engine together. on_error: 'skip' or 'fail' when a
    picture or its labels are broken. progress: show a bar with the time left, on a terminal.
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
class _State:
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
    variant: str = '',
) -> RecordSet:
    """
    Evaluate pictures into `folder`, one record each; those that are there already are kept.

    The folder must belong to this bundle, engine and settings alone; variant: a short name of what
    else the records depend on. label: of the progress bar. Raises DataError for a broken picture
    where options say 'fail', and where none is left.
    """
    names = [task.name for task in tasks]
    if len(set(names)) != len(names):
        raise DataError('two pictures of a set have the same name; rename one')
    state = _State()
    hidden = None if options.progress else True  # None: shown on a terminal alone
    with tqdm(total=len(tasks), desc=label, unit='picture', leave=False, disable=hidden) as bar:
        _run_all(pipeline, tasks, measured, folder, options, state, bar, variant)
    kept = tuple(state.kept[name] for name in names if name in state.kept)
    skipped = tuple(state.skipped[name] for name in names if name in state.skipped)
    if not kept:
        raise DataError(
            f'{label or folder}: no picture is left of {len(tasks)}'
            + (f'; {skipped[0].name}: {skipped[0].reason}' if skipped else '')
        )
    return RecordSet(kept, skipped)


def _run_all(
    pipeline: Pipeline,
    tasks: Sequence[PictureTask],
    measured: Measured,
    folder: Path,
    options: RunOptions,
    state: _State,
    bar: tqdm,
    variant: str,
) -> None:
    """Read ahead, run, and measure behind; fill `state`."""
    with ThreadPoolExecutor(1, 'read') as reader, ThreadPoolExecutor(1, 'measure') as behind:
        pending: deque[Future[None]] = deque()
        loaded = ahead(reader, tasks, folder, variant, 2 * options.batch)
        for group in _groups(loaded, state, options):
            for item, detection in _detections(pipeline, group, state, options):
                while len(pending) >= 2 * options.batch:
                    pending.popleft().result()
                pending.append(behind.submit(_keep, item, detection, measured))
                state.kept[item.task.name] = _kept(item)
            bar.update(len(state.kept) + len(state.skipped) - bar.n)
        for future in pending:
            future.result()


def _groups(
    loaded: Iterator[Loaded], state: _State, options: RunOptions
) -> Iterator[list[Loaded]]:
    """Collect batches of pictures to run; sort out those that are done or broken."""
    group: list[Loaded] = []
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


def _skip(item: Loaded, reason: str, state: _State, options: RunOptions) -> None:
    if options.on_error == 'fail':
        raise DataError(f'{reason} (--on-error skip leaves such pictures out)')
    LOG.warning('skipped %s: %s', item.task.name, reason)
    state.skipped[item.task.name] = Skipped(item.task.name, reason)


def _kept(item: Loaded) -> Kept:
    return Kept(item.task.name, item.task.sequence, item.content, item.path)


def _detections(
    pipeline: Pipeline, group: list[Loaded], state: _State, options: RunOptions
) -> Iterator[tuple[Loaded, Detection]]:
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


def _keep(item: Loaded, detection: Detection, measured: Measured) -> None:
    """Measure one detection and write its record."""
    assert item.labels is not None
    start = time.perf_counter()
    arrays = measure(detection, item.labels, measured, item.segments)
    arrays['read_measure_ms'] = np.array([item.read_ms, _since(start)])
    save_record(item.path, arrays)


def _since(start: float) -> float:
    return (time.perf_counter() - start) * 1e3
