# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What each output's message is made of: a table from the topic's name to its builder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

from ood_perception.postprocess.image_score import inspect
from ood_perception.postprocess.open_set import OUTSIDE
from ood_perception.postprocess.output_maps import OutputMaps
from ood_perception.postprocess.overlay import OverlayOptions, draw_overlay, encode_jpeg
from ood_perception.ros.image_score import image_score_message
from ood_perception.ros.messages import (
    ImageBuffer,
    compressed_message,
    detections_message,
    image_message,
    obstacle_markers,
    scaled_camera_info,
)
from ood_perception.ros.point_clouds import PLACES, Look
from ood_perception.types import Detection

IMAGES = {
    'score': '32FC1',
    'surprisal': '32FC1',
    'confidence': 'mono8',
    'mask': 'mono8',
    'labels': 'mono8',
    'open_set_labels': 'mono8',
}

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


@dataclass(frozen=True)
class Making:
    """What a camera's messages are made with, frame after frame; vision: vision_msgs.msg."""

    buffers: Mapping[str, ImageBuffer]
    vision: Any | None
    status_name: str


class Job:
    """One frame's outputs in the making; the overlay is drawn once for both of its topics."""

    def __init__(
        self,
        options: OutputOptions,
        making: Making,
        maps: OutputMaps,
        tracks: tuple[int, ...],
        header: Any,
        info: Any | None,
        looking: Looking,
    ) -> None:
        self.maps, self.tracks, self.header, self.info = maps, tracks, header, info
        self.detection, self.options = maps.detection, options
        self.buffers, self.vision, self.name = making.buffers, making.vision, making.status_name
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


def _confidence(job: Job) -> Any:
    scale = job.options.full_scale
    return job.image('confidence', lambda out: job.maps.write_confidence(out, scale))


def _open_set(job: Job) -> Any:
    outside = job.options.open_set_outside
    return job.image('open_set_labels', lambda out: job.maps.write_open_set(out, outside))


def _image_score(job: Job) -> Any:
    judged = inspect(job.detection, job.options.top_share)
    return image_score_message(judged, job.options.image_threshold, job.name, job.header)


def _overlay_jpeg(job: Job) -> Any:
    return compressed_message(encode_jpeg(job.overlay(), job.options.jpeg_quality), job.header)


def _markers(job: Job) -> Any:
    size = job.detection.geometry.camera_height, job.detection.geometry.camera_width
    return obstacle_markers(job.detection.obstacles, size, job.info, job.header, job.tracks)


def _camera_info(job: Job) -> Any:
    if job.info is None:
        return None
    return scaled_camera_info(job.info, *job.maps.size, job.header)


def _place(name: str, job: Job) -> Any:
    look, build = job.look, PLACES[name][1]
    return None if look is None else build(look, job.detection, job.tracks, job.header)


BUILDERS: dict[str, Callable[[Job], Any]] = {
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
