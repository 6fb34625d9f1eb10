# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""One camera's subscriptions; the image's reliability follows what its publishers offer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from ood_perception.errors import ConfigError
from ood_perception.ros import qos
from ood_perception.ros.frame_queue import FrameQueue
from ood_perception.ros.outputs import CameraOutputs


@dataclass(frozen=True)
class StampedVideo:
    """A foxglove_msgs/CompressedVideo with the header that every other image message has."""

    header: Any
    format: str
    data: Any


def message_type(transport: str) -> Any:
    """Return the message class of a transport; ConfigError where its package is not installed."""
    if transport in ('raw', 'compressed'):
        return Image if transport == 'raw' else CompressedImage
    try:
        if transport == 'ffmpeg':
            from ffmpeg_image_transport_msgs.msg import FFMPEGPacket as Video
        else:
            from foxglove_msgs.msg import CompressedVideo as Video
    except ImportError as error:
        package = {'ffmpeg': 'ffmpeg-image-transport-msgs', 'foxglove': 'foxglove-msgs'}
        raise ConfigError(
            f'transport {transport} needs a package that is not installed ({error}): apt install '
            f'ros-$ROS_DISTRO-{package[transport]}'
        ) from error
    return Video


class CameraInput:
    """
    Subscribes to `image` and `camera_info`, for a named camera `<camera>/image` and so on.

    values: the node's parameters. With a `transport` (encodings.TRANSPORTS) but 'raw' the topic
    is the *resolved* image topic with the transport's name behind it, so that one remap of
    `image` serves all transports. Messages go into the queue, wanted while the node is enabled
    and somebody subscribes to one of the outputs.
    """

    def __init__(
        self,
        node: Any,
        camera: str,
        values: Mapping[str, Any],
        queue: FrameQueue,
        outputs: CameraOutputs,
    ) -> None:
        self.camera, self._depth = camera, values['frame_queue']
        self.camera_info: Any | None = None
        self._node, self._queue, self._outputs = node, queue, outputs
        self._setting, transport = values['image_reliability'], values['transport']
        prefix = f'{camera}/' if camera else ''
        self.topic: str = node.resolve_topic_name(f'{prefix}image')
        self._kind: Any = message_type(transport)
        if transport != 'raw':
            self.topic = f'{self.topic}/{transport}'
        self.reliability = qos.chosen_reliability(self._setting, self.publishers())
        self._images = self._subscribe()
        self._infos = node.create_subscription(
            CameraInfo, f'{prefix}camera_info', self._keep_info, qos.input_profile(qos.BEST_EFFORT)
        )

    def publishers(self) -> list[Any]:
        """Return the TopicEndpointInfo of every publisher seen on the image topic."""
        return list(self._node.get_publishers_info_by_topic(self.topic))

    def follow_publishers(self) -> None:
        """Subscribe anew when the reliability that fits the publishers has changed."""
        publishers = self.publishers()
        # While nobody is seen nothing is gained by a change, and a restart would cost two.
        wanted = qos.chosen_reliability(self._setting, publishers) if publishers else None
        if wanted is None or wanted == self.reliability:
            return
        self._node.get_logger().info(
            f'{self.topic}: subscribing {wanted}, publishers offer {qos.describe(publishers)}'
        )
        old, self.reliability = self._images, wanted
        self._images = self._subscribe()
        self._node.destroy_subscription(old)

    def destroy(self) -> None:
        """Remove the subscriptions from the node."""
        self._node.destroy_subscription(self._images)
        self._node.destroy_subscription(self._infos)

    def _subscribe(self) -> Any:
        return self._node.create_subscription(
            self._kind,
            self.topic,
            self._receive,
            qos.input_profile(self.reliability, self._depth),
        )

    def _receive(self, message: Any) -> None:
        """Put a message into the queue; runs on the executor's thread and must be quick."""
        if not hasattr(message, 'header'):
            header = Header(stamp=message.timestamp, frame_id=message.frame_id)
            message = StampedVideo(header, message.format, message.data)
        wanted = self._node.enabled and bool(self._outputs.subscribed())
        self._queue.put(self.camera, message, wanted=wanted)

    def _keep_info(self, message: Any) -> None:
        self.camera_info = message
