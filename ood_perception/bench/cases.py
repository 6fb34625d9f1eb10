# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What is measured: one combination of bundle, engine, precision, threads and cameras."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ood_perception.errors import ConfigError, EngineError
from ood_perception.types import JsonDict


@dataclass(frozen=True)
class Case:
    """
    One measurement.

    bundle: folder or .zip. precision: as in EngineOptions; 'int8:8' and 'int8:7' are int8 with
    weights of so many bits, whatever this CPU needs. weights: where missing weights come from,
    '' = see completion. classes: compiled classes, () = the bundle's. batch: cameras, whose frames
    run as one batch. mode: 'latency' or 'throughput', see EngineOptions. runs: timed runs, after
    `warmup` untimed ones. camera: height and width of the images. views: 'all' of a frame,
    'whole': the whole image alone, 'crop': the first further view alone.
    """

    bundle: str
    runtime: str = 'auto'
    precision: str = 'auto'
    threads: int = 0
    batch: int = 1
    mode: str = 'latency'
    runs: int = 20
    warmup: int = 3
    head: str = ''
    classes: tuple[str, ...] = ()
    weights: str = ''
    camera: tuple[int, int] = (1080, 1920)
    views: str = 'all'

    def __post_init__(self) -> None:
        """Raise EngineError for counts that cannot be measured."""
        if self.runs < 1 or self.warmup < 0 or self.batch < 1 or self.threads < 0:
            raise EngineError(
                f'runs {self.runs}, warmup {self.warmup}, batch {self.batch}, threads '
                f'{self.threads}: give at least 1 run, 0 warm-ups, a batch of 1 and 0 threads '
                '(all cores)'
            )
        if ':' in self.precision and self.precision not in ('int8:7', 'int8:8'):
            raise EngineError(
                f'precision {self.precision}: bits of the weights are int8:7 or int8:8'
            )
        if min(self.camera) < 1:
            raise EngineError(
                f'camera {self.camera}: give a height and a width of at least 1 pixel'
            )

    @property
    def cores(self) -> int:
        """The threads that are meant: all cores of this process for 0."""
        return self.threads or len(os.sched_getaffinity(0))

    @property
    def label(self) -> str:
        """One line for progress."""
        threads = f'{self.threads or "all"} threads'
        name = Path(self.bundle).name
        mode = '' if self.mode == 'latency' else f', {self.mode}'
        views = '' if self.views == 'all' else f', {self.views} alone'
        return (
            f'{name} {self.runtime} {self.precision}, {threads}, batch {self.batch}{mode}{views}'
        )


def cases(
    base: Case,
    runtimes: Sequence[str],
    precisions: Sequence[str],
    threads: Sequence[int],
    batches: Sequence[int],
) -> list[Case]:
    """Return every combination, each like `base` otherwise."""
    return [
        replace(base, runtime=runtime, precision=precision, threads=count, batch=batch)
        for runtime, precision, count, batch in itertools.product(
            runtimes, precisions, threads, batches
        )
    ]


def to_json(case: Case) -> JsonDict:
    """Return the case for publication: no place of this machine in it."""
    values = asdict(case)
    del values['weights']
    return {**values, 'bundle': public_place(Path(case.bundle))}


def public_place(path: Path) -> str:
    """Return a path below the working directory as it is from there, any other by its name."""
    try:
        return path.resolve().relative_to(Path.cwd()).as_posix()
    except ValueError:
        return path.resolve().name


def camera_size(text: str, option: str = '--camera') -> tuple[int, int]:
    """Return (height, width) of '1920x1080'; ConfigError for anything else."""
    width, _, height = text.partition('x')
    if not (width.isdigit() and height.isdigit()):
        raise ConfigError(f'{option} {text!r}: give width x height, such as 1920x1080')
    return int(height), int(width)
