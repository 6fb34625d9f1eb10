# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Hears a live node: every mask as a digest by its stamp, and what diagnostics count."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from ood_perception.bags.comparison import mask_digest
from ood_perception.ros.messages import stamp_ns

_COUNTERS = ('callbacks', 'processed', 'dropped', 'bad', 'failed', 'skipped')
# Much deeper than the node's depth 1: what the node published must not be lost here.
_QOS = QoSProfile(
    history=HistoryPolicy.KEEP_LAST, depth=50, reliability=ReliabilityPolicy.RELIABLE
)


class MaskListener(Node):  # type: ignore[misc]
    """
    Listens to the masks of some cameras of one node.

    topics: camera -> mask topic. node: the node's full name, '/road_anomaly'.
    heard: camera -> (stamp in nanoseconds, digest) in the order of arrival.
    """

    def __init__(self, topics: Mapping[str, str], node: str) -> None:
        super().__init__('live_comparison')
        self.heard: dict[str, list[tuple[int, bytes]]] = {camera: [] for camera in topics}
        self._topics, self._node = dict(topics), node
        self._statuses: dict[str, dict[str, str]] = {}
        self._engine_message = ''
        self._last = time.monotonic()
        self._told = 0.0
        for camera, topic in topics.items():
            self.create_subscription(Image, topic, self._keeper(camera), _QOS)
        self.create_subscription(DiagnosticArray, '/diagnostics', self._keep_statuses, 10)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self)

    @property
    def ready(self) -> bool:
        """Whether the node has its engine and its masks are discovered."""
        state = self._statuses.get('engine', {}).get('state')
        return state == 'ready' and all(map(self.count_publishers, self._topics.values()))

    @property
    def failure(self) -> str:
        """Why the node could not start, '' while it may."""
        failed = self._statuses.get('engine', {}).get('state') == 'failed'
        return self._engine_message if failed else ''

    @property
    def counters(self) -> dict[str, dict[str, str]]:
        """The node's counts of frames, by 'camera' or 'camera <name>'."""
        return {
            name: {key: values[key] for key in _COUNTERS if key in values}
            for name, values in self._statuses.items()
            if 'callbacks' in values
        }

    def drained(self, since: float) -> bool:
        """Whether the node told, after `since` (monotonic), that no frame waits or is in work."""
        if self._told < since + 1.0 or time.monotonic() < self._last + 1.0:
            return False
        return all(_settled(values) for values in self.counters.values())

    def spin(self, seconds: float, until: Callable[[], bool]) -> bool:
        """Listen for at most `seconds` or until something holds; return whether it does."""
        end = time.monotonic() + seconds
        while not until():
            left = end - time.monotonic()
            if left <= 0 or not rclpy.ok():
                return until()
            self._executor.spin_once(timeout_sec=min(left, 0.1))
        return True

    def _keeper(self, camera: str) -> Callable[[Any], None]:
        def keep(message: Any) -> None:
            self._last = time.monotonic()
            self.heard[camera].append((stamp_ns(message.header), mask_digest(message)))

        return keep

    def _keep_statuses(self, message: Any) -> None:
        for status in message.status:
            if status.hardware_id == self._node:
                name = status.name.removeprefix(f'{self._node}: ')
                self._statuses[name] = {pair.key: pair.value for pair in status.values}
                self._told = time.monotonic()
                if name == 'engine':
                    self._engine_message = status.message


def _settled(values: Mapping[str, str]) -> bool:
    """Whether every frame that came is accounted for."""
    numbers = {name: int(values.get(name, 0)) for name in _COUNTERS}
    return 2 * numbers['callbacks'] == sum(numbers.values())
