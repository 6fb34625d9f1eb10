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
    subscribed: whether anyone subscribes to an output. listening: seconds since we subscribed to
    the topic, None: we do not. mismatch: what is wrong with what is published, '' = nothing.
    minimum_rate: processed frames per second that are too few, where more arrive. problem: what
    keeps frames from being finished, '' = nothing.
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
    listening: float | None = None
    mismatch: str = ''
    minimum_rate: float = 0.0
    problem: str = ''


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
    if seen.problem:
        return ERROR, seen.problem
    if recent.failed:
        return ERROR, f'{recent.failed} frames failed: {report.last_error}'
    if recent.bad:
        level = WARN if recent.processed else ERROR
        return level, f'{recent.bad} of {recent.callbacks} frames rejected: {report.last_error}'
    if recent.dropped and report.capacity > 1:
        # With a queue every frame counts; without one a busy node drops by design.
        return WARN, f'{recent.dropped} frames dropped: the queue of {report.capacity} is full'
    if trouble := _silence(report, seen):
        return WARN, trouble
    if seen.state != 'active':
        return OK, f'{seen.state}: {_unused(seen)}'
    if not seen.enabled:
        return OK, f'disabled by ~/enable: {_unused(seen)}'
    if not seen.subscribed:
        return OK, f'ok: nobody subscribes to an output, so {_unused(seen)}'
    if report.idle is None:
        return OK, 'subscribed, waiting for the first frame'
    if _too_slow(report, seen):
        return WARN, (
            f'slow: {report.output_rate:.2f} of {report.input_rate:.1f} frames a second are '
            f'processed (minimum_rate {seen.minimum_rate:g}): see processing time, and '
            'docs/engines.md for a faster engine or precision'
        )
    return OK, 'ok'


def _unused(seen: InputStatus) -> str:
    return 'the camera is not subscribed' if seen.listening is None else 'nothing is computed'


def _too_slow(report: CameraReport, seen: InputStatus) -> bool:
    """Whether frames come out too rarely, though they come in; two tell of a rate."""
    rate = report.output_rate
    return 0.0 < rate < min(seen.minimum_rate, 0.5 * report.input_rate)


def _silence(report: CameraReport, seen: InputStatus) -> str:
    """Return why no frame arrives, '' where they do or need not."""
    heard, idle = seen.listening, report.idle
    if heard is None:  # discovery alone can tell
        return '' if seen.publishers and not seen.mismatch else _nobody(seen)
    delivered = idle is not None and idle < heard  # since we listen
    waited = idle if idle is not None and delivered else heard
    if waited <= seen.timeout and not (seen.mismatch and not delivered):
        return ''
    if seen.mismatch:
        return seen.mismatch
    if delivered and seen.publishers:
        return (
            f'the camera has gone silent: the last frame came {idle:.1f} s ago, its publisher is '
            f'still there ({seen.offered}): look at the driver'
        )
    if delivered:
        return (
            f'the camera is gone: the last frame came {idle:.1f} s ago, and nobody publishes '
            f'{seen.topic} any more'
        )
    if not seen.publishers:
        return _nobody(seen)
    return (
        f'publisher seen, no frame arriving on {seen.topic}: offered {seen.offered}; '
        f'requested {seen.requested}; our transport: {seen.transport}. Large images '
        "need the DDS profile large_images in the publisher's process, or a reliable publisher"
    )


def _nobody(seen: InputStatus) -> str:
    return seen.mismatch or f'waiting: nobody publishes {seen.topic}'


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
        'subscribed': 'no' if seen.listening is None else 'yes',
        'publishers': str(seen.publishers),
        'offered_qos': seen.offered,
        'requested_reliability': seen.requested,
        'transport': seen.transport,
        'last_error': report.last_error,
    }
    return _status(node, f'camera {report.name}'.rstrip(), level, message, values, seen.topic)


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


def outputs_status(node: str, subscribed: Sequence[str], missing: str) -> Any:
    """Return the status '<node>: outputs'; missing: why some topics are absent, '' = none is."""
    message = missing or (f'{len(subscribed)} subscribed' if subscribed else 'nobody subscribes')
    values = {'subscribed': ', '.join(subscribed), 'missing': missing}
    return _status(node, 'outputs', WARN if missing else OK, message, values)


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
    values = {'state': engine.state, **engine.values}
    return _status(node, 'engine', level, message, values, engine.values.get('device', ''))


def diagnostic_array(stamp: Any, statuses: Sequence[Any]) -> Any:
    """Return a DiagnosticArray."""
    message = DiagnosticArray(status=list(statuses))
    message.header.stamp = stamp
    return message


def _status(
    node: str,
    name: str,
    level: bytes,
    message: str,
    values: Mapping[str, str],
    hardware: str = '',
) -> Any:
    """
    Return a status; hardware: what it is of, the camera's topic or the engine's device.

    Viewers show 'hardware: name', and the node is in the name.
    """
    pairs = [KeyValue(key=key, value=value) for key, value in values.items()]
    return DiagnosticStatus(
        level=level, name=f'{node}: {name}', message=message, hardware_id=hardware, values=pairs
    )
