# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The thread that turns waiting frames into published outputs, off the executor's thread."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from ood_perception.errors import ImageError, OodPerceptionError
from ood_perception.image.decode import FrameDecoder
from ood_perception.ros.decode import decode_by_cv_bridge
from ood_perception.ros.frame_queue import Mailbox, Waiting
from ood_perception.ros.timing import FrameTimes, Stopwatch, TimingWindow
from ood_perception.types import Detection, Frame

_POLL = 0.5


@dataclass
class Job:
    """One frame on its way; waiting: with the message that the frame is of."""

    waiting: Waiting
    frame: Frame
    times: FrameTimes


class Worker:
    """
    Takes the newest frames of all cameras, runs them as one batch and hands on the results.

    run: frames -> per frame, in order, its detection or the error that refuses it.
    publish: called per detection with (waiting, detection, times); returns the latency in
    milliseconds or None. log: called with (severity, text), severity 'warning' or 'error'.

    Nothing that a frame causes ends the thread: it is counted, logged and told to diagnostics.
    """

    def __init__(
        self,
        mailbox: Mailbox,
        run: Callable[[Sequence[Frame]], Sequence[Detection | OodPerceptionError]],
        publish: Callable[[Waiting, Detection, FrameTimes], float | None],
        log: Callable[[str, str], None],
        window: TimingWindow,
    ) -> None:
        self._mailbox, self._run, self._publish = mailbox, run, publish
        self._log, self._window = log, window
        self._decoders: dict[str, FrameDecoder[Any]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name='inference', daemon=True)

    def start(self) -> None:
        """Start the thread and accept frames."""
        self._mailbox.open()
        self._thread.start()

    def stop(self) -> None:
        """Stop accepting frames, finish the ones in work, and join the thread."""
        self._stop.set()
        self._mailbox.close()
        self._thread.join()

    def _loop(self) -> None:
        while not self._stop.is_set():
            taken = self._mailbox.take(_POLL)
            jobs = [job for waiting in taken if (job := self._decode(waiting)) is not None]
            if jobs:
                self._process(jobs)

    def _decode(self, waiting: Waiting) -> Job | None:
        times = FrameTimes(wait_ms=(time.monotonic() - waiting.arrived) * 1e3)
        try:
            with Stopwatch(times, 'decode_ms'):
                message, frame = self._newest(waiting)
        except ImageError as error:
            self._reject(waiting, error)
            return None
        except Exception as error:
            self._fail(waiting, error)
            return None
        return Job(replace(waiting, message=message, earlier=()), frame, times)

    def _newest(self, waiting: Waiting) -> tuple[Any, Frame]:
        """Return the last frame that a message completes, and the message it is of; ImageError."""
        name = waiting.camera
        decoder = self._decoders.setdefault(name, FrameDecoder(name, decode_by_cv_bridge))
        for message in waiting.earlier:
            # Counted as dropped already; a stream that it has spoiled says so below, too.
            with suppress(ImageError):
                decoder.decode(message, message)
        done = decoder.decode(waiting.message, waiting.message)
        if not done:
            raise ImageError('no picture yet: the video has B frames, its pictures come later')
        return done[-1]

    def _process(self, jobs: list[Job]) -> None:
        try:
            detections = self._run([job.frame for job in jobs])
        except Exception as error:
            for job in jobs:
                self._fail(job.waiting, error)
            return
        for job, result in zip(jobs, detections, strict=True):
            if isinstance(result, OodPerceptionError):
                self._reject(job.waiting, result)
            else:
                self._deliver(job, result)

    def _deliver(self, job: Job, detection: Detection) -> None:
        times, stages = job.times, detection.times
        times.preprocess_ms = stages.preprocess_ms
        times.inference_ms = stages.inference_ms
        times.postprocess_ms = stages.postprocess_ms
        try:
            latency = self._publish(job.waiting, detection, times)
        except Exception as error:
            self._fail(job.waiting, error)
            return
        self._window.add(times)
        self._mailbox.processed(job.waiting.camera, latency)

    def _reject(self, waiting: Waiting, error: OodPerceptionError) -> None:
        self._mailbox.bad(waiting.camera, str(error))
        self._log('warning', f'{_name(waiting)}: frame rejected: {error}')

    def _fail(self, waiting: Waiting, error: Exception) -> None:
        """Count and tell a failure; a traceback goes to the log unless the error says it all."""
        expected = isinstance(error, OodPerceptionError)
        text = str(error) if expected else f'{type(error).__name__}: {error}'
        self._mailbox.failed(waiting.camera, text)
        detail = '' if expected else '\n' + ''.join(traceback.format_exception(error))
        self._log('error', f'{_name(waiting)}: frame failed: {text}{detail}')


def _name(waiting: Waiting) -> str:
    return f'camera {waiting.camera}' if waiting.camera else 'camera'
