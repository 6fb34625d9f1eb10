# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Benchmark of the node in a real graph: a camera process and the node, both with the DDS profile.

Run `python -m ood_perception.ros.tools.bench_node --bundle <bundle> --out bench_node.json`.
For reliable and best-effort publishers, with the mask alone and with score, confidence and
obstacles as well, it checks that headers are identical and that every frame is accounted for, and
measures the node's own time (decode, preprocess, postprocess, fill, publish: neither slot wait nor
engine).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ood_perception.bench.cases import camera_size
from ood_perception.bench.machine import machine
from ood_perception.bench.peak import best_of_all_cores
from ood_perception.bundle.store import load_bundle
from ood_perception.errors import OodPerceptionError, exit_status
from ood_perception.files import check_file
from ood_perception.json_files import write_json
from ood_perception.ros import dds

OUTPUT_SETS = (('mask',), ('mask', 'score', 'confidence', 'obstacle_markers'))
# The node's own time, median, in milliseconds.
TARGET_MASK_MS, TARGET_ALL_MS = 15.0, 30.0
# Of a core, without a camera or a listener.
MOST_IDLE = 0.03
_STOP_SECONDS = 20


@dataclass(frozen=True)
class Case:
    """
    One measurement: publisher's reliability, subscribed outputs, frames at a rate in hertz.

    silent: the camera is there and sends nothing for as long as the frames would take.
    """

    reliability: str
    outputs: tuple[str, ...]
    frames: int
    rate: float
    width: int
    height: int
    image: str = ''
    silent: bool = False
    # Nobody else's node of the same name is taken for ours.
    namespace: str = f'bench_{os.getpid()}'

    @property
    def idle(self) -> bool:
        """Whether the node has nothing to do."""
        return self.silent or not self.outputs


def run_case(
    case: Case,
    node_parameters: dict[str, str],
    domain: int,
    started: Callable[[int], object] = lambda pid: None,
) -> dict[str, Any]:
    """
    Run node and camera in two processes with the shipped profile; return what they counted.

    started: called with the node's process id.
    """
    environment = {
        **os.environ,
        **dds.environment(dds.LARGE_IMAGES),
        'ROS_DOMAIN_ID': str(domain),
    }
    arguments = [f'{name}:={value}' for name, value in node_parameters.items() if value]
    options = ['-r', f'__ns:=/{case.namespace}']
    options += [word for argument in arguments for word in ('-p', argument)]
    node = subprocess.Popen(
        [sys.executable, '-m', 'ood_perception.ros.node', '--ros-args', *options], env=environment
    )
    started(node.pid)
    try:
        camera = subprocess.run(
            [
                sys.executable,
                '-m',
                'ood_perception.ros.tools.bench_camera',
                json.dumps({**asdict(case), 'node': node.pid}),
            ],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            timeout=case.frames / case.rate + 180,
            check=False,
        )
    finally:
        node.terminate()
        node.wait(_STOP_SECONDS)
    if camera.returncode:
        raise OodPerceptionError(
            f'the camera process ended with {camera.returncode}, its message is above: is the '
            'bundle complete, and /dev/shm larger than 128 MB?'
        )
    counted: dict[str, Any] = json.loads(camera.stdout.splitlines()[-1])
    return {**asdict(case), **counted, 'verdict': verdict(case, counted)}


def verdict(case: Case, counted: dict[str, Any]) -> dict[str, bool]:
    """Return which of the bounds were kept."""
    if case.idle:
        return {'idle': counted['cores']['node'] <= MOST_IDLE}
    counters = counted['counters']
    own = counted['times_ms']['own_ms']['median']
    return {
        'headers_identical': counted['foreign_headers'] == 0 and counted['received']['mask'] > 0,
        'every_frame_arrived': counters['callbacks'] == counted['sent'],
        'every_frame_accounted_for': counters['processed'] + counters['dropped']
        == counters['callbacks'],
        'own_time': own <= (TARGET_MASK_MS if case.outputs == ('mask',) else TARGET_ALL_MS),
    }


def hertz(counted: dict[str, Any]) -> float:
    """Return how many frames a second the node's thread can take: of the medians of its stages."""
    times = counted['times_ms']
    return 1e3 / float(times['own_ms']['median'] + times['inference_ms']['median'])


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[1])
    add = parser.add_argument
    add('--bundle', default='', help="a bundle; default: the package's own")
    add('--engine', default='', help='openvino, onnxruntime')
    add('--precision', default='', help='f32, bf16')
    add('--weights', default='', help='origin of the backbone weights')
    add('--image', default='', help='an image to publish; default: made up')
    add('--no-views', action='store_true', help='the whole image alone, where a bundle sees more')
    add('--mask', action='store_true', help='the mask alone, from a reliable publisher')
    add('--idle', action='store_true', help='CPU time without a listener, then without a frame')
    add('--peak', action='store_true', help="measure the machine's best rate of products, too")
    add('--frames', type=int, default=100)
    add('--rate', type=float, default=10.0, help='hertz')
    add('--size', default='1920x1080', help='of the camera image')
    add('--out', type=Path, help='JSON file to write')
    return parser.parse_args(argv)


def _cases(options: argparse.Namespace) -> list[Case]:
    height, width = camera_size(options.size, '--size')
    if options.idle:
        lonely = Case('reliable', (), options.frames, options.rate, width, height)
        return [lonely, replace(lonely, outputs=('mask',), silent=True)]
    return [
        Case(kind, outputs, options.frames, options.rate, width, height, options.image)
        for kind in (('reliable',) if options.mask else ('reliable', 'best_effort'))
        for outputs in (OUTPUT_SETS[:1] if options.mask else OUTPUT_SETS)
    ]


def _line(result: dict[str, Any]) -> str:
    times, counters = result['times_ms'], result['counters']
    kept = [name for name, good in result['verdict'].items() if not good]
    node, camera = result['cores']['node'], result['cores']['camera']
    if 'idle' in result['verdict']:
        why = 'no frame' if result['silent'] else f'nobody listens at {result["rate"]:g} Hz'
        return f'{why}: {100 * node:.1f} % of a core' + (', too much' if kept else '')
    return (
        f'{result["reliability"]:>11}, {len(result["outputs"])} outputs: sent {result["sent"]}, '
        f'callbacks {counters["callbacks"]}, processed {counters["processed"]}, '
        f'dropped {counters["dropped"]}, own {times["own_ms"]["median"]:.1f} ms median, '
        f'engine {times["inference_ms"]["median"]:.0f} ms for {result["images_a_frame"]} images '
        f'a frame: {result["hertz"]:.1f} Hz; cores: node {node:.2f}, camera {camera:.2f}; '
        + ('all bounds kept' if not kept else f'NOT kept: {", ".join(kept)}')
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return 0 when every bound was kept."""
    options = _parse(argv)
    return exit_status('bench_node', lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    check_file(options.out, '--out')
    names = ('bundle', 'engine', 'precision', 'weights')
    parameters = {name: getattr(options, name) for name in names}
    parameters['views'] = 'false' if options.no_views else ''
    results: list[dict[str, Any]] = []
    # A domain of its own for each case, away from 0 and from what other tools choose.
    first_domain = 60 + os.getpid() % 30
    seen = load_bundle(options.bundle).manifest.input.images
    for number, case in enumerate(_cases(options)):
        try:
            measured = run_case(case, parameters, first_domain + number)
        except subprocess.TimeoutExpired as error:
            raise OodPerceptionError(f'the camera process did not end: {error}') from error
        if not case.idle:
            images = 1 if options.no_views else seen
            measured |= {'images_a_frame': images, 'hertz': hertz(measured)}
        results.append(measured)
        print(_line(results[-1]), flush=True)
    if options.out:
        own = {'int8': 'i8'}.get(options.precision, options.precision)
        kinds = dict.fromkeys(('f32', own or 'f32'))
        peak = best_of_all_cores(list(kinds)) if options.peak else {}
        limit = {'onednn_max_cpu_isa': os.environ.get('ONEDNN_MAX_CPU_ISA', '')}
        facts = {**machine(), **limit}
        values = {'machine': facts, 'peak_gflops': peak, 'cases': results}
        write_json(options.out, values, indent=2)
        print(f'written: {options.out}')
    return 0 if all(all(r['verdict'].values()) for r in results) else 1


if __name__ == '__main__':
    sys.exit(main())
