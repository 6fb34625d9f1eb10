# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The demo's live part: images to the node, a process, and what came back held to the truth."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rclpy

from ood_perception.bundle.manifest import InputSpec
from ood_perception.demo.report import FrameResult, Speed
from ood_perception.demo.sources import Image
from ood_perception.demo.verdict import check_frame
from ood_perception.errors import EngineError
from ood_perception.ros.tools.discovery import flush, wait_for_subscribers
from ood_perception.ros.tools.listeners import Collector
from ood_perception.ros.tools.processes import Child, say

_TOPIC = '/demo/camera/image'
_MOST_RATE, _LEAST_RATE = 3.0, 0.2
# The node also decodes, publishes four full-size maps and shares the machine with us.
_LOAD, _OWN_SECONDS = 2.0, 0.15


def through_the_node(
    options: argparse.Namespace,
    spec: InputSpec,
    speed: Speed,
    images: Sequence[Image],
    out: Path,
) -> tuple[list[FrameResult], dict[str, Any]]:
    """Start the node, publish, collect; return the frames' results and figures for the page."""
    say(4, f'starting road_anomaly_node (log: {out / "node.log"})')
    rclpy.init(args=[])
    try:
        collector = Collector(_TOPIC)
        with Child('ood_perception.ros.node', _node_arguments(options), out / 'node.log') as node:
            _wait_until_ready(collector, node, options.timeout)
            rate = options.rate or _sustained_rate(speed.seconds)
            say(5, f'publishing {len(images)} frames at {rate:.2g} Hz')
            stamps = _publish(collector, node, images, rate, options.timeout)
            collector.spin(2.5, lambda: _all_counted(collector, len(stamps)))
    finally:
        rclpy.try_shutdown()
    results = _results(collector, stamps, images, spec)
    if not results:
        raise EngineError(f'the node gave no result; its log says:\n{node.tail()}')
    return results, _figures(collector, speed, len(stamps), options)


def _node_arguments(options: argparse.Namespace) -> list[str]:
    values = {
        'bundle': options.bundle,
        'engine': options.engine,
        'precision': options.precision,
        'false_alarm_rate': f'{options.false_alarm_rate!r}',
    }
    pairs = [word for key, value in values.items() for word in ('-p', f'{key}:={value}')]
    return ['--ros-args', '-r', f'image:={_TOPIC}', *pairs]


def _sustained_rate(seconds: float) -> float:
    """Return a frame rate that this machine should keep up with, frames per second."""
    return float(np.clip(1.0 / (_LOAD * seconds + _OWN_SECONDS), _LEAST_RATE, _MOST_RATE))


def _wait_until_ready(collector: Collector, node: Child, seconds: float) -> None:
    """Return when the node is active and its outputs are discovered; errors say what is wrong."""

    def ready() -> bool:
        node.check()
        if collector.failure:
            raise EngineError(f'the node could not start: {collector.failure}')
        return collector.engine_state == 'ready' and 'camera' in collector.statuses

    if not collector.spin(seconds, lambda: ready() and collector.heard()):
        raise EngineError(
            f'the node was not ready after {seconds:g} s (--timeout raises this); its log says:\n'
            f'{node.tail()}'
        )


def _publish(
    collector: Collector, node: Child, images: Sequence[Image], rate: float, seconds: float
) -> list[int]:
    """Publish every image, stamped when it goes; return the stamps once all came back or went."""
    wait_for_subscribers(collector, [collector.camera], seconds)
    stamps, begin = list[int](), time.monotonic()
    for number, image in enumerate(images):
        collector.spin(begin + number / rate - time.monotonic())
        node.check()
        if time.monotonic() > begin + seconds:
            raise EngineError(f'the frames were not published within {seconds:g} s (--timeout)')
        stamps.append(collector.send(image.image))
    flush([collector.camera])
    collector.spin(seconds / 4, lambda: _drained(collector, stamps))
    return stamps


def _drained(collector: Collector, stamps: Sequence[int]) -> bool:
    """Whether every frame came back, or was dropped and the last one came back."""
    done = collector.complete()
    waiting = len(stamps) - len(done) - collector.counters().get('dropped', 0)
    return bool(stamps) and waiting <= 0 and done[-1:] == [stamps[-1]]


def _all_counted(collector: Collector, sent: int) -> bool:
    """Whether the newest diagnostics count every frame that was sent."""
    counters = collector.counters()
    parts = ('processed', 'dropped', 'bad', 'failed', 'skipped')
    return sum(counters.get(name, 0) for name in parts) >= sent


def _results(
    collector: Collector, stamps: Sequence[int], images: Sequence[Image], spec: InputSpec
) -> list[FrameResult]:
    """Return what came back, frame by frame, held against what is known."""
    place = {stamp: index for index, stamp in enumerate(stamps)}
    return [
        _result(collector, stamp, images[place[stamp]], spec)
        for stamp in collector.complete()
        if stamp in place
    ]


def _result(collector: Collector, stamp: int, image: Image, spec: InputSpec) -> FrameResult:
    parts = collector.results[stamp]
    _check_score(image.name, parts['score'], parts['surprisal'])
    (geometry,) = spec.geometries(image.image.shape[:2], views=False)
    patch = spec.patch / geometry.scale_x
    return FrameResult(
        name=image.name,
        image=image.image,
        overlay=parts['overlay'],
        surprisal=parts['surprisal'],
        mask=parts['mask'],
        latency_ms=(collector.arrived[stamp] - stamp) / 1e6,
        obstacles=parts['obstacle_markers'],
        check=None if image.truth is None else check_frame(parts['mask'], image.truth, patch),
    )


def _check_score(name: str, score: Any, surprisal: Any) -> None:
    """Raise EngineError unless score = 1 - 10^-surprisal, with NaN in the same places."""
    expected = 1.0 - np.power(10.0, -surprisal.astype(np.float64))
    if not np.allclose(score, expected, atol=1e-5, equal_nan=True):
        raise EngineError(f'{name}: the published score is not 1 - 10^-surprisal')


def _figures(
    collector: Collector, speed: Speed, sent: int, options: argparse.Namespace
) -> dict[str, Any]:
    """Return the node's own figures."""
    times = collector.statuses.get('processing time', {})
    table = {'own_ms': 'node, own time', 'inference_ms': 'node, engine'}
    node_ms = {
        title: f'{times[f"{stage} median"]} ms median, {times[f"{stage} p95"]} ms at the 95th '
        'percentile'
        for stage, title in table.items()
        if f'{stage} median' in times
    }
    facts = {
        'bundle': str(options.bundle),
        'engine': ', '.join(f'{k} {v}' for k, v in speed.description.items() if v),
        'engine alone': f'{1000 * speed.seconds:.0f} ms a frame, built in {speed.built:.1f} s',
    }
    return {
        'facts': facts,
        'counters': collector.counters(),
        'sent': sent,
        'node_ms': node_ms,
        'target': options.false_alarm_rate,
    }
