# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The thread that turns queued frames into published outputs, off the executor's thread."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ood_perception.errors import ImageError, OodPerceptionError
from ood_perception.image.decode import NANOSECONDS, FrameDecoder
from ood_perception.ros.decode import decode_by_cv_bridge
from ood_perception.ros.frame_queue import FrameQueue, QueuedFrame
from ood_perception.ros.timing import FrameTimes, TimingWindow, stopwatch
from ood_perception.types import Detection, Frame

if TYPE_CHECKING:
    from ood_perception.loader import CalibrationMonitors
    from ood_perception.postprocess.tracking import Tracker
    from ood_perception.ros.camera_input import CameraInput
    from ood_perception.ros.model import Model
    from ood_perception.ros.outputs import CameraOutputs
    from ood_perception.ros.ranging import Ranging

_POLL = 0.5
_SLOWER = 4.0
DECODING, INFERENCE, PUBLISHING = 'decoding', 'inference', 'publishing'
_MOST_LATENCY_NS = 3600 * NANOSECONDS
SLOW_FRAME = 'slow frame'
"""Name of a thread that was left to itself in a frame that takes as long as others did."""


@dataclass
class PendingFrame:
    """One frame on its way; queued: with the message that the frame is of."""

    queued: QueuedFrame
    frame: Frame
    times: FrameTimes


@dataclass(eq=False, kw_only=True)
class Worker:
    """
    Takes the newest frames of all cameras, runs them as one batch and publishes what they give.

    inputs, outputs: of the cameras, by name. Nothing that a frame causes ends the thread: it is
    counted, logged and reported to diagnostics. What hangs cannot be ended: such a thread is
    abandoned, its frames are counted as failed, and what it still makes is thrown away.
    """

    node: Any
    queue: FrameQueue
    model: Model
    ranging: Ranging
    tracker: Tracker
    inputs: Mapping[str, CameraInput]
    outputs: Mapping[str, CameraOutputs]
    window: TimingWindow
    calibration: CalibrationMonitors
    most_pixels: int

    def __post_init__(self) -> None:
        self._decoders: dict[str, FrameDecoder[Any]] = {}
        self._stop = threading.Event()
        self._lock = threading.Lock()  # guards the frames in work
        self._in_work: dict[str, QueuedFrame] = {}
        self._abandoned = ''
        self._stage, self._since = '', 0.0
        self._longest = self.model.frame_seconds  # that of a batch so far
        self._failing: tuple[float, float] | None = None  # first and last failure in a row
        self._thread = threading.Thread(target=self._loop, name='inference', daemon=True)

    def start(self) -> None:
        """Start the thread and accept frames."""
        self.queue.open()
        self._thread.start()

    def stop(self, patience: float) -> None:
        """Stop accepting frames, finish the ones in work, or abandon them after `patience` s."""
        self._stop.set()
        self.queue.close()
        if self._abandoned:
            return
        self._thread.join(patience)
        if self._thread.is_alive():
            if not self.problem(0.0):  # others took as long: it does not hang
                self._thread.name = SLOW_FRAME
            self.abandon(f'still {self._stage} when the node was deactivated')

    def abandon(self, reason: str) -> None:
        """Leave the thread to itself: the frames in work are counted as failed for `reason`."""
        self._stop.set()
        with self._lock:
            self._abandoned = reason
            held, self._in_work = self._in_work, {}
        for camera in held:
            self.queue.lost(camera, 'failed', reason)

    def problem(self, limit: float, share: float = 1.0) -> str:
        """
        Return what keeps frames from being finished, '' = nothing.

        limit: seconds that a frame may take, of those that make a batch each; four times what the
        longest batch has taken, or a frame by the engine's check, is fine, too. share: of all
        that, from which on it is a problem.
        """
        now = time.monotonic()
        if self._abandoned:
            return self._abandoned
        if not self._thread.is_alive():
            return f'the inference thread has died in {self._stage or "waiting"}'
        with self._lock:
            stage, lasts = self._stage, now - self._since if self._in_work else 0.0
            patience = max(limit * len(self._in_work), _SLOWER * self._longest)
        if lasts > share * patience:
            return f'stuck in {stage}: no frame finished for {lasts:.1f} s'
        first, last = self._failing or (0.0, 0.0)
        if last - first > share * limit:
            return f'every frame has failed in {INFERENCE} for {last - first:.1f} s'
        return ''

    def _loop(self) -> None:
        while not self._stop.is_set():
            taken = self.queue.take(_POLL)
            with self._lock:
                self._in_work = {queued.camera: queued for queued in taken}
                self._stage, self._since = DECODING, time.monotonic()
            frames = [frame for queued in taken if (frame := self._decode(queued)) is not None]
            if frames and not self._abandoned:
                self._process(frames)
                self._longest = max(self._longest, time.monotonic() - self._since)

    def _settled(self, camera: str) -> bool:
        """Return whether a camera's frame in work is still ours to count, which it is once."""
        with self._lock:
            return self._in_work.pop(camera, None) is not None

    def _decode(self, queued: QueuedFrame) -> PendingFrame | None:
        times = FrameTimes(wait_ms=(time.monotonic() - queued.arrived) * 1e3)
        try:
            with stopwatch(times, 'decode_ms'):
                message, frame = self._newest(queued)
        except ImageError as error:
            self._lose(queued, 'bad', error)
            return None
        except Exception as error:
            self._lose(queued, 'failed', error)
            return None
        return PendingFrame(replace(queued, message=message, earlier=()), frame, times)

    def _newest(self, queued: QueuedFrame) -> tuple[Any, Frame]:
        """Return the last frame that a message completes, and the message it is of; ImageError."""
        name = queued.camera
        if name not in self._decoders:
            self._decoders[name] = FrameDecoder(name, decode_by_cv_bridge, self.most_pixels)
        decoder = self._decoders[name]
        for message in queued.earlier:
            # Counted as dropped already; a stream that it has spoiled says so below, too.
            with suppress(ImageError):
                decoder.decode(message, message)
        done = decoder.decode(queued.message, queued.message)
        if not done:
            raise ImageError('no image yet: the video has B frames, its images come later')
        return done[-1]

    def _process(self, pending: list[PendingFrame]) -> None:
        self._stage = INFERENCE
        try:
            infos = [self.inputs[one.frame.camera].camera_info for one in pending]
            frames = [
                self.ranging.with_horizon(one.frame, info)
                for one, info in zip(pending, infos, strict=True)
            ]
            results = self.model.pipeline.run_each(frames)
        except Exception as error:
            first, _ = self._failing or (self._since, 0.0)
            self._failing = first, time.monotonic()
            for one in pending:
                self._lose(one.queued, 'failed', error)
            return
        self._failing = None
        if self._abandoned:
            return
        self._stage = PUBLISHING
        for one, result in zip(pending, results, strict=True):
            if isinstance(result, ImageError):
                self._lose(one.queued, 'bad', result)
            else:
                self._deliver(one, result)

    def _deliver(self, pending: PendingFrame, detection: Detection) -> None:
        times, stages, name = pending.times, detection.times, pending.queued.camera
        times.preprocess_ms = stages.preprocess_ms
        times.inference_ms = stages.inference_ms
        times.postprocess_ms = stages.postprocess_ms
        try:
            latency = self._publish(pending, detection)
        except Exception as error:
            self._lose(pending.queued, 'failed', error)
            return
        if self._settled(name):
            self.window.add(times)
            self.queue.processed(name, latency)
        self._monitor(detection)

    def _monitor(self, detection: Detection) -> None:
        """Compare a frame with the calibration, after it is out: this must cost no frame."""
        try:
            self.calibration.add(self.model.pipeline, detection)
        except Exception as error:
            self.node.log('error', f'calibration health: {type(error).__name__}: {error}')

    def _publish(self, pending: PendingFrame, detection: Detection) -> float | None:
        """Publish one frame's outputs; return its age in milliseconds by the node's clock."""
        name, header = pending.queued.camera, pending.queued.message.header
        outputs, info = self.outputs[name], self.inputs[name].camera_info
        scene = self.model.pipeline.scene
        detection = self.ranging.without_small(detection, info, scene)
        tracked = self.tracker.update(detection)
        outputs.publish(
            tracked,
            header,
            info,
            look=lambda: self.ranging.ranges(tracked, info, scene),
            times=pending.times,
        )
        age = self.node.get_clock().now().nanoseconds - pending.frame.stamp_ns
        # None where stamp and clock are of different worlds
        latency = age / 1e6 if 0 <= age < _MOST_LATENCY_NS else None
        outputs.publish_debug(pending.times, latency)
        return latency

    def _lose(self, queued: QueuedFrame, outcome: str, error: Exception) -> None:
        """
        Count and log a lost frame, outcome: 'bad' or 'failed' (see Counters).

        A traceback goes to the log unless the error says it all.
        """
        if not self._settled(queued.camera):
            return
        expected = isinstance(error, OodPerceptionError)
        text = str(error) if expected else f'{type(error).__name__}: {error}'
        self.queue.lost(queued.camera, outcome, text)
        name = f'camera {queued.camera}' if queued.camera else 'camera'
        if outcome == 'bad':
            self.node.log('warning', f'{name}: frame rejected: {text}')
            return
        detail = '' if expected else '\n' + ''.join(traceback.format_exception(error))
        self.node.log('error', f'{name}: frame failed: {text}{detail}')
