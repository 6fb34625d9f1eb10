# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The benchmark's other process: publishes frames, collects outputs, prints one JSON line."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from sensor_msgs.msg import Image
from visualization_msgs.msg import MarkerArray

from ood_perception.errors import ConfigError, OodPerceptionError
from ood_perception.image.image_files import read_image
from ood_perception.json_files import json_text
from ood_perception.ros.messages import ImageBuffer
from ood_perception.ros.qos import input_profile, output_profile
from ood_perception.ros.tools.listeners import NODE, NodeListener
from ood_perception.types import UInt8Array

FRAME_ID = 'bench_optical_frame'
_READY_SECONDS = 90.0
# The node follows the publishers' reliability within half a second of discovery.
_SETTLE_SECONDS = 2.5
_DRAIN_SECONDS = 15.0


class BenchCamera(NodeListener):
    """Publishes `image` and remembers the headers of what comes back."""

    def __init__(self, case: dict[str, Any]) -> None:
        observed = f'/{case["namespace"]}{NODE}'
        super().__init__('bench_camera', observed, namespace=case['namespace'])
        self.sent: set[tuple[int, int, str]] = set()
        self.received: Counter[str] = Counter()
        self.foreign_headers = 0
        self._camera = self.create_publisher(Image, 'image', input_profile(case['reliability']))
        self.results = [self._listen(name) for name in case['outputs']]
        self._buffer = ImageBuffer('rgb8')
        self._buffer.pixels(case['height'], case['width'])[:] = made_image(case)

    def _listen(self, name: str) -> Any:
        kind = MarkerArray if name == 'obstacle_markers' else Image
        topic = f'{self.observed}/{name}'
        return self.create_subscription(
            kind, topic, lambda message: self._receive(name, message), output_profile()
        )

    def _receive(self, name: str, message: Any) -> None:
        header = message.markers[0].header if name == 'obstacle_markers' else message.header
        self.received[name] += 1
        self.foreign_headers += header_key(header) not in self.sent

    def send(self) -> None:
        """Publish one frame stamped now."""
        message = self._buffer.stamped(self._header())
        self.sent.add(header_key(message.header))
        self._camera.publish(message)

    def _header(self) -> Any:
        header = Image().header
        header.stamp, header.frame_id = self.get_clock().now().to_msg(), FRAME_ID
        return header

    def ready(self) -> bool:
        """Whether the node listens and its outputs are heard."""
        matched = all(self.count_publishers(sub.topic_name) for sub in self.results)
        if self.failure:
            raise ConfigError('the node could not be configured, its message is above')
        # nobody listens: the node subscribes to no camera
        heard = not self.results or bool(self._camera.get_subscription_count())
        return heard and matched and self.engine_state == 'ready' and 'camera' in self.statuses

    def drained(self) -> bool:
        """Whether no frame is on its way any more."""
        return self.counters()['callbacks'] == len(self.sent) and self.settled()

    def times_ms(self) -> dict[str, dict[str, float]]:
        """Return {stage: {median, p95, last}} from the node's newest diagnostics."""
        table: dict[str, dict[str, float]] = {}
        for key, value in self.statuses['processing time'].items():
            stage, kind = key.split()
            table.setdefault(stage, {})[kind] = float('nan') if value == 'n/a' else float(value)
        return table


def header_key(header: Any) -> tuple[int, int, str]:
    """Return what must be identical in every output: seconds, nanoseconds and frame_id."""
    return header.stamp.sec, header.stamp.nanosec, header.frame_id


def made_image(case: dict[str, Any]) -> UInt8Array:
    """Return uint8 (H, W, 3) RGB: the case's image, or smooth shades with a bright block."""
    import cv2

    height, width = case['height'], case['width']
    if case['image']:
        frame = read_image(Path(case['image']), '--image')
        resized = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
        return np.asarray(resized, dtype=np.uint8)
    y, x = np.mgrid[0:height, 0:width]
    image = np.stack([x * 255 // width, y * 255 // height, (x + y) % 256], axis=-1)
    image[height // 2 : height // 2 + height // 10, width // 2 : width // 2 + width // 10] = 255
    return image.astype(np.uint8)


def send_frames(node: BenchCamera, case: dict[str, Any]) -> dict[str, float]:
    """
    Publish at the rate, spinning in between; late frames do not come in bursts.

    Returns how many cores the node and this process took meanwhile.
    """
    processes = {'node': case['node'], 'camera': os.getpid()}
    before = {name: cpu_seconds(number) for name, number in processes.items()}
    due = began = time.monotonic()
    for _ in range(case['frames']):
        node.spin(due - time.monotonic())
        due = time.monotonic() + 1.0 / case['rate']
        if not case['silent']:
            node.send()
    node.spin(due - time.monotonic())
    lasted = time.monotonic() - began
    return {
        name: (cpu_seconds(number) - before[name]) / lasted for name, number in processes.items()
    }


def cpu_seconds(process: int) -> float:
    """Return the CPU time of all threads of a process so far, to the nanosecond: an idle one's."""
    return time.clock_gettime((~process << 3) | 2)  # Linux' clock_getcpuclockid(3)


def main() -> int:
    """Run the case given as JSON and print what was counted."""
    case = json.loads(sys.argv[1])
    rclpy.init(args=[])
    try:
        node = BenchCamera(case)
        if not node.spin(_READY_SECONDS, node.ready):
            raise ConfigError(f'the node was not ready after {_READY_SECONDS:.0f} s')
        node.spin(_SETTLE_SECONDS)
        cores = send_frames(node, case)
        drained = not case['outputs'] or node.spin(_DRAIN_SECONDS, node.drained)
    except OodPerceptionError as error:
        print(f'bench_camera: {error}', file=sys.stderr)
        return 1
    result = {
        'sent': len(node.sent),
        'drained': drained,
        'cores': cores,
        'received': dict(node.received),
        'foreign_headers': node.foreign_headers,
        'counters': node.counters(),
        'times_ms': node.times_ms(),
        # a path belongs to one machine: the checksum says which bundle it was
        'engine': {
            key: value
            for key, value in node.statuses.get('engine', {}).items()
            if key != 'bundle_path'
        },
    }
    print(json_text(result, indent=None))
    node.destroy_node()
    rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())
