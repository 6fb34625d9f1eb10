# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What the node says of itself on /diagnostics: per camera, the time spent, the engine."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from ood_perception.postprocess.drift import CalibrationHealth
from ood_perception.ros.frame_queue import CameraReport, Counters
from ood_perception.ros.timing import STAGES, StageSummary

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


@dataclass(frozen=True)
class InputStatus:
    """
    How a camera's topic looks from here.

    publishers: number of publishers seen. offered: their QoS in words. requested: ours.
    transport: how this process was told to transport images. timeout: seconds without a frame
    that are too many. state: the lifecycle state's label. enabled: by ~/enable.
    subscribed: whether anyone subscribes to an output.
    """

    topic: str
    publishers: int
    offered: str
    requested: str
    transport: str
    timeout: float
    state: str
    enabled: bool
    subscribed: bool


@dataclass(frozen=True)
class EngineStatus:
    """
    The engine's state: 'unconfigured', 'compiling', 'ready' or 'failed'; and what to show.

    message: what is going on or what went wrong, '' when nothing needs saying.
    values: runtime, precision, bundle and so on, in the order in which they are shown.
    """

    state: str = 'unconfigured'
    message: str = ''
    values: Mapping[str, str] = field(default_factory=dict)


def camera_level(report: CameraReport, recent: Counters, seen: InputStatus) -> tuple[bytes, str]:
    """Return level and message, the most specific cause first."""
    silent = report.idle is None or report.idle > seen.timeout
    if recent.failed:
        return ERROR, f'{recent.failed} frames failed: {report.last_error}'
    if recent.bad:
        level = WARN if recent.processed else ERROR
        return level, f'{recent.bad} of {recent.callbacks} frames rejected: {report.last_error}'
    if recent.dropped and report.capacity > 1:
        # With a queue every frame counts; without one a busy node drops by design.
        return WARN, f'{recent.dropped} frames dropped: the queue of {report.capacity} is full'
    if seen.publishers and silent:
        return WARN, _silence(seen)
    if silent:
        return WARN, f'waiting: nobody publishes {seen.topic}'
    if seen.state != 'active':
        return OK, f'{seen.state}: frames arrive and are not used'
    if not seen.enabled:
        return OK, 'disabled by ~/enable'
    return OK, 'ok' if seen.subscribed else 'ok: nobody subscribes, so nothing is computed'


def _silence(seen: InputStatus) -> str:
    return (
        f'publisher seen, no frame arriving on {seen.topic}: offered {seen.offered}; '
        f'requested {seen.requested}; our transport: {seen.transport}. Large images '
        "need the DDS profile large_images in the publisher's process, or a reliable publisher"
    )


def camera_status(node: str, report: CameraReport, recent: Counters, seen: InputStatus) -> Any:
    """Return the status '<node>: camera <name>'."""
    level, message = camera_level(report, recent, seen)
    latency = 'n/a' if report.latency_ms is None else f'{report.latency_ms:.1f}'
    values = {
        **{key: str(value) for key, value in dataclasses.asdict(report.counters).items()},
        'waiting': f'{report.waiting} of {report.capacity}',
        'input_rate_hz': f'{report.input_rate:.2f}',
        'output_rate_hz': f'{report.output_rate:.2f}',
        'latency_ms': latency,
        'seconds_since_frame': 'never' if report.idle is None else f'{report.idle:.1f}',
        'topic': seen.topic,
        'publishers': str(seen.publishers),
        'offered_qos': seen.offered,
        'requested_reliability': seen.requested,
        'transport': seen.transport,
        'last_error': report.last_error,
    }
    return _status(node, f'camera {report.name}'.rstrip(), level, message, values)


def timing_status(node: str, summary: Mapping[str, StageSummary]) -> Any:
    """Return the status '<node>: processing time'; 'n/a' before the first frame."""
    values = {}
    for stage in STAGES:
        one = summary.get(stage)
        values[f'{stage} median'] = f'{one.median:.2f}' if one else 'n/a'
        values[f'{stage} p95'] = f'{one.p95:.2f}' if one else 'n/a'
        values[f'{stage} last'] = f'{one.last:.2f}' if one else 'n/a'
    own = summary.get('own_ms')
    message = 'no frame processed yet'
    if own:
        message = f'own {own.median:.1f} ms, engine {summary["inference_ms"].median:.1f} ms'
    return _status(node, 'processing time', OK, message, values)


@dataclass(frozen=True)
class RangeReport:
    """
    What is to be reported of one camera's bearings and distances.

    error: why there are no bearings, '' where there are. warning: why there are no distances.
    values: to show.
    """

    error: str = ''
    warning: str = ''
    values: Mapping[str, str] = field(default_factory=dict)


def range_status(node: str, camera: str, report: RangeReport) -> Any:
    """Return the status '<node>: places <camera>': bearings and distances."""
    level, message = OK, 'bearings and distances'
    if report.warning:
        level, message = WARN, report.warning
    if report.error:
        level, message = ERROR, f'no bearings: {report.error}'
    return _status(node, f'places {camera}'.rstrip(), level, message, report.values)


def calibration_status(node: str, camera: str, health: CalibrationHealth) -> Any:
    """Return the status '<node>: calibration <camera>': whether what it shows fits."""
    level = WARN if health.warning else OK
    message = health.warning or ('fits so far' if health.values else 'no frame yet')
    return _status(node, f'calibration {camera}'.rstrip(), level, message, health.values)


def engine_status(node: str, engine: EngineStatus) -> Any:
    """Return the status '<node>: engine'."""
    levels = {'failed': ERROR, 'compiling': WARN, 'unconfigured': OK, 'ready': OK}
    level = levels[engine.state]
    if engine.state == 'ready' and engine.message:
        level = WARN
    message = ': '.join(filter(None, (engine.state, engine.message)))
    return _status(node, 'engine', level, message, {'state': engine.state, **engine.values})


def diagnostic_array(stamp: Any, statuses: Sequence[Any]) -> Any:
    """Return a DiagnosticArray."""
    message = DiagnosticArray(status=list(statuses))
    message.header.stamp = stamp
    return message


def _status(node: str, name: str, level: bytes, message: str, values: Mapping[str, str]) -> Any:
    pairs = [KeyValue(key=key, value=value) for key, value in values.items()]
    return DiagnosticStatus(
        level=level, name=f'{node}: {name}', message=message, hardware_id=node, values=pairs
    )
