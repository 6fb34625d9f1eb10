# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Entry point of road_anomaly_node: start, spin, stop; one clear line when a start fails."""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ood_perception.errors import ConfigError, OodPerceptionError, required
from ood_perception.requirements import install_command

if TYPE_CHECKING:
    from ood_perception.ros.lifecycle_node import RoadAnomalyNode

_POLL = 0.2
_PAUSE = 0.05
# Seconds from a signal to the end, whatever hangs; and the threads that may.
_GRACE = 4.0
_MAY_HANG = ('executor', 'inference', 'compile', 'restart')
# glibc's mallopt: M_MMAP_THRESHOLD (32 MiB is the most it takes), M_TRIM_THRESHOLD, M_ARENA_MAX:
# the heaps of further arenas are returned to the kernel as soon as they are empty.
_LIMITS = {-3: 32 << 20, -1: 256 << 20, -8: 1}


class Stop(threading.Event):
    """Set by SIGINT, SIGTERM or a failed start; code: what the process exits with."""

    code = 0

    def fail(self) -> None:
        """Ask for the end, and for exit status 1."""
        self.code = 1
        self.set()

    def listen(self) -> None:
        """
        Take the signals over.

        rclpy's own handlers end the context at once, under the worker's feet: the frame in work
        would fail with a traceback.
        """
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self.set())


def _init(rclpy: Any, argv: Sequence[str] | None) -> None:
    from rclpy.signals import SignalHandlerOptions

    args = list(argv) if argv is not None else None
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    except Exception as error:  # rclpy has several unrelated classes for bad arguments
        reason = ' '.join(str(error).split())
        raise ConfigError(f'ROS arguments {args or sys.argv[1:]}: {reason}') from error


def keep_freed_memory() -> None:
    """
    Have glibc keep what a message took for the next one, instead of returning it to the kernel.

    A 1080p image is copied three times on its way in: with pages returned and taken anew that is
    up to 1300 page faults a message and a third of its time. Another C library does as it does.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, 'mallopt'):
        for limit, value in _LIMITS.items():
            library.mallopt(limit, value)


def _spin(rclpy: Any, node: RoadAnomalyNode, stop: Stop) -> None:
    """Run the node until it is told to stop."""

    def start() -> None:
        if not node.autostart():
            stop.fail()

    executor = rclpy.executors.SingleThreadedExecutor()
    executor.add_node(node)
    if node.get_parameter('autostart').value:
        # Its own thread, so that services answer while the engine compiles.
        threading.Thread(target=start, daemon=True).start()
    while not stop.is_set() and rclpy.ok():
        try:
            executor.spin_once(timeout_sec=_POLL)
        except Exception as error:  # of one message, such as a /clock before 1970
            if not rclpy.ok():
                break
            text = ''.join(traceback.format_exception(error))
            node.log('error', f'a callback failed, the node goes on: {text}')
            stop.wait(_PAUSE)
    executor.remove_node(node)
    executor.shutdown(timeout_sec=0)


def main(argv: Sequence[str] | None = None) -> int:
    """
    Start road_anomaly_node and return the exit code, 1 for a start that failed.

    argv: ROS arguments behind the program's name, None = the command line's.
    """
    example = 'such as: --ros-args -p bundle:=my_bundle -r image:=/camera/image_raw'
    parser = argparse.ArgumentParser(
        description='The node. Parameters and topics: docs/ros.md.',
        epilog=example,
        allow_abbrev=False,
    )
    parser.parse_known_args(argv)  # for --help: all else is rclpy's
    stop = Stop()
    keep_freed_memory()
    try:
        remedy = f'source a ROS 2 installation, or {install_command("ros")}'
        rclpy = required('rclpy', f'rclpy cannot be imported: {remedy}')
        _init(rclpy, argv)
        stop.listen()
        _run_aside(rclpy, stop)
    except OodPerceptionError as error:
        print(f'road_anomaly_node cannot start: {error}', file=sys.stderr)
        return 1
    return stop.code


def _run_aside(rclpy: Any, stop: Stop) -> None:
    """
    Run the node on a thread, so that this one, which takes the signals, never hangs.

    Ends the process by force, exit status 1, where something hangs; raises what the node raises.
    """
    failed: list[BaseException] = []

    def run() -> None:
        try:
            _run(rclpy, stop)
        except BaseException as error:  # handed to the caller below
            failed.append(error)
        finally:
            stop.set()

    thread = threading.Thread(target=run, name='executor', daemon=True)
    thread.start()
    stop.wait()
    thread.join(_GRACE)
    kill_children()
    hanging = [one.name for one in threading.enumerate() if one.name in _MAY_HANG]
    if hanging:
        print(f'road_anomaly_node ended by force: {", ".join(hanging)} hangs', file=sys.stderr)
        sys.stderr.flush()
        os._exit(1)
    if failed:
        raise failed[0]
    from ood_perception.ros.worker import SLOW_FRAME

    if any(one.name == SLOW_FRAME for one in threading.enumerate()):
        os._exit(stop.code)  # the engine's run cannot be ended, and is not waited for


def kill_children() -> None:
    """End the processes that this one has started, such as a download of weights."""
    for children in Path('/proc/self/task').glob('*/children'):
        with suppress(OSError):  # one may end by itself meanwhile
            for number in children.read_text().split():
                os.kill(int(number), signal.SIGKILL)


def _run(rclpy: Any, stop: Stop) -> None:
    from ood_perception.ros.lifecycle_node import RoadAnomalyNode

    try:
        try:
            node = RoadAnomalyNode()
        except (
            RuntimeError
        ) as error:  # rcl's: keys that are missing, no security in the middleware
            reason = ' '.join(str(error).split())
            raise ConfigError(f'the middleware makes no node: {reason}') from error
        try:
            _spin(rclpy, node, stop)
        finally:
            node.destroy_node()
    finally:
        rclpy.try_shutdown()


if __name__ == '__main__':
    sys.exit(main())
