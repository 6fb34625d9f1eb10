# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
The live form of evaluate_bag: a bag played to a running node, its masks held to the offline ones.

Every mask that the node publishes must equal the offline mask of the same stamp; frames without
one were dropped, and are counted. Start it beside road_anomaly_node (launch/evaluate_bag.launch.py
does), with the same parameters. Writes live.json and live.html. Exit status: 0 all masks are
equal, 1 some differ, none came, or it could not run.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import rclpy

from ood_perception.bags.comparison import (
    CameraComparison,
    all_equal,
    compare_masks,
    offline_cameras,
    offline_masks,
    summary,
    write_comparison,
)
from ood_perception.errors import ConfigError, EngineError
from ood_perception.files import check_writable
from ood_perception.image.encodings import COMPRESSED
from ood_perception.ros.tools.bag_player import TRANSPORTS
from ood_perception.ros.tools.discovery import run_program
from ood_perception.ros.tools.listeners import NODE, MaskListener
from ood_perception.types import JsonDict

PLAYERS = ('own', 'ros2')
_GRACE = 5.0
# ros2 bag play does not wait for subscribers; the node needs a second to match a new publisher.
_DISCOVERY = 3.0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    # Options for evaluate_bag take all the words that follow, but not those for ROS.
    end = words.index('--ros-args') if '--ros-args' in words else len(words)
    options = _parser().parse_args(words[:end])

    def work() -> int:
        check_writable(options.out)
        rows = run(options)
        print(summary(rows))
        print(f'report: {options.out / "live.html"}')
        return 0 if all_equal(rows) else 1

    return run_program(words[end:], work)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    add('bag', type=Path)
    add('--offline', type=Path, required=True, help='folder of evaluate_bag')
    add(
        '--evaluate',
        nargs=argparse.REMAINDER,
        default=None,
        help='last: make the folder first, with these options of evaluate_bag',
    )
    add('--out', type=Path, required=True, help='folder of the comparison')
    add('--rate', type=float, default=1.0, help='times the recorded speed')
    add('--player', default='own', choices=PLAYERS, help='own, or ros2 bag play')
    add('--transport', default='raw', choices=TRANSPORTS, help="the node's")
    add('--node', default=NODE, help="the node's full name")
    add('--wait', type=float, default=120.0, help='seconds to wait for the node')
    return parser


def run(options: argparse.Namespace) -> list[CameraComparison]:
    """Play, listen, compare and write; raises OodPerceptionError for what cannot be done."""
    if not options.rate > 0:
        raise ConfigError(f'--rate {options.rate:g}: give a number above 0')
    if options.evaluate is not None:
        _evaluate(options)
    cameras = offline_cameras(options.offline)
    names = [camera['camera'] for camera in cameras]
    command = player_command(options, cameras)
    expected = offline_masks(options.offline, names)
    listener = MaskListener(
        {name: _mask_topic(options.node, name) for name in names}, options.node
    )
    try:
        _wait_until_ready(listener, options)
        _play(listener, command, options)
    finally:
        listener.destroy_node()
    rows = [compare_masks(name, expected[name], listener.heard[name]) for name in names]
    facts = {
        'Bag': str(options.bag),
        'Offline': str(options.offline),
        'Rate': f'{options.rate:g} times the recorded speed',
        'Player': options.player,
        'Transport': options.transport,
    }
    counters = {
        name: {key: str(count) for key, count in listener.counters(name).items()}
        for name in listener.cameras
    }
    write_comparison(options.out, rows, facts, counters)
    return rows


def player_command(options: argparse.Namespace, cameras: Sequence[JsonDict]) -> list[str]:
    """Return the command that plays the cameras' topics; ConfigError where it cannot."""
    topics = [camera['topic'] for camera in cameras]
    if options.player == 'own':
        command = [sys.executable, '-m', 'ood_perception.ros.tools.bag_player', str(options.bag)]
        rest = ['--rate', f'{options.rate:g}', '--transport', options.transport]
        return [*command, '--topics', *topics, *rest, '--wait', f'{options.wait:g}']
    wanted = options.transport == 'compressed'
    unfit = [c['topic'] for c in cameras if (c['type'] == COMPRESSED) != wanted]
    if unfit:
        raise ConfigError(
            f'ros2 bag play cannot give {", ".join(unfit)} to a node of transport '
            f'{options.transport}: take --player own, which decodes'
        )
    command = ['ros2', 'bag', 'play', str(options.bag), '--clock', '--rate', f'{options.rate:g}']
    command += ['--delay', f'{_DISCOVERY:g}']
    return [*command, '--topics', *topics]


def _evaluate(options: argparse.Namespace) -> None:
    """Run evaluate_bag in a process of its own, so that its memory is gone when we listen."""
    command = [sys.executable, '-m', 'ood_perception.cli.evaluate_bag', str(options.bag)]
    done = subprocess.run(
        [*command, '--out', str(options.offline), *options.evaluate], check=False
    )
    if done.returncode not in (0, 3):
        raise EngineError(f'evaluate_bag ended with status {done.returncode}: see its message')


def _mask_topic(node: str, camera: str) -> str:
    return f'{node}/{camera}/mask' if camera else f'{node}/mask'


def _wait_until_ready(listener: MaskListener, options: argparse.Namespace) -> None:
    listener.spin(options.wait, lambda: listener.ready or bool(listener.failure))
    if listener.failure:
        raise EngineError(f'the node could not start: {listener.failure}')
    if not listener.ready:
        raise ConfigError(
            f'{options.node} was not ready after {options.wait:g} s: does it run, in the same '
            'ROS_DOMAIN_ID, with these cameras? (--wait raises this)'
        )


def _play(listener: MaskListener, command: Sequence[str], options: argparse.Namespace) -> None:
    """Listen while the player plays, and until the node is through with what it took."""
    try:
        player = subprocess.Popen(command)
    except OSError as error:
        raise ConfigError(f'{command[0]} cannot be started ({error}): use --player own') from error
    try:
        while not listener.spin(1.0, lambda: player.poll() is not None):
            if not rclpy.ok():
                return
        if player.returncode:
            raise EngineError(f'the player ended with status {player.returncode}')
        ended = time.monotonic()
        listener.spin(options.wait, lambda: listener.drained(ended))
    finally:
        if player.poll() is None:
            player.terminate()
            try:
                player.wait(_GRACE)
            except subprocess.TimeoutExpired:
                player.kill()
                player.wait()


if __name__ == '__main__':
    sys.exit(main())
