# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A video in the node: a frame may be dropped, its packet is decoded all the same."""

import time
from types import SimpleNamespace

import numpy as np
import pytest
from videos import encoded, images

from ood_perception.image.encoded import MAX_PIXELS
from ood_perception.postprocess.tracking import Tracker
from ood_perception.ros.frame_queue import FrameQueue
from ood_perception.ros.timing import TimingWindow
from ood_perception.ros.worker import Worker

TIMES = SimpleNamespace(preprocess_ms=0.0, inference_ms=0.0, postprocess_ms=0.0)


def packets(codec, drawn, **options):
    stamp = SimpleNamespace(sec=0, nanosec=0)
    return [
        SimpleNamespace(
            header=SimpleNamespace(stamp=stamp, frame_id='lens', number=number),
            format=codec,
            data=np.frombuffer(data, np.uint8),
        )
        for number, data in enumerate(encoded(codec, drawn, **options))
    ]


class Rig:
    """A queue and a worker whose engine keeps the frames, without a graph."""

    def __init__(self, capacity=1):
        self.queue = FrameQueue([''], capacity)
        self.frames, self.published, self.logged = [], [], []
        clock = SimpleNamespace(now=lambda: SimpleNamespace(nanoseconds=0))
        outputs = SimpleNamespace(publish=self._publish, publish_debug=lambda *_: None)
        self.worker = Worker(
            node=SimpleNamespace(log=self._log, get_clock=lambda: clock),
            queue=self.queue,
            model=SimpleNamespace(
                pipeline=SimpleNamespace(run_each=self._run, scene=None), frame_seconds=0.0
            ),
            ranging=SimpleNamespace(
                with_horizon=lambda frame, _: frame, without_small=lambda found, *_: found
            ),
            tracker=Tracker(),
            inputs={'': SimpleNamespace(camera_info=None)},
            outputs={'': outputs},
            window=TimingWindow(),
            calibration=SimpleNamespace(add=lambda *_: None),
            most_pixels=MAX_PIXELS,
        )
        self.queue.open()

    def put(self, messages):
        for message in messages:
            self.queue.put('', message, wanted=True)

    def work(self):
        """Run the worker until nothing waits, and return the camera's counters."""
        self.worker.start()
        end = time.monotonic() + 20
        while time.monotonic() < end:
            (report,) = self.queue.reports()
            counted = report.counters
            done = counted.processed + counted.bad + counted.failed + counted.dropped
            if done == counted.callbacks:
                break
            time.sleep(0.01)
        self.worker.stop(10.0)
        return counted

    def _run(self, frames):
        self.frames += frames
        return [SimpleNamespace(times=TIMES, frame=frame) for frame in frames]

    def _publish(self, tracked, header, info, *, look, times):
        self.published.append(header.number)

    def _log(self, severity, text):
        self.logged.append((severity, text))


@pytest.mark.parametrize('codec', ['h264', 'hevc'])
def test_the_newest_image_is_right_though_those_before_it_were_dropped(codec):
    drawn = images(10)
    rig = Rig()
    rig.put(packets(codec, drawn, group=100))
    counted = rig.work()
    assert (counted.processed, counted.dropped, counted.bad) == (1, 9, 0)
    assert rig.published == [9]
    errors = [np.abs(rig.frames[0].image.astype(int) - d).mean() for d in drawn]
    assert int(np.argmin(errors)) == 9
    assert errors[9] < 8


def test_a_longer_queue_keeps_its_order():
    drawn = images(10)
    rig = Rig(capacity=3)
    rig.put(packets('h264', drawn, group=100))
    counted = rig.work()
    assert (counted.processed, counted.dropped) == (3, 7)
    assert rig.published == [7, 8, 9]


def test_packets_that_nobody_wanted_are_told_until_the_next_key_frame():
    drawn = images(9)
    messages = packets('h264', drawn, group=6)
    rig = Rig(capacity=100)
    rig.put(messages[:2])
    rig.queue.put('', messages[2], wanted=False)
    rig.put(messages[3:])
    end = time.monotonic() + 20
    rig.worker.start()
    while rig.queue.reports()[0].counters.processed < 5 and time.monotonic() < end:
        time.sleep(0.01)
    rig.worker.stop(10.0)
    counted = rig.queue.reports()[0].counters
    assert (counted.processed, counted.bad, counted.skipped) == (5, 3, 1)
    assert rig.published == [0, 1, 6, 7, 8]
    assert all('key frame' in text for severity, text in rig.logged)


def test_b_frames_publish_each_image_with_its_own_message():
    drawn = images(10)
    rig = Rig(capacity=100)
    messages = packets('h264', drawn, group=100, late=2)
    rig.put(messages)
    counted = rig.work()
    assert counted.failed == 0
    assert counted.processed + counted.bad == 10
    assert counted.processed >= 6
    for place, frame in enumerate(rig.frames):
        errors = [np.abs(frame.image.astype(int) - d).mean() for d in drawn]
        assert int(np.argmin(errors)) == place
    assert len(set(rig.published)) == len(rig.published)


def test_a_still_image_leaves_nothing_behind_when_it_is_dropped():
    queue = FrameQueue([''])
    queue.open()
    for number in range(4):
        queue.put('', SimpleNamespace(format='jpeg', number=number), wanted=True)
    (waiting,) = queue.take(0)
    assert (waiting.message.number, waiting.earlier) == (3, ())
