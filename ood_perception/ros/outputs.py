# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""One camera's publishers: each output is computed only while someone subscribes to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Float64
from visualization_msgs.msg import MarkerArray

from ood_perception.inspection import inspect
from ood_perception.maps import OutputMaps
from ood_perception.open_set import OUTSIDE, open_set_names
from ood_perception.overlay import OverlayOptions, draw_overlay, encode_jpeg
from ood_perception.ros import qos
from ood_perception.ros.clouds import PLACES, Look
from ood_perception.ros.image_score import image_score_message
from ood_perception.ros.messages import (
    ImageBuffer,
    compressed_message,
    detections_message,
    image_message,
    label_info_message,
    obstacle_markers,
    scaled_camera_info,
)
from ood_perception.ros.timing import FrameTimes, Stopwatch
from ood_perception.tracking import Tracked
from ood_perception.types import MASK_NORMAL, MASK_NOT_SCORED, MASK_OBSTACLE, Detection

DEBUG_TOPICS = ('preprocess_ms', 'inference_ms', 'postprocess_ms', 'latency_ms')
MASK_NAMES = {MASK_NORMAL: 'normal', MASK_OBSTACLE: 'obstacle', MASK_NOT_SCORED: 'not scored'}
IMAGES = {
    'score': '32FC1',
    'surprisal': '32FC1',
    'confidence': 'mono8',
    'mask': 'mono8',
    'labels': 'mono8',
    'open_set_labels': 'mono8',
}
INFOS = ('mask_info', 'label_info', 'open_set_label_info')

Looking = Callable[[Detection], Look | None]


@dataclass(frozen=True)
class OutputOptions:
    """
    How outputs are made.

    scale: size of the output images as a share of the camera picture, in (0, 1].
    full_scale: surprisal that `confidence` shows as 255, > 0.
    scan: whether there is a scan; it needs a frame whose z is up.
    open_set_outside: what open_set_labels holds outside the region, see open_set.open_set_cells.
    top_share: of image_score, see inspection.image_surprisal. image_threshold: image score from
    which a picture is reported as anomalous, 0 = none.
    """

    scale: float = 1.0
    full_scale: float = 5.0
    overlay: OverlayOptions = field(default_factory=OverlayOptions)
    jpeg_quality: int = 85
    scan: bool = False
    open_set_outside: str = OUTSIDE[0]
    top_share: float = 0.0
    image_threshold: float = 0.0
    depth: int = 1


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
        self._buffers = {name: ImageBuffer(encoding) for name, encoding in IMAGES.items()}
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
        job = _Job(self, maps, tracked.tracks, header, info, looking)
        for name in self.demanded():
            build = _BUILDERS.get(name)
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


class _Job:
    """One frame's outputs in the making; the overlay is drawn once for both of its topics."""

    def __init__(
        self,
        outputs: CameraOutputs,
        maps: OutputMaps,
        tracks: tuple[int, ...],
        header: Any,
        info: Any | None,
        looking: Looking,
    ) -> None:
        self.maps, self.tracks, self.header, self.info = maps, tracks, header, info
        self.detection, self.options = maps.detection, outputs.options
        self.buffers, self.vision = outputs._buffers, outputs._vision
        self.name = outputs.status_name
        self._looking = looking
        self._overlay: Any = None

    @cached_property
    def look(self) -> Look | None:
        """Bearings and distances, made once for all outputs that need them."""
        return self._looking(self.detection)

    def image(self, name: str, write: Callable[[Any], None]) -> Any:
        """Let `write` fill the named output's message."""
        buffer = self.buffers[name]
        write(buffer.pixels(*self.maps.size))
        return buffer.stamped(self.header)

    def overlay(self) -> Any:
        """uint8 (H, W, 3) RGB."""
        if self._overlay is None:
            self._overlay = draw_overlay(self.detection, self.options.overlay)
        return self._overlay


def _confidence(job: _Job) -> Any:
    scale = job.options.full_scale
    return job.image('confidence', lambda out: job.maps.write_confidence(out, scale))


def _open_set(job: _Job) -> Any:
    outside = job.options.open_set_outside
    return job.image('open_set_labels', lambda out: job.maps.write_open_set(out, outside))


def _image_score(job: _Job) -> Any:
    judged = inspect(job.detection, job.options.top_share)
    return image_score_message(judged, job.options.image_threshold, job.name, job.header)


def _overlay_jpeg(job: _Job) -> Any:
    return compressed_message(encode_jpeg(job.overlay(), job.options.jpeg_quality), job.header)


def _markers(job: _Job) -> Any:
    size = job.detection.geometry.camera_height, job.detection.geometry.camera_width
    return obstacle_markers(job.detection.obstacles, size, job.info, job.header, job.tracks)


def _camera_info(job: _Job) -> Any:
    if job.info is None:
        return None
    return scaled_camera_info(job.info, *job.maps.size, job.header)


def _place(name: str, job: _Job) -> Any:
    look, build = job.look, PLACES[name][1]
    return None if look is None else build(look, job.detection, job.tracks, job.header)


_BUILDERS: dict[str, Callable[[_Job], Any]] = {
    'score': lambda job: job.image('score', job.maps.write_score),
    'surprisal': lambda job: job.image('surprisal', job.maps.write_surprisal),
    'confidence': _confidence,
    'mask': lambda job: job.image('mask', job.maps.write_mask),
    'labels': lambda job: job.image('labels', job.maps.write_labels),
    'open_set_labels': _open_set,
    'image_score': _image_score,
    'overlay': lambda job: image_message(job.overlay(), 'rgb8', job.header),
    'overlay/compressed': _overlay_jpeg,
    'obstacles': lambda job: detections_message(
        job.vision, job.detection.obstacles, job.header, job.tracks
    ),
    'obstacle_markers': _markers,
    'camera_info': _camera_info,
    **{name: partial(_place, name) for name in PLACES},
}
