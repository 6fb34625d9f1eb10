# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Where the time of a frame goes, and a window of it for diagnostics and the benchmark."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

_WINDOW = 256


@dataclass
class FrameTimes:
    """
    Wall times of one frame in milliseconds, in the order in which they are spent.

    wait_ms: in the newest-frame slot. decode_ms: message to RGB. preprocess_ms, inference_ms,
    postprocess_ms: the pipeline's stages (frames of a batch share the inference). fill_ms: maps
    at the output size, written into messages. publish_ms: serialising and handing over to DDS.
    """

    wait_ms: float = 0.0
    decode_ms: float = 0.0
    preprocess_ms: float = 0.0
    inference_ms: float = 0.0
    postprocess_ms: float = 0.0
    fill_ms: float = 0.0
    publish_ms: float = 0.0

    @property
    def own_ms(self) -> float:
        """Return the node's own time: all but the wait and the engine."""
        return float(sum(dataclasses.astuple(self)) - self.wait_ms - self.inference_ms)


STAGES = (*(field.name for field in dataclasses.fields(FrameTimes)), 'own_ms')


@contextmanager
def stopwatch(times: FrameTimes, stage: str) -> Iterator[None]:
    """Add the wall time of a `with` block to one field of a FrameTimes."""
    start = time.perf_counter()
    try:
        yield
    finally:
        spent = (time.perf_counter() - start) * 1e3
        setattr(times, stage, getattr(times, stage) + spent)


@dataclass(frozen=True)
class StageSummary:
    """One stage over the window, in milliseconds."""

    median: float
    p95: float
    last: float


class TimingWindow:
    """The times of the last 256 frames; written by the worker, read by diagnostics."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._frames: deque[FrameTimes] = deque(maxlen=_WINDOW)

    def add(self, times: FrameTimes) -> None:
        """Keep a finished frame's times."""
        with self._lock:
            self._frames.append(times)

    def summary(self) -> dict[str, StageSummary]:
        """Return every stage's summary, {} before the first frame."""
        with self._lock:
            frames = list(self._frames)
        if not frames:
            return {}
        table = np.array([[getattr(frame, stage) for stage in STAGES] for frame in frames])
        median, p95 = np.percentile(table, [50, 95], axis=0)
        return {
            stage: StageSummary(float(median[i]), float(p95[i]), float(table[-1, i]))
            for i, stage in enumerate(STAGES)
        }
