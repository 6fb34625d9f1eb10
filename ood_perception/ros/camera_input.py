# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""One camera's subscriptions: while somebody listens, as reliable as its publishers offer."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rclpy.event_handler import SubscriptionEventCallbacks
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from ood_perception.errors import required
from ood_perception.image.encodings import TRANSPORTS
from ood_perception.ranging.calibration_file import (
    calibration_path,
    parse_urls,
    read_calibration,
)
from ood_perception.ros import qos
from ood_perception.ros.frame_queue import FrameQueue
from ood_perception.ros.messages import camera_info_message
from ood_perception.ros.outputs import CameraOutputs

HOLD = 5.0
"""Seconds for which a lazy subscription outlives the last listener."""


@dataclass(frozen=True)
class StampedVideo:
    """A foxglove_msgs/CompressedVideo with the header that every other image message has."""

    header: Any
    format: str
    data: Any


_VIDEO = {
    'ffmpeg': ('ffmpeg_image_transport_msgs', 'FFMPEGPacket'),
    'foxglove': ('foxglove_msgs', 'CompressedVideo'),
}


def message_type(transport: str) -> Any:
    """Return the message class of a transport; DependencyError without its package."""
    if transport in ('raw', 'compressed'):
        return Image if transport == 'raw' else CompressedImage
    package, name = _VIDEO[transport]
    remedy = f'apt install ros-$ROS_DISTRO-{package.replace("_", "-")}'
    messages = required(f'{package}.msg', f'transport {transport} needs a package: {remedy}')
    return getattr(messages, name)


class CameraInput:
    """
    Subscribes to `image` and `camera_info`, for a named camera `<camera>/image` and so on.

    values: the node's parameters. A file of `camera_info_url` takes the place of `camera_info`;
    ConfigError where it cannot be read. With a `transport` (encodings.TRANSPORTS) but 'raw' the
    topic is the *resolved* image topic with the transport's name behind it, so that one remap of
    `image` serves all transports. With `lazy_subscription` the topics are subscribed to while
    the node is active and enabled and somebody subscribes to one of the outputs, and HOLD
    seconds longer: receiving images costs, whether they are used or not. Messages go into the
    queue, wanted in the same case.

    `update` may be called from any thread.
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
        urls = parse_urls('camera_info_url', values['camera_info_url'])
        self._url = urls.get(camera) or urls.get('', '')
        self.camera_info: Any | None = self._calibration()
        self.lazy, self.active = bool(values['lazy_subscription']), False
        self._node, self._queue, self._outputs = node, queue, outputs
        self._setting, self._transport = values['image_reliability'], values['transport']
        self._prefix = f'{camera}/' if camera else ''
        self._base: str = node.resolve_topic_name(f'{self._prefix}image')
        self.topic = self._topic_of(self._transport)
        self._kind: Any = message_type(self._transport)
        self.reliability = qos.chosen_reliability(self._setting, self.publishers())
        self._lock = threading.RLock()
        self._images: Any | None = None
        self._infos: Any | None = None
        self._since, self._requested_at = 0.0, -HOLD
        self.update()

    @property
    def listening(self) -> float | None:
        """Seconds since the camera was subscribed to, None where it is not."""
        with self._lock:
            return None if self._images is None else time.monotonic() - self._since

    def publishers(self) -> list[Any]:
        """Return the TopicEndpointInfo of every publisher seen on the image topic."""
        return list(self._node.get_publishers_info_by_topic(self.topic))

    def mismatch(self, publishers: Sequence[Any]) -> str:
        """
        Return what is wrong with what is published, and the remedy; '' where nothing is.

        publishers: what `publishers` returned. A publisher of another type is never heard.
        """
        expected = qos.type_name(self._kind)
        others = {one.topic_type for one in publishers} - {expected}
        if others and len(others) == len({one.topic_type for one in publishers}):
            return (
                f'{self.topic} is published as {", ".join(sorted(others))} and transport '
                f'{self._transport} takes {expected}: set transport, or remap image'
            )
        if publishers:
            return ''
        for transport in TRANSPORTS:
            topic = self._topic_of(transport)
            if topic != self.topic and self._node.get_publishers_info_by_topic(topic):
                return (
                    f'nobody publishes {self.topic}, but {topic} is there: set '
                    f'transport: {transport} (launch: transport:={transport})'
                )
        return ''

    def update(self) -> None:
        """
        Subscribe and unsubscribe as listeners come and go, and follow the publishers' QoS.

        What the middleware refuses is logged and tried again at the next call: it runs on the
        executor's thread, which must not end.
        """
        try:
            self._update()
        except Exception as error:
            self._node.log('error', f'{self.topic} cannot be subscribed to: {error}')

    def _update(self) -> None:
        with self._lock:
            now = time.monotonic()
            if not self.lazy or self._requested():
                self._requested_at = now
            if self._images is None and now - self._requested_at < HOLD:
                self._open(now)
            elif self._images is not None and now - self._requested_at >= HOLD:
                self._close()
            if self._images is not None:
                self._follow_publishers()

    def destroy(self) -> None:
        """Remove the subscriptions from the node; none comes back."""
        with self._lock:
            self.lazy, self.active, self._requested_at = True, False, -HOLD
            self._close()

    def _calibration(self) -> Any | None:
        """Return the CameraInfo of the camera's file, None where it has none; ConfigError."""
        if not self._url:
            return None
        return camera_info_message(read_calibration(calibration_path(self._url, self.camera)))

    def _topic_of(self, transport: str) -> str:
        return self._base if transport == 'raw' else f'{self._base}/{transport}'

    def _requested(self) -> bool:
        return bool(self.active and self._node.enabled and self._outputs.subscribed())

    def _open(self, now: float) -> None:
        self._queue.restart(self.camera)
        self._since = now
        self.reliability = qos.chosen_reliability(self._setting, self.publishers())
        self._images = self._subscribe()
        if not self._url:
            profile, topic = qos.input_profile(qos.BEST_EFFORT), f'{self._prefix}camera_info'
            self._infos = self._node.create_subscription(
                CameraInfo, topic, self._keep_info, profile
            )

    def _close(self) -> None:
        for subscription in filter(None, (self._images, self._infos)):
            self._node.destroy_subscription(subscription)
        self._images = self._infos = None

    def _follow_publishers(self) -> None:
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

    def _subscribe(self) -> Any:
        return self._node.create_subscription(
            self._kind,
            self.topic,
            self._receive,
            qos.input_profile(self.reliability, self._depth),
            event_callbacks=SubscriptionEventCallbacks(incompatible_qos=self._incompatible),
        )

    def _incompatible(self, event: Any) -> None:
        """Warn of a publisher that is never heard; with 'auto' the next update hears it."""
        if self._setting != qos.AUTO:
            self._node.log(
                'warning',
                f'{self.topic}: a publisher offers less than image_reliability: {self._setting} '
                'asks for, so nothing of it arrives: change either',
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
