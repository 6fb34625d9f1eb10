# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Programs that hear a running node: its diagnostics, its masks, or all that the demo shows."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from visualization_msgs.msg import Marker, MarkerArray

from ood_perception.bags.comparison import mask_digest
from ood_perception.image.decode import stamp_ns
from ood_perception.parameters import table
from ood_perception.ros.frame_queue import Counters
from ood_perception.ros.messages import image_message
from ood_perception.ros.qos import RELIABLE, input_profile, output_profile
from ood_perception.types import UInt8Array

NODE = f'/{table.NODE}'
MAPS: dict[str, type[Any]] = {
    'score': np.float32,
    'surprisal': np.float32,
    'mask': np.uint8,
    'overlay': np.uint8,
}
MARKERS = 'obstacle_markers'
FRAME_ID = 'demo_camera_optical_frame'
_COUNTERS = tuple(field.name for field in dataclasses.fields(Counters))


class NodeListener(Node):  # type: ignore[misc]
    """
    Hears one node's diagnostics.

    observed: the node's full name, '/road_anomaly'. statuses, messages: of its newest diagnostics,
    by the part behind the node's name. reported: time.monotonic() of the newest.
    """

    def __init__(self, name: str, observed: str, **options: Any) -> None:
        super().__init__(name, **options)
        self.observed = observed
        self.statuses: dict[str, dict[str, str]] = {}
        self.messages: dict[str, str] = {}
        self.reported = 0.0
        self.create_subscription(DiagnosticArray, '/diagnostics', self._keep_statuses, 10)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self)

    @property
    def engine_state(self) -> str:
        """'ready', 'compiling', ... as diagnostics say, '' before the first."""
        return self.statuses.get('engine', {}).get('state', '')

    @property
    def failure(self) -> str:
        """Why the node could not start, '' while it may."""
        return self.messages['engine'] if self.engine_state == 'failed' else ''

    def counters(self, camera: str = 'camera') -> dict[str, int]:
        """Return a camera's counts of frames, {} before the first diagnostics."""
        status = self.statuses.get(camera, {})
        return {name: int(status[name]) for name in _COUNTERS if name in status}

    def settled(self, camera: str = 'camera') -> bool:
        """Whether every frame that came is accounted for."""
        counted = self.counters(camera)
        return 2 * counted.get('callbacks', 0) == sum(counted.values())

    def spin(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Listen for at most `seconds` or until something holds; return whether it does."""
        end = time.monotonic() + seconds
        while not until():
            left = end - time.monotonic()
            if left <= 0 or not rclpy.ok():
                return until()
            self._executor.spin_once(timeout_sec=min(left, 0.1))
        return True

    def _keep_statuses(self, message: Any) -> None:
        for status in message.status:
            node, _, name = status.name.partition(': ')
            if node == self.observed:
                self.statuses[name] = {pair.key: pair.value for pair in status.values}
                self.messages[name] = status.message
                self.reported = time.monotonic()


class MaskListener(NodeListener):
    """
    Keeps the digest of every mask of some cameras.

    topics: camera -> mask topic. heard: camera -> (stamp in nanoseconds, digest) in the order of
    arrival.
    """

    def __init__(self, topics: Mapping[str, str], observed: str) -> None:
        super().__init__('live_comparison', observed)
        self.heard: dict[str, list[tuple[int, bytes]]] = {camera: [] for camera in topics}
        self._topics = dict(topics)
        self._last = time.monotonic()
        for camera, topic in topics.items():
            # Much deeper than the node's depth 1: what was published must not be lost here.
            self.create_subscription(Image, topic, self._keeper(camera), output_profile(50))

    @property
    def ready(self) -> bool:
        """Whether the node has its engine and its masks are discovered."""
        discovered = all(map(self.count_publishers, self._topics.values()))
        return self.engine_state == 'ready' and discovered

    @property
    def cameras(self) -> list[str]:
        """The cameras' statuses: 'camera' or 'camera <name>'."""
        return [name for name, values in self.statuses.items() if 'callbacks' in values]

    def drained(self, since: float) -> bool:
        """Whether the node told, after `since` (monotonic), that no frame waits or is in work."""
        if self.reported < since + 1.0 or time.monotonic() < self._last + 1.0:
            return False
        return all(map(self.settled, self.cameras))

    def _keeper(self, camera: str) -> Callable[[Any], None]:
        def keep(message: Any) -> None:
            self._last = time.monotonic()
            self.heard[camera].append((stamp_ns(message), mask_digest(message)))

        return keep


class Collector(NodeListener):
    """
    The demo's camera; keeps everything that the demo shows, by the frame's stamp.

    results: stamp in nanoseconds -> output name -> array or number of obstacles.
    arrived: stamp -> time.time_ns() at which the mask came.
    """

    def __init__(self, topic: str) -> None:
        super().__init__('demo_collector', NODE)
        self.camera = self.create_publisher(Image, topic, input_profile(RELIABLE))
        self.results: dict[int, dict[str, Any]] = {}
        self.arrived: dict[int, int] = {}
        # Deeper than the node's depth 1: a listener that draws images must not lose any.
        quality = output_profile(8)
        for name in MAPS:
            self.create_subscription(Image, f'{NODE}/{name}', self._keeper(name), quality)
        self.create_subscription(MarkerArray, f'{NODE}/{MARKERS}', self._keep_markers, quality)

    def send(self, image: UInt8Array) -> int:
        """Publish an image, uint8 (H, W, 3) RGB, stamped now; return the stamp in nanoseconds."""
        message: Any = image_message(image, 'rgb8', Header(frame_id=FRAME_ID))
        message.header.stamp = self.get_clock().now().to_msg()
        self.camera.publish(message)
        return stamp_ns(message)

    def complete(self) -> list[int]:
        """Return the stamps of the frames of which everything came, ascending."""
        wanted = {*MAPS, MARKERS}
        return sorted(stamp for stamp, parts in self.results.items() if wanted <= set(parts))

    def heard(self) -> bool:
        """Whether every output of the node has been discovered."""
        return all(self.count_publishers(f'{NODE}/{name}') for name in (*MAPS, MARKERS))

    def _keeper(self, name: str) -> Callable[[Any], None]:
        def keep(message: Any) -> None:
            stamp = stamp_ns(message)
            if name == 'mask':
                self.arrived[stamp] = time.time_ns()
            self.results.setdefault(stamp, {})[name] = pixels(message, MAPS[name])

        return keep

    def _keep_markers(self, message: Any) -> None:
        if message.markers:
            count = sum(marker.type == Marker.LINE_STRIP for marker in message.markers)
            self.results.setdefault(stamp_ns(message.markers[0]), {})[MARKERS] = count


def pixels(message: Any, kind: type[Any]) -> npt.NDArray[Any]:
    """Return a copy of an Image's pixels: (H, W), or (H, W, 3) for rgb8."""
    flat = np.frombuffer(message.data, dtype=kind)
    shape = (message.height, message.width, -1)
    image = flat.reshape(shape) if message.encoding == 'rgb8' else flat.reshape(shape[:2])
    return image.copy()
