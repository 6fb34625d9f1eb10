# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The demo's listener: keeps everything that the node publishes, by the frame's stamp."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from visualization_msgs.msg import Marker, MarkerArray

from ood_perception.ros.messages import stamp_ns

NODE = '/road_anomaly'
MAPS: dict[str, type[Any]] = {
    'score': np.float32,
    'surprisal': np.float32,
    'mask': np.uint8,
    'overlay': np.uint8,
}
MARKERS = 'obstacle_markers'
# Deeper than the node's depth 1: a listener that draws pictures must not lose any.
_QOS = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=8, reliability=ReliabilityPolicy.RELIABLE)


class Collector(Node):  # type: ignore[misc]
    """
    Hears the node's outputs and diagnostics.

    results: stamp in nanoseconds -> output name -> array or number of obstacles.
    arrived: stamp -> time.time_ns() at which the mask came.
    statuses: diagnostics, by the part after the node's name.
    """

    def __init__(self) -> None:
        super().__init__('demo_collector')
        self.results: dict[int, dict[str, Any]] = {}
        self.arrived: dict[int, int] = {}
        self.statuses: dict[str, dict[str, str]] = {}
        self.messages: dict[str, str] = {}
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self)
        for name in MAPS:
            self.create_subscription(Image, f'{NODE}/{name}', self._keeper(name), _QOS)
        self.create_subscription(MarkerArray, f'{NODE}/{MARKERS}', self._keep_markers, _QOS)
        self.create_subscription(DiagnosticArray, '/diagnostics', self._keep_statuses, 10)

    def spin(self, seconds: float, until: Callable[[], bool]) -> bool:
        """Listen for at most `seconds` or until something holds; return whether it does."""
        end = time.monotonic() + seconds
        while not until():
            left = end - time.monotonic()
            if left <= 0 or not rclpy.ok():
                return until()
            self._executor.spin_once(timeout_sec=min(left, 0.1))
        return True

    def complete(self) -> list[int]:
        """Return the stamps of the frames of which everything came, ascending."""
        wanted = {*MAPS, MARKERS}
        return sorted(stamp for stamp, parts in self.results.items() if wanted <= set(parts))

    def counters(self) -> dict[str, int]:
        """Return the node's frame counters by its newest diagnostics, {} before the first."""
        camera = self.statuses.get('camera', {})
        names = ('callbacks', 'processed', 'dropped', 'bad', 'failed', 'skipped')
        return {name: int(camera[name]) for name in names if name in camera}

    def heard(self) -> bool:
        """Whether every output of the node has been discovered."""
        return all(self.count_publishers(f'{NODE}/{name}') for name in (*MAPS, MARKERS))

    def _keeper(self, name: str) -> Callable[[Any], None]:
        def keep(message: Any) -> None:
            stamp = stamp_ns(message.header)
            if name == 'mask':
                self.arrived[stamp] = time.time_ns()
            self.results.setdefault(stamp, {})[name] = pixels(message, MAPS[name])

        return keep

    def _keep_markers(self, message: Any) -> None:
        if message.markers:
            count = sum(marker.type == Marker.LINE_STRIP for marker in message.markers)
            self.results.setdefault(stamp_ns(message.markers[0].header), {})[MARKERS] = count

    def _keep_statuses(self, message: Any) -> None:
        for status in message.status:
            if status.hardware_id == NODE:
                name = status.name.removeprefix(f'{NODE}: ')
                self.statuses[name] = {pair.key: pair.value for pair in status.values}
                self.messages[name] = status.message


def pixels(message: Any, kind: type[Any]) -> npt.NDArray[Any]:
    """Return a copy of an Image's pixels: (H, W), or (H, W, 3) for rgb8."""
    flat = np.frombuffer(message.data, dtype=kind)
    shape = (message.height, message.width, -1)
    image = flat.reshape(shape) if message.encoding == 'rgb8' else flat.reshape(shape[:2])
    return image.copy()
