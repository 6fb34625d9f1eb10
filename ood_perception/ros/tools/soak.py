# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
The node under more frames than its engine can take, for minutes: memory and accounting as JSON.

Run `python -m ood_perception.ros.tools.soak --minutes 10 --overload 10`. The frames' rate is
measured first: `overload` times what the engine finishes. Exit status 0: every frame that arrived
is accounted for, every header came back as it was sent, and memory does not grow.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ood_perception.bench.cases import camera_size
from ood_perception.errors import ConfigError, exit_status
from ood_perception.files import check_file
from ood_perception.json_files import json_text, write_json
from ood_perception.ros.tools.bench_node import Case, run_case

_PERIOD = 2.0
_WARM_UP_FRAMES = 20
# What a process of this size may gain by chance between the second third of a run and the last.
MOST_GROWTH_MIB = 20.0
OUTPUTS = ('mask', 'score', 'overlay', 'obstacle_markers')


class Memory:
    """Samples resident memory, open files and threads of a process until it ends."""

    def __init__(self) -> None:
        self.samples: list[tuple[float, int, int]] = []

    def watch(self, pid: int) -> None:
        """Begin, on a thread of its own."""
        self.samples.clear()
        threading.Thread(target=self._watch, args=(Path(f'/proc/{pid}'),), daemon=True).start()

    def _watch(self, process: Path) -> None:
        pause = threading.Event()
        while not pause.wait(_PERIOD):
            try:
                status = (process / 'status').read_text()
                files = len(os.listdir(process / 'fd'))
            except OSError:  # it has ended
                return
            fields = dict(line.split(':', 1) for line in status.splitlines())
            if 'VmRSS' not in fields:  # it is ending
                return
            self.samples.append(
                (int(fields['VmRSS'].split()[0]) / 1024, files, int(fields['Threads']))
            )

    def summary(self) -> dict[str, Any]:
        """Return most MiB, files and threads of the second third and of the last one."""
        third = len(self.samples) // 3
        if not third:
            raise ConfigError(f'{len(self.samples)} samples of memory: give more --minutes')
        middle, last = self.samples[third : 2 * third], self.samples[2 * third :]
        names = ('mib', 'files', 'threads')
        return {
            'samples': len(self.samples),
            'middle': dict(zip(names, map(max, zip(*middle, strict=True)), strict=True)),
            'last': dict(zip(names, map(max, zip(*last, strict=True)), strict=True)),
        }


def verdict(result: dict[str, Any]) -> dict[str, bool]:
    """Return which demands a soak has met."""
    counters, memory = result['counters'], result['memory']
    ended = ('processed', 'dropped', 'bad', 'failed', 'skipped')
    grown = memory['last']['mib'] - memory['middle']['mib']
    return {
        'overloaded': counters['dropped'] > counters['processed'] > 0,
        'every_frame_accounted_for': counters['callbacks'] == sum(counters[n] for n in ended),
        'nothing_failed': counters['bad'] + counters['failed'] == 0,
        'headers_identical': result['foreign_headers'] == 0,
        # fewer where the listener is slower than the node
        'results_arrive': 0 < result['received']['mask'] <= counters['processed'],
        'memory_flat': grown <= MOST_GROWTH_MIB,
        'no_file_or_thread_left_open': memory['last']['files'] <= memory['middle']['files']
        and memory['last']['threads'] <= memory['middle']['threads'],
    }


def soak(minutes: float, overload: float, parameters: dict[str, str], size: str) -> dict[str, Any]:
    """Return what was counted; the engine's rate is measured by a short run before."""
    height, width = camera_size(size, '--size')
    domain = 60 + os.getpid() % 30
    case = Case('reliable', OUTPUTS, _WARM_UP_FRAMES, 1.0, width, height)
    times = run_case(case, parameters, domain)['times_ms']
    seconds = (times['inference_ms']['median'] + times['own_ms']['median']) / 1e3
    rate, memory = overload / seconds, Memory()
    case = replace(case, frames=max(1, round(60 * minutes * rate)), rate=rate)
    counted = run_case(case, parameters, domain + 1, memory.watch)
    result = {**counted, 'overload': overload, 'minutes': minutes, 'memory': memory.summary()}
    return {**result, 'verdict': verdict(result)}


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser('soak', description=__doc__)
    add = parser.add_argument
    add('--minutes', type=float, default=10.0)
    add('--overload', type=float, default=10.0, help='times what the engine takes')
    add('--bundle', default='', help="a bundle; default: the package's own")
    add('--engine', default='', help='openvino, onnxruntime')
    add('--precision', default='', help='f32, bf16')
    add('--size', default='640x480', help='of the camera image')
    add('--out', type=Path, help='JSON file to write, too')
    options = parser.parse_args(argv)
    return exit_status('soak', lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    check_file(options.out, '--out')
    if options.minutes <= 0 or options.overload <= 0:
        raise ConfigError('--minutes and --overload: give more than 0')
    names = ('bundle', 'engine', 'precision')
    parameters = {name: getattr(options, name) for name in names}
    result = soak(options.minutes, options.overload, parameters, options.size)
    print(json_text(result))
    if options.out:
        write_json(options.out, result)
    return 0 if all(result['verdict'].values()) else 1


if __name__ == '__main__':
    sys.exit(main())
