# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
`make demo`: pictures through a camera process, DDS and the real node, to a page and a verdict.

Exit status 0 when the object was found and the promised rate held, 1 with the reason otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from ood_perception.bundle.completion import complete
from ood_perception.bundle.store import Bundle, default_bundle_path, load_bundle
from ood_perception.demo.report import FrameResult, Run, write_page
from ood_perception.demo.sources import Picture, Source, open_source
from ood_perception.demo.verdict import check_frame, judge
from ood_perception.engines import create_engine
from ood_perception.engines.base import EngineOptions
from ood_perception.errors import (
    ConfigError,
    DataError,
    DependencyError,
    EngineError,
    OodPerceptionError,
)
from ood_perception.geometry import geometry_for, to_network
from ood_perception.ros.demo_processes import Child, graph_environment

if TYPE_CHECKING:
    from ood_perception.ros.demo_collector import Collector

_TOPIC = '/demo/camera/image'
_MOST_RATE, _LEAST_RATE = 4.0, 0.2
# The node also decodes, publishes four full-size maps and shares the machine with us.
_LOAD, _OWN_SECONDS = 2.0, 0.15
_STAGES = 6


@dataclass(frozen=True)
class Speed:
    """
    What the engine test showed.

    description: runtime, version, precision. seconds: one frame. built: seconds to build.
    """

    description: dict[str, str]
    seconds: float
    built: float


def run(options: argparse.Namespace) -> int:
    """Run the demo; return the exit code. OodPerceptionError says what cannot be done."""
    begin = time.monotonic()
    os.environ.update(graph_environment())
    _check_ros()
    out = _made_folder(options.out)
    source = open_source(options.input, options.frames)
    _say(1, f'pictures: {source.description}')
    with tempfile.TemporaryDirectory(prefix='ood_demo_') as scratch:
        staged = _stage(source, Path(scratch))
        _say(2, f'bundle {options.bundle}: completing the backbone weights where they are missing')
        bundle = complete(load_bundle(options.bundle))
        _say(3, 'building the engine and comparing it with the golden vectors')
        speed = _try_engine(bundle, options, staged[0])
        frames, facts = _through_the_node(options, bundle, speed, staged, Path(scratch), out)
    return _finish(out, source, bundle, frames, facts, begin)


def _say(stage: int, text: str) -> None:
    print(f'[{stage}/{_STAGES}] {text}', flush=True)


def _check_ros() -> None:
    """Raise DependencyError where a part of ROS 2 is missing."""
    try:
        import diagnostic_msgs.msg
        import rclpy
        import sensor_msgs.msg
        import visualization_msgs.msg

        del rclpy, sensor_msgs, diagnostic_msgs, visualization_msgs
    except ImportError as error:
        raise DependencyError(
            f"the demo needs ROS 2 ({error}): pip install 'ood_perception[ros]', or source "
            '/opt/ros/<distribution>/setup.bash'
        ) from error


def _made_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f'--out {folder} cannot be made: {error}') from error
    for old in (*folder.glob('*_*.jpg'), folder / 'index.html'):
        old.unlink(missing_ok=True)
    return folder.resolve()


def _stage(source: Source, scratch: Path) -> list[Picture]:
    """Write every picture without loss where the camera process finds it; return them all."""
    folder = scratch / 'pictures'
    folder.mkdir()
    staged: list[Picture] = []
    for picture in source.pictures():
        path = folder / f'{len(staged):04d}.png'
        if not cv2.imwrite(str(path), picture.image[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1]):
            raise DataError(f'{path} cannot be written: is the disk full?')
        staged.append(picture)
        if sys.stdout.isatty() or len(staged) % 8 == 0:
            print(f'      {len(staged)} pictures ready', flush=True)
    if not staged:
        raise DataError(f'{source.description}: no picture in there')
    return staged


def _try_engine(bundle: Bundle, options: argparse.Namespace, picture: Picture) -> Speed:
    """Build the engine as the node will, and time it on a picture."""
    begin = time.monotonic()
    spec = bundle.manifest.input
    with create_engine(
        bundle, EngineOptions(runtime=options.engine, precision=options.precision)
    ) as engine:
        built = time.monotonic() - begin
        geometry = geometry_for(
            camera_size=picture.image.shape[:2],
            input_size=(spec.height, spec.width),
            policy=spec.policy,
            anchor=spec.anchor,
        )
        batch = to_network(picture.image, geometry)[None]
        vector = np.ones(len(engine.compiled_classes), np.float32)
        times = []
        for _ in range(3):
            begin = time.monotonic()
            engine.run(batch, vector)
            times.append(time.monotonic() - begin)
        speed = Speed(dict(engine.description), min(times), built)
    print(f'      built in {built:.1f} s, {1000 * speed.seconds:.0f} ms a frame', flush=True)
    return speed


def _through_the_node(
    options: argparse.Namespace,
    bundle: Bundle,
    speed: Speed,
    staged: list[Picture],
    scratch: Path,
    out: Path,
) -> tuple[list[FrameResult], dict[str, Any]]:
    """Start node and camera, collect; return the frames' results and the figures for the page."""
    import rclpy

    from ood_perception.ros.demo_collector import Collector

    _say(4, f'starting road_anomaly_node (log: {out / "node.log"})')
    rclpy.init(args=[])
    try:
        collector = Collector()
        with Child('ood_perception.ros.node', _node_arguments(options), out / 'node.log') as node:
            _wait_until_ready(collector, node, options.timeout)
            rate = options.rate or _sustained_rate(speed.seconds)
            _say(5, f'publishing {len(staged)} frames at {rate:.2g} Hz from a second process')
            stamps = _publish(collector, node, scratch, out, rate, options.timeout)
            collector.spin(2.5, lambda: _all_counted(collector, len(stamps)))
    finally:
        rclpy.try_shutdown()
    results = _results(collector, stamps, staged, bundle)
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
        engine = collector.statuses.get('engine', {})
        if engine.get('state') == 'failed':
            raise EngineError(f'the node could not start: {collector.messages["engine"]}')
        return engine.get('state') == 'ready' and 'camera' in collector.statuses

    if not collector.spin(seconds, lambda: ready() and collector.heard()):
        raise EngineError(
            f'the node was not ready after {seconds:g} s (--timeout raises this); its log says:\n'
            f'{node.tail()}'
        )


def _publish(
    collector: Collector, node: Child, scratch: Path, out: Path, rate: float, seconds: float
) -> list[int]:
    """Run the camera process to its end; return the frames' stamps, in order."""
    arguments = [
        str(scratch / 'pictures'), '--rate', f'{rate}', '--ros-args', '-r', f'image:={_TOPIC}'
    ]  # fmt: skip
    log = scratch / 'camera.log'
    with Child('ood_perception.ros.camera_publisher', arguments, log) as camera:

        def ended() -> bool:
            node.check()
            camera.check()
            return camera.exit_code is not None

        if not collector.spin(seconds, ended):
            raise EngineError(f'the camera process did not end within {seconds:g} s')
    lines = log.read_text(encoding='utf-8').splitlines()
    stamps = [json.loads(line)['stamp_ns'] for line in lines if line.startswith('{')]
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
    collector: Collector, stamps: Sequence[int], staged: Sequence[Picture], bundle: Bundle
) -> list[FrameResult]:
    """Return what came back, frame by frame, held against what is known."""
    place = {stamp: index for index, stamp in enumerate(stamps)}
    return [
        _result(collector, stamp, staged[place[stamp]], bundle)
        for stamp in collector.complete()
        if stamp in place
    ]


def _result(collector: Collector, stamp: int, picture: Picture, bundle: Bundle) -> FrameResult:
    parts = collector.results[stamp]
    _check_score(picture.name, parts['score'], parts['surprisal'])
    spec = bundle.manifest.input
    geometry = geometry_for(
        camera_size=picture.image.shape[:2],
        input_size=(spec.height, spec.width),
        policy=spec.policy,
        anchor=spec.anchor,
    )
    patch = spec.patch / geometry.scale_x
    return FrameResult(
        name=picture.name,
        image=picture.image,
        overlay=parts['overlay'],
        surprisal=parts['surprisal'],
        mask=parts['mask'],
        latency_ms=(collector.arrived[stamp] - stamp) / 1e6,
        obstacles=parts['obstacle_markers'],
        check=check_frame(parts['mask'], picture.truth, patch) if picture.truth else None,
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
        'promised': options.false_alarm_rate,
    }


def _finish(
    out: Path,
    source: Source,
    bundle: Bundle,
    frames: list[FrameResult],
    figures: dict[str, Any],
    begin: float,
) -> int:
    """Write the page, print the verdict; return the exit code."""
    promised = figures.pop('promised')
    verdict = judge([f.check for f in frames if f.check], promised)
    page = write_page(
        out,
        frames,
        Run(
            source=source.description,
            rendered=source.rendered,
            verdict=verdict,
            licences=bundle.manifest.licences,
            **figures,
        ),
    )
    counters = figures['counters']
    _say(6, f'{len(frames)} of {figures["sent"]} frames came back, '
            f'{counters.get("dropped", 0)} dropped for a newer one')  # fmt: skip
    if verdict.checked:
        print(
            f'      object found {verdict.found} of {verdict.counted} times; '
            f'{verdict.share:.2%} of the rest of the road flagged, promised {promised:.2%}'
        )
    print(f'      overlays: {out}/*_overlay.jpg\n      page:     {page}')
    print(f'      took {time.monotonic() - begin:.0f} s')
    if verdict.passed:
        print('demo passed' if verdict.checked else 'demo ran (nothing to check these against)')
        return 0
    print('demo FAILED: ' + '; '.join(verdict.reasons), file=sys.stderr)
    return 1


def arguments() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        prog='demo', description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('--input', default='', help='folder, video, ROS 2 bag, camera device, or "rendered"; '
        'empty: labelled road pictures where found (OOD_DATA), else rendered ones')  # fmt: skip
    add('--out', type=Path, default=Path('out/demo'), help='folder for the page')
    add('--bundle', default=str(default_bundle_path()), help='bundle folder or .zip')
    add('--engine', default='auto', help='auto, openvino, onnxruntime')
    add('--precision', default='auto', help='auto, f32, bf16')
    add('--false-alarm-rate', type=float, default=0.01, help='the promised rate')
    add('--frames', type=int, default=24, help='at most this many pictures')
    add('--rate', type=float, default=0.0, help='pictures per second, 0: what the engine keeps')
    add('--timeout', type=float, default=150.0, help='seconds for the node to start, and to run')
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code. A user's mistake is one plain message."""
    options = arguments().parse_args(argv)
    try:
        if options.frames < 1 or options.rate < 0 or options.timeout <= 0:
            raise ConfigError('--frames needs 1 or more, --rate 0 or more, --timeout above 0')
        return run(options)
    except OodPerceptionError as error:
        print(f'demo FAILED: {error}', file=sys.stderr)
    except KeyboardInterrupt:
        print('demo stopped', file=sys.stderr)
    return 1


if __name__ == '__main__':
    sys.exit(main())
