# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
The demo's camera: a process that publishes a folder of images as sensor_msgs/Image.

It waits until a subscriber is matched and asks for reliable delivery, publishes each image once
with its own stamp, and prints one JSON line per frame: its index and stamp.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rclpy.node import Node
from sensor_msgs.msg import Image

from ood_perception.image.decode import stamp_ns
from ood_perception.image.image_files import list_images, read_image
from ood_perception.ros.messages import image_message
from ood_perception.ros.qos import RELIABLE, input_profile
from ood_perception.ros.tools.discovery import flush, run_program, wait_for_subscribers

FRAME_ID = 'demo_camera_optical_frame'


class CameraPublisher(Node):  # type: ignore[misc]
    """Publishes images on `image`, reliable, depth 1."""

    def __init__(self) -> None:
        super().__init__('demo_camera')
        self._publisher = self.create_publisher(Image, 'image', input_profile(RELIABLE))

    def wait_for_subscriber(self, seconds: float) -> None:
        """Return when a subscriber is matched; ConfigError when none comes."""
        wait_for_subscribers(self, [self._publisher], seconds)

    def publish(self, path: Path) -> int:
        """Publish an image file stamped now; return the stamp in nanoseconds."""
        image = read_image(path)
        header = Image().header
        header.frame_id = FRAME_ID
        message: Any = image_message(image, 'rgb8', header)
        header.stamp = self.get_clock().now().to_msg()
        self._publisher.publish(message)
        return stamp_ns(message)

    def flush(self) -> None:
        """Wait until the last image was acknowledged, at most five seconds."""
        flush([self._publisher])


def publish_all(camera: CameraPublisher, files: Sequence[Path], rate: float) -> None:
    """Publish all files at `rate` per second, telling each frame's stamp on stdout."""
    begin = time.monotonic()
    for index, path in enumerate(files):
        time.sleep(max(0.0, begin + index / rate - time.monotonic()))
        print(json.dumps({'frame': index, 'stamp_ns': camera.publish(path)}), flush=True)
    camera.flush()


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument('folder', type=Path, help='folder of images, published in name order')
    parser.add_argument('--rate', type=float, default=2.0, help='images per second')
    parser.add_argument('--wait', type=float, default=30.0, help='seconds to wait for the node')
    options, ros_arguments = parser.parse_known_args(argv)

    def work() -> int:
        camera = CameraPublisher()
        camera.wait_for_subscriber(options.wait)
        publish_all(camera, list_images(options.folder), options.rate)
        return 0

    return run_program(ros_arguments, work)


if __name__ == '__main__':
    sys.exit(main())
