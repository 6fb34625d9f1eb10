# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
A player for bags: publishes a bag's images and /clock at a rate, once the node listens.

Messages of a raw topic are published as recorded, unread. Unlike `ros2 bag play` it takes every
bag that evaluate_bag takes, waits until somebody subscribes, and can serve a node of transport
raw with compressed recordings: those are decoded, as the node would, and published as rgb8 on the
topic without /compressed. /clock follows the log times.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image

from ood_perception.bags.cameras import CameraTopic, open_cameras
from ood_perception.bags.messages import Cdr
from ood_perception.bags.metadata import Message
from ood_perception.bags.problems import SKIP, Problems
from ood_perception.bags.reading import Bag
from ood_perception.errors import ConfigError, OodPerceptionError
from ood_perception.image.decode import NANOSECONDS, FrameDecoder
from ood_perception.image.encodings import COMPRESSED, RAW
from ood_perception.ros.decode import decode_by_cv_bridge
from ood_perception.ros.tools.discovery import flush, run_program, wait_for_subscribers

TRANSPORTS = ('raw', 'compressed')
# What image_transport puts behind a camera's topic
_ENDINGS = ('/compressed', '/ffmpeg', '/foxglove')
# Deep enough that a burst of images does not overwrite one that is still on its way.
_DEPTH = 10
_CLOCK_PERIOD = 0.02


class BagPlayer(Node):  # type: ignore[misc]
    """Publishes the topics of some cameras, and /clock."""

    def __init__(self, cameras: Sequence[CameraTopic], transport: str) -> None:
        """Raise ConfigError for a raw topic where compressed images are wanted."""
        super().__init__('bag_player')
        quality = QoSProfile(depth=_DEPTH, reliability=ReliabilityPolicy.RELIABLE)
        clock = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        self._clock_publisher = self.create_publisher(Clock, '/clock', clock)
        self._cdr = Cdr()
        self._decoders: dict[str, FrameDecoder[None]] = {}
        self._types = {camera.topic: camera.msgtype for camera in cameras}
        self._publishers_by_topic: dict[str, Any] = {}
        for camera in cameras:
            if transport == 'compressed' and camera.msgtype != COMPRESSED:
                raise ConfigError(
                    f'{camera.topic} is recorded as {camera.msgtype}: use transport raw'
                )
            decode = camera.msgtype != RAW and transport == 'raw'
            topic = _base(camera.topic) if decode else camera.topic
            kind = Image if transport == 'raw' else CompressedImage
            if decode:
                self._decoders[camera.topic] = FrameDecoder('', decode_by_cv_bridge)
            self._publishers_by_topic[camera.topic] = self.create_publisher(kind, topic, quality)

    def wait(self, seconds: float) -> None:
        """Return when every topic is subscribed to; ConfigError when one is not in time."""
        wait_for_subscribers(self, self._publishers_by_topic.values(), seconds)

    def play(self, bag: Bag, rate: float) -> int:
        """Publish every message at its time, `rate` times as fast; return how many."""
        count, begin, first = 0, 0.0, 0
        for message in bag.messages(self._publishers_by_topic):
            for content in self._contents(message):
                if not count:
                    begin, first = time.monotonic(), message.time_ns
                self._wait_until(begin, first, message.time_ns, rate)
                self._publishers_by_topic[message.topic].publish(content)
                count += 1
        return count

    def flush(self) -> None:
        """Wait until the images were acknowledged, at most five seconds for each topic."""
        flush(self._publishers_by_topic.values())

    def _contents(self, message: Message) -> list[bytes]:
        """Return the CDR to publish: of a packet any number, of what does not decode nothing."""
        if message.msgtype != self._types[message.topic]:
            self.get_logger().warning(
                f'{message.topic} at {message.time_ns}: a {message.msgtype} on a topic of '
                f'{self._types[message.topic]} is not played'
            )
            return []
        decoder = self._decoders.get(message.topic)
        if decoder is None:
            return [message.data]
        try:
            frames = decoder.decode(self._cdr.read(message.data, message.msgtype), None)
        except OodPerceptionError as error:
            self.get_logger().warning(f'{message.topic} at {message.time_ns}: {error}')
            return []
        return [
            bytes(self._cdr.image(frame.image, 'rgb8', frame.stamp_ns, frame.frame_id))
            for _, frame in frames
        ]

    def _wait_until(self, begin: float, first: int, time_ns: int, rate: float) -> None:
        """Sleep until a message is due; /clock goes on meanwhile and ends at its log time."""
        due = begin + (time_ns - first) / NANOSECONDS / rate
        while (now := time.monotonic()) < due:
            self._tell_time(first + int((now - begin) * rate * NANOSECONDS))
            time.sleep(min(_CLOCK_PERIOD, due - now))
        self._tell_time(time_ns)

    def _tell_time(self, nanoseconds: int) -> None:
        message = Clock()
        message.clock.sec, message.clock.nanosec = divmod(nanoseconds, NANOSECONDS)
        self._clock_publisher.publish(message)


def _base(topic: str) -> str:
    """Return a topic without what its transport put behind it."""
    ending = f'/{topic.rpartition("/")[2]}'
    return topic.removesuffix(ending) if ending in _ENDINGS else topic


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    add('bag', type=Path)
    add('--topics', nargs='+', default=[], help='image topics; default: all')
    add('--rate', type=float, default=1.0, help='times the recorded speed')
    add('--transport', default='raw', choices=TRANSPORTS, help="the node's")
    add('--wait', type=float, default=60.0, help='seconds to wait for the node')
    options, ros_arguments = parser.parse_known_args(argv)
    return run_program(ros_arguments, lambda: _play(options))


def _play(options: argparse.Namespace) -> int:
    if not options.rate > 0:
        raise ConfigError(f'--rate {options.rate:g}: give a number above 0')
    with Bag(options.bag, Problems(SKIP)) as bag:
        cameras = open_cameras(bag, options.topics)
        for note in bag.notes:
            print(note)
        player = BagPlayer(cameras, options.transport)
        player.wait(options.wait)
        count = player.play(bag, options.rate)
        player.flush()
        print(f'{count} images were published')
        player.destroy_node()
    return 0


if __name__ == '__main__':
    sys.exit(main())
