# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""One short queue per camera, by default of the newest frame: what is dropped is counted."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import astuple, dataclass, field, replace
from typing import Any

from ood_perception.image.encodings import message_codec

_RATE_WINDOW = 32
# Packets of a video kept for a frame that waits: ten seconds at 30 Hz. A decoder tells lost ones.
_MOST_EARLIER = 300
KEPT_SECONDS = 3.0  # two heartbeats of the diagnostics, and some


@dataclass
class Counters:
    """
    What became of a camera's frames since the node was configured.

    callbacks = processed + dropped + bad + failed + skipped + those that wait or are in work.
    dropped: pushed out of the full queue by a newer frame. bad: not decodable (ImageError).
    failed: the engine or the publishing failed. skipped: arrived while nobody subscribed or the
    node was disabled or inactive.
    """

    callbacks: int = 0
    processed: int = 0
    dropped: int = 0
    bad: int = 0
    failed: int = 0
    skipped: int = 0

    def since(self, before: Counters) -> Counters:
        """Return how much each has grown since `before`."""
        pairs = zip(astuple(self), astuple(before), strict=True)
        return Counters(*(max(0, now - then) for now, then in pairs))


@dataclass(frozen=True)
class QueuedFrame:
    """
    A message taken from a queue; arrived: time.monotonic() of its callback, in seconds.

    earlier: packets of a video before it that were dropped as frames: its decoder needs them.
    """

    camera: str
    message: Any
    arrived: float
    earlier: tuple[Any, ...] = ()


@dataclass
class CameraState:
    """
    All that the node knows of one camera, guarded by the queue's lock.

    last_error: the last refused frame's reason; it stays until diagnostics must have told it, at
    least KEPT_SECONDS, and until a frame was processed after it. error_time: time.monotonic().
    latency_ms: age of the last published frame by the node's clock, None when unknown.
    """

    name: str
    counters: Counters = field(default_factory=Counters)
    queue: deque[QueuedFrame] = field(default_factory=deque)
    arrivals: deque[float] = field(default_factory=lambda: deque(maxlen=_RATE_WINDOW))
    completions: deque[float] = field(default_factory=lambda: deque(maxlen=_RATE_WINDOW))
    last_error: str = ''
    error_time: float = 0.0
    latency_ms: float | None = None


@dataclass(frozen=True)
class CameraReport:
    """
    A copy of a camera's state; rates in hertz, idle: seconds without a frame, None: never.

    waiting: frames in the queue. capacity: the most that fit.
    """

    name: str
    counters: Counters
    input_rate: float
    output_rate: float
    idle: float | None
    last_error: str
    latency_ms: float | None
    waiting: int = 0
    capacity: int = 1


class FrameQueue:
    """
    The queues of all cameras. The executor's thread puts, the worker's thread takes.

    capacity: frames that wait for a camera; 1 keeps the newest alone. From a full queue the oldest
    is dropped. `take` returns the first in the queue of every camera, so that they can go through
    the engine as one batch.
    """

    def __init__(self, names: Sequence[str], capacity: int = 1) -> None:
        self.capacity = capacity
        self._changed = threading.Condition()
        self._cameras = {name: CameraState(name) for name in names}
        self._open = False

    def open(self) -> None:
        """Accept frames from now on."""
        with self._changed:
            self._open = True

    def close(self) -> None:
        """Stop accepting, empty the queues (counted as skipped) and wake the taker."""
        with self._changed:
            self._open = False
            for camera in self._cameras.values():
                camera.counters.skipped += len(camera.queue)
                camera.queue.clear()
            self._changed.notify_all()

    def restart(self, name: str) -> None:
        """Forget when frames came and went: the camera was not listened to meanwhile."""
        with self._changed:
            self._cameras[name].arrivals.clear()
            self._cameras[name].completions.clear()

    def put(self, name: str, message: Any, *, wanted: bool) -> None:
        """Count a callback; keep the message in the camera's queue if it is wanted."""
        now = time.monotonic()
        with self._changed:
            camera = self._cameras[name]
            camera.counters.callbacks += 1
            camera.arrivals.append(now)
            if not (wanted and self._open):
                camera.counters.skipped += 1
                return
            camera.queue.append(QueuedFrame(name, message, now))
            if len(camera.queue) > self.capacity:
                _drop_first(camera)
            self._changed.notify_all()

    def take(self, timeout: float) -> list[QueuedFrame]:
        """Return the first frame of each queue; [] after `timeout` seconds or when closed."""
        with self._changed:
            self._changed.wait_for(self._anything_waits, timeout)
            return [c.queue.popleft() for c in self._cameras.values() if c.queue]

    def processed(self, name: str, latency_ms: float | None) -> None:
        """Count a frame whose outputs were published."""
        with self._changed:
            camera = self._cameras[name]
            camera.counters.processed += 1
            now = time.monotonic()
            camera.completions.append(now)
            camera.latency_ms = latency_ms
            if now - camera.error_time > KEPT_SECONDS:
                camera.last_error = ''

    def lost(self, name: str, outcome: str, reason: str) -> None:
        """Count a frame as 'bad', not decodable, or 'failed', by a failure of ours."""
        with self._changed:
            camera = self._cameras[name]
            setattr(camera.counters, outcome, getattr(camera.counters, outcome) + 1)
            camera.last_error, camera.error_time = reason, time.monotonic()

    def reports(self) -> list[CameraReport]:
        """Return a consistent copy of every camera's state."""
        now = time.monotonic()
        with self._changed:
            return [
                CameraReport(
                    name=camera.name,
                    counters=replace(camera.counters),
                    input_rate=_rate(camera.arrivals, now),
                    output_rate=_rate(camera.completions, now),
                    idle=now - camera.arrivals[-1] if camera.arrivals else None,
                    last_error=camera.last_error,
                    latency_ms=camera.latency_ms,
                    waiting=len(camera.queue),
                    capacity=self.capacity,
                )
                for camera in self._cameras.values()
            ]

    def _anything_waits(self) -> bool:
        return not self._open or any(c.queue for c in self._cameras.values())


def _drop_first(camera: CameraState) -> None:
    """Drop the oldest frame; a packet of a video goes along with the next, to be decoded."""
    dropped = camera.queue.popleft()
    camera.counters.dropped += 1
    if message_codec(dropped.message):
        earlier = (*dropped.earlier, dropped.message)[-_MOST_EARLIER:]
        camera.queue[0] = replace(camera.queue[0], earlier=earlier)


def _rate(times: Sequence[float], now: float) -> float:
    """Return events per second over the kept times; it decays once events stop."""
    if len(times) < 2:
        return 0.0
    interval = (times[-1] - times[0]) / (len(times) - 1)
    return 1.0 / max(interval, now - times[-1], 1e-6)
