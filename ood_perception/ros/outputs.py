# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Every output topic in one table, type and builder, and what publishes a camera's outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from types import SimpleNamespace
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.event_handler import PublisherEventCallbacks
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, LaserScan, PointCloud2
from std_msgs.msg import Float64, Header
from visualization_msgs.msg import ImageMarker, MarkerArray

from ood_perception.postprocess.image_score import inspect
from ood_perception.postprocess.output_maps import IMAGES, OutputMaps, open_set_names
from ood_perception.postprocess.overlay import (
    OverlayOptions,
    color_mask,
    color_score,
    draw_overlay,
    encode_jpeg,
)
from ood_perception.postprocess.tracking import Tracked
from ood_perception.ros import point_clouds, qos
from ood_perception.ros.messages import (
    ImageBuffer,
    compressed_message,
    detections_message,
    image_message,
    image_score_message,
    label_info_message,
    obstacle_annotations,
    obstacle_markers,
    scaled_camera_info,
)
from ood_perception.ros.point_clouds import RangeResult
from ood_perception.ros.timing import FrameTimes, stopwatch
from ood_perception.types import MASK_NAMES, UInt8Array

try:
    import vision_msgs.msg as vision
except ImportError:
    vision = SimpleNamespace(Detection2DArray=None)


class OutputError(RuntimeError):
    """An output of a frame could not be made or published; the others were."""


DEBUG_TOPICS = ('preprocess_ms', 'inference_ms', 'postprocess_ms', 'latency_ms')
INFOS = ('mask_info', 'label_info', 'open_set_label_info')
DRAWN = ('overlay', 'mask_image', 'score_image')  # what FrameOutputs draws, uint8 (H, W, 3) RGB


class FrameOutputs:
    """
    One frame's messages in the making; what several of them show is made once, when asked for.

    tracked: the detection as tracking leaves it. header: the input message's own. info: the
    camera's newest CameraInfo or None. look: returns bearings and distances of the detection,
    None where nothing tells them.
    """

    def __init__(
        self,
        camera: CameraOutputs,
        tracked: Tracked,
        header: Any,
        info: Any | None,
        look: Callable[[], RangeResult | None],
    ) -> None:
        self.detection, self.tracks = tracked.detection, tracked.tracks
        self.header, self.info, self._look = header, info, look
        self.buffers, self.status_name = camera.buffers, camera.status_name
        self.values = camera.values
        self.maps = OutputMaps(
            tracked.detection,
            self.values['output_scale'],
            self.values['confidence_full_scale'],
            self.values['open_set.outside'],
        )

    @cached_property
    def ranges(self) -> RangeResult | None:
        """Bearings and distances."""
        return self._look()

    @cached_property
    def overlay(self) -> UInt8Array:
        """uint8 (H, W, 3) RGB."""
        shown = ('opacity', 'boxes', 'region', 'legend')
        options = OverlayOptions(**{name: self.values[f'overlay.{name}'] for name in shown})
        return draw_overlay(self.detection, options)

    @cached_property
    def mask_image(self) -> UInt8Array:
        """The mask in colours, uint8 (H, W, 3) RGB."""
        return color_mask(self.maps.image('mask'))

    @cached_property
    def score_image(self) -> UInt8Array:
        """The score in colours, the threshold in their middle, uint8 (H, W, 3) RGB."""
        return color_score(self.maps.image('surprisal'), self.detection.false_alarm_rate)


def _image(name: str, frame: FrameOutputs) -> Any:
    buffer = frame.buffers[name]
    IMAGES[name].write(frame.maps, buffer.pixels(*frame.maps.size))
    return buffer.stamped(frame.header)


def _drawn(name: str, frame: FrameOutputs) -> Any:
    return image_message(getattr(frame, name), 'rgb8', frame.header)


def _jpeg(name: str, frame: FrameOutputs) -> Any:
    jpeg = encode_jpeg(getattr(frame, name), frame.values['overlay.jpeg_quality'])
    return compressed_message(jpeg, frame.header)


def _markers(frame: FrameOutputs) -> Any:
    geometry = frame.detection.geometry
    size = geometry.camera_height, geometry.camera_width
    return obstacle_markers(
        frame.detection.obstacles, size, frame.info, frame.header, frame.tracks
    )


def _image_score(frame: FrameOutputs) -> Any:
    judged = inspect(frame.detection, frame.values['image_score.top_share'])
    threshold = frame.values['image_score.threshold']
    return image_score_message(judged, threshold, frame.status_name, frame.header)


def _camera_info(frame: FrameOutputs) -> Any:
    if frame.info is None:
        return None
    return scaled_camera_info(frame.info, *frame.maps.size, frame.header)


def _ranges(build: Callable[[RangeResult, Any], Any], frame: FrameOutputs) -> Any:
    return None if frame.ranges is None else build(frame.ranges, frame.header)


@dataclass(frozen=True)
class Output:
    """
    One topic.

    kind: its message type, None: not installed. build: a frame's message, None: there is none.
    wanted: whether the topic is there with the node's parameters.
    """

    kind: Any
    build: Callable[[FrameOutputs], Any]
    wanted: Callable[[Mapping[str, Any]], bool] = lambda _: True


# The encodings of images are in postprocess/output_maps.py, which the result bag reads, too.
OUTPUTS = {
    **{name: Output(Image, partial(_image, name)) for name in IMAGES},
    # for the eye
    **{name: Output(Image, partial(_drawn, name)) for name in DRAWN},
    **{f'{name}/compressed': Output(CompressedImage, partial(_jpeg, name)) for name in DRAWN},
    'obstacle_markers': Output(MarkerArray, _markers),
    'obstacle_annotations': Output(
        ImageMarker, lambda one: obstacle_annotations(one.detection.obstacles, one.header)
    ),
    'image_score': Output(DiagnosticArray, _image_score),
    'obstacle_points': Output(PointCloud2, partial(_ranges, point_clouds.obstacle_cloud)),
    'edge_points': Output(PointCloud2, partial(_ranges, point_clouds.edge_cloud)),
    'contact_points': Output(PointCloud2, partial(_ranges, point_clouds.contact_cloud)),
    # a scan needs a frame whose z is up
    'scan': Output(
        LaserScan,
        partial(_ranges, point_clouds.scan_message),
        lambda values: bool(values['camera.base_frame']),
    ),
    'camera_info': Output(CameraInfo, _camera_info, lambda values: values['output_scale'] != 1.0),
    'obstacles': Output(
        vision.Detection2DArray,
        lambda one: detections_message(vision, one.detection.obstacles, one.header, one.tracks),
    ),
}
RANGES = ('obstacle_points', 'edge_points', 'contact_points', 'scan')


def missing_outputs() -> str:
    """Return why some topics are absent, '' when all are there."""
    if vision.Detection2DArray is not None:
        return ''
    return (
        f'{", ".join(("obstacles", *INFOS))} are off: vision_msgs is not installed (apt install '
        'ros-$ROS_DISTRO-vision-msgs)'
    )


class CameraOutputs:
    """
    The outputs of one camera on '~/...' or, for a named camera, '~/<camera>/...'.

    values: the node's parameters; they may be replaced between frames. matched: called on the
    executor's thread when a listener comes or goes. The LabelInfo topics and `obstacles` need
    vision_msgs and are absent without it.
    """

    def __init__(
        self,
        node: Any,
        camera: str,
        values: Mapping[str, Any],
        matched: Callable[[], None] = lambda: None,
    ) -> None:
        self.values = values
        self._events = PublisherEventCallbacks(matched=lambda _: matched())
        self._node, self._prefix = node, f'~/{camera}/' if camera else '~/'
        self.status_name = f'{node.get_fully_qualified_name()}: image {camera}'.rstrip()
        self.buffers = {name: ImageBuffer(row.encoding) for name, row in IMAGES.items()}
        self._latched: dict[str, Any] = {}
        profile = qos.output_profile(values['frame_queue'])
        self._publishers = {
            name: self._publisher(name, output.kind, profile)
            for name, output in OUTPUTS.items()
            if output.kind is not None and output.wanted(values)
        }
        if not missing_outputs():
            profile = qos.latched_profile()
            for name in INFOS:
                self._latched[name] = self._publisher(name, vision.LabelInfo, profile)
        profile = qos.input_profile(qos.BEST_EFFORT)
        for name in (f'debug/{name}' for name in DEBUG_TOPICS):
            self._publishers[name] = self._publisher(name, Float64, profile)

    def _publisher(self, name: str, kind: Any, profile: Any) -> Any:
        # declares the parameters qos_overrides.<topic>.publisher.*
        overridable = QoSOverridingOptions.with_default_policies()
        return self._node.create_lifecycle_publisher(
            kind,
            self._prefix + name,
            profile,
            event_callbacks=self._events,
            qos_overriding_options=overridable,
        )

    def destroy(self) -> None:
        """Remove the publishers from the node."""
        for publisher in (*self._publishers.values(), *self._latched.values()):
            self._node.destroy_lifecycle_publisher(publisher)
        self._publishers, self._latched = {}, {}

    def subscribed(self) -> list[str]:
        """Return the names of the outputs that someone subscribes to."""
        return [n for n, p in self._publishers.items() if p.get_subscription_count() > 0]

    def publish_infos(self, labels: dict[int, str], false_alarm_rate: float, stamp: Any) -> None:
        """Publish what the values of mask and label images mean, and the threshold; latched."""
        header, threshold = Header(stamp=stamp), 1.0 - false_alarm_rate
        infos = {
            'mask_info': (MASK_NAMES, threshold),
            'label_info': (labels, 0.0),
            'open_set_label_info': (open_set_names(tuple(labels.values())), threshold),
        }
        for name, publisher in self._latched.items():
            publisher.publish(label_info_message(vision, *infos[name], header))

    def publish(
        self,
        tracked: Tracked,
        header: Any,
        info: Any | None,
        *,
        look: Callable[[], RangeResult | None],
        times: FrameTimes,
    ) -> None:
        """
        Publish what is subscribed, see FrameOutputs.

        times: fill_ms and publish_ms are added to. An output that cannot be made does not keep the
        others back; the first one's error is raised when they are out, naming the output.
        """
        frame = FrameOutputs(self, tracked, header, info, look)
        failed: list[tuple[str, Exception]] = []
        for name in self.subscribed():
            if name not in OUTPUTS:
                continue
            try:
                with stopwatch(times, 'fill_ms'):
                    message = OUTPUTS[name].build(frame)
                if message is not None:
                    with stopwatch(times, 'publish_ms'):
                        self._publishers[name].publish(message)
            except Exception as error:
                failed.append((name, error))
        if failed:
            name, cause = failed[0]
            raise OutputError(f'output {name}: {type(cause).__name__}: {cause}') from cause

    def publish_debug(self, times: FrameTimes, latency_ms: float | None) -> None:
        """Publish the debug topics that are subscribed; latency only when it is known."""
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
