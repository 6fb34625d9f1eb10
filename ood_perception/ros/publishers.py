# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""One camera's publishers: each output is computed only while someone subscribes to it."""

from __future__ import annotations

from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Float64
from visualization_msgs.msg import MarkerArray

from ood_perception.postprocess.open_set import open_set_names
from ood_perception.postprocess.output_maps import OutputMaps
from ood_perception.postprocess.tracking import Tracked
from ood_perception.ros import qos
from ood_perception.ros.messages import ImageBuffer, label_info_message
from ood_perception.ros.outputs import BUILDERS, IMAGES, Job, Looking, Making, OutputOptions
from ood_perception.ros.point_clouds import PLACES
from ood_perception.ros.timing import FrameTimes, Stopwatch
from ood_perception.types import MASK_NORMAL, MASK_NOT_SCORED, MASK_OBSTACLE

DEBUG_TOPICS = ('preprocess_ms', 'inference_ms', 'postprocess_ms', 'latency_ms')
MASK_NAMES = {MASK_NORMAL: 'normal', MASK_OBSTACLE: 'obstacle', MASK_NOT_SCORED: 'not scored'}
INFOS = ('mask_info', 'label_info', 'open_set_label_info')


def vision_messages() -> Any | None:
    """Return the module vision_msgs.msg, None where it is not installed."""
    try:
        import vision_msgs.msg
    except ImportError:
        return None
    return vision_msgs.msg


class CameraOutputs:
    """
    The outputs of one camera on '~/...' or, for a named camera, '~/<camera>/...'.

    The LabelInfo topics and `obstacles` need vision_msgs and are absent without it.
    """

    def __init__(self, node: Any, camera: str, options: OutputOptions, vision: Any | None) -> None:
        self.options = options
        self._node, self._vision = node, vision
        self._prefix = f'~/{camera}/' if camera else '~/'
        self.status_name = f'{node.get_fully_qualified_name()}: image {camera}'.rstrip()
        buffers = {name: ImageBuffer(encoding) for name, encoding in IMAGES.items()}
        self._making = Making(buffers, vision, self.status_name)
        self._publishers: dict[str, Any] = {}
        self._latched: dict[str, Any] = {}
        for name in IMAGES:
            self._create(name, Image)
        self._create('overlay', Image)
        self._create('overlay/compressed', CompressedImage)
        self._create('obstacle_markers', MarkerArray)
        self._create('image_score', DiagnosticArray)
        for name, (kind, _) in PLACES.items():
            if name != 'scan' or options.scan:
                self._create(name, kind)
        if options.scale != 1.0:
            self._create('camera_info', CameraInfo)
        if vision is not None:
            self._create('obstacles', vision.Detection2DArray)
            for name in INFOS:
                self._latched[name] = self._publisher(
                    name, vision.LabelInfo, qos.latched_profile()
                )
        for name in DEBUG_TOPICS:
            topic = f'debug/{name}'
            self._publishers[topic] = self._publisher(topic, Float64, qos.debug_profile())

    def _create(self, name: str, kind: Any) -> None:
        self._publishers[name] = self._publisher(
            name, kind, qos.output_profile(self.options.depth)
        )

    def _publisher(self, name: str, kind: Any, profile: Any) -> Any:
        return self._node.create_lifecycle_publisher(
            kind, self._prefix + name, profile, qos_overriding_options=qos.overridable()
        )

    def destroy(self) -> None:
        """Remove the publishers from the node."""
        for publisher in (*self._publishers.values(), *self._latched.values()):
            self._node.destroy_lifecycle_publisher(publisher)
        self._publishers, self._latched = {}, {}

    def demanded(self) -> list[str]:
        """Return the names of the outputs that someone subscribes to."""
        return [n for n, p in self._publishers.items() if p.get_subscription_count() > 0]

    def publish_infos(self, labels: dict[int, str], false_alarm_rate: float, stamp: Any) -> None:
        """Publish what the values of mask and label images mean, and the threshold; latched."""
        if self._vision is None:
            return
        from std_msgs.msg import Header

        header = Header(stamp=stamp)
        threshold = 1.0 - false_alarm_rate
        infos = {
            'mask_info': (MASK_NAMES, threshold),
            'label_info': (labels, 0.0),
            'open_set_label_info': (open_set_names(tuple(labels.values())), threshold),
        }
        for name, (names, limit) in infos.items():
            self._latched[name].publish(label_info_message(self._vision, names, limit, header))

    def publish(
        self,
        tracked: Tracked,
        header: Any,
        info: Any | None,
        times: FrameTimes,
        looking: Looking,
    ) -> None:
        """
        Publish what is demanded, with the input's header.

        tracked: the detection as tracking leaves it.
        header: the input message's own. info: the camera's newest CameraInfo or None.
        times: fill_ms and publish_ms are added to.
        looking: returns bearings and distances, None where nothing tells them.
        """
        maps = OutputMaps(tracked.detection, self.options.scale)
        job = Job(self.options, self._making, maps, tracked.tracks, header, info, looking)
        for name in self.demanded():
            build = BUILDERS.get(name)
            if build is None:
                continue
            with Stopwatch(times, 'fill_ms'):
                message = build(job)
            if message is not None:
                with Stopwatch(times, 'publish_ms'):
                    self._publishers[name].publish(message)

    def publish_debug(self, times: FrameTimes, latency_ms: float | None) -> None:
        """Publish the debug topics that are demanded; latency only when it is known."""
        values = {
            'preprocess_ms': times.decode_ms + times.preprocess_ms,
            'inference_ms': times.inference_ms,
            'postprocess_ms': times.postprocess_ms,
            'latency_ms': latency_ms,
        }
        for name, value in values.items():
            publisher = self._publishers[f'debug/{name}']
            if value is not None and publisher.get_subscription_count() > 0:
                publisher.publish(Float64(data=value))
