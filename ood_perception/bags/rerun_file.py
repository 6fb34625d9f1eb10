# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A replay for the Rerun viewer: images, maps, obstacles and curves on one time line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ood_perception.errors import required
from ood_perception.postprocess.image_score import inspect
from ood_perception.postprocess.mask import surprisal_threshold
from ood_perception.postprocess.output_maps import OutputMaps
from ood_perception.postprocess.overlay import (
    BOX_COLOR,
    MASK_COLORS,
    OverlayOptions,
    color_score,
    draw_overlay,
    encode_jpeg,
)
from ood_perception.postprocess.tracking import Tracked
from ood_perception.ranging.ground import Scene
from ood_perception.ranging.ranges import RangedDetections, barriers
from ood_perception.types import MASK_NAMES, UInt8Array

from .ranges import BagRanges

TIMELINE = 'bag_time'
_IMAGES = ('image', 'overlay', 'score', 'mask')
# Boxes are drawn by the viewer, where they can be pointed at.
_OVERLAY = OverlayOptions(boxes=False)
# an obstacle on open ground, one at the ground's end, the ground's blocked end
_CONTACT_COLORS = ((255, 100, 32), (255, 208, 0), (200, 160, 255))


class RerunFile:
    """
    A .rrd file in the making. Use as a context manager.

    Per camera: image with the obstacles' boxes, overlay, score and mask (its values by name), and
    as curves the flagged share beside the target rate and the largest surprisal beside the
    threshold; where distances are known, obstacles and what a path must not cross in the base
    frame, and the nearest distance. The time is that of the messages in the bag. The file is not
    the same byte by byte over two runs: Rerun numbers its recordings and chunks at random.
    """

    def __init__(self, path: Path, cameras: Sequence[str], ranges: BagRanges) -> None:
        """Create the file; DependencyError without rerun-sdk."""
        self._rerun, self._ranges = _rerun(), ranges
        self._recording = self._rerun.RecordingStream('ood_perception')
        self._recording.set_log_time_enabled(False)  # when it was evaluated is no matter
        self._recording.set_log_tick_enabled(False)
        self._recording.save(
            path, default_blueprint=_blueprint(self._rerun, cameras, ranges.possible)
        )
        classes = [(value, MASK_NAMES[value], color) for value, color in MASK_COLORS.items()]
        context = self._rerun.AnnotationContext(classes)
        for camera in cameras:
            self._recording.log(f'{_root(camera)}/mask', context, static=True)
            axes = self._rerun.ViewCoordinates.RIGHT_HAND_Z_UP
            self._recording.log(f'{_root(camera)}/ground', axes, static=True)

    def add(self, tracked: Tracked, maps: OutputMaps, scene: Scene, time_ns: int) -> None:
        """Add a frame; maps: at the camera's size. time_ns: the log time of its message."""
        detection, judged = tracked.detection, inspect(tracked.detection)
        rate, curve = detection.false_alarm_rate, self._rerun.Scalars
        logged = {
            'image': self._jpeg(detection.frame.image),
            'image/obstacles': self._boxes(tracked),
            'overlay': self._jpeg(draw_overlay(detection, _OVERLAY)),
            'score': self._jpeg(color_score(maps.image('surprisal'), rate)),
            'mask': self._rerun.SegmentationImage(maps.image('mask')),
            'flagged/share': curve(judged.flagged),
            'flagged/target': curve(rate),
            'surprisal/largest': curve(judged.surprisal),
            'surprisal/threshold': curve(surprisal_threshold(rate)),
        }
        ranged = self._ranges.of(detection, scene)
        if self._ranges.possible:
            logged |= self._ground(ranged)
        self._recording.set_time(TIMELINE, timestamp=np.datetime64(time_ns, 'ns'))
        for name, value in logged.items():
            self._recording.log(f'{_root(detection.frame.camera)}/{name}', value)

    def _jpeg(self, pixels: UInt8Array) -> Any:
        contents = encode_jpeg(pixels).tobytes()
        return self._rerun.EncodedImage(contents=contents, media_type='image/jpeg')

    def _ground(self, ranged: RangedDetections | None) -> dict[str, Any]:
        """Return a frame's points; none where nothing is known, or the last ones would stay."""
        points3d = self._rerun.Points3D
        if ranged is None:
            return {f'ground/{name}': points3d([]) for name in ('contacts', 'obstacles')}
        points, _, kinds = barriers(ranged)
        places = ranged.obstacles
        known = np.isfinite(places.distance)
        distances, sigmas = places.distance[known], places.distance_sigma[known]
        pairs = zip(distances, sigmas, strict=True)
        return {
            'ground/contacts': points3d(
                points, colors=np.array(_CONTACT_COLORS)[kinds], radii=0.15
            ),
            'ground/obstacles': points3d(
                places.points[known],
                colors=[BOX_COLOR],
                radii=0.4,
                labels=[f'{distance:.1f} m +- {sigma:.1f}' for distance, sigma in pairs],
            ),
            'nearest/metres': self._rerun.Scalars(distances.min() if known.any() else np.nan),
        }

    def _boxes(self, tracked: Tracked) -> Any:
        obstacles = tracked.detection.obstacles
        labels = [f'{obstacle.surprisal:.2f}' for obstacle in obstacles]
        if tracked.tracks:
            pairs = zip(tracked.tracks, labels, strict=True)
            labels = [f'#{track} {label}' for track, label in pairs]
        mins = np.array([(one.x, one.y) for one in obstacles], dtype=float).reshape(-1, 2)
        sizes = np.array([(one.width, one.height) for one in obstacles], dtype=float)
        return self._rerun.Boxes2D(
            mins=mins, sizes=sizes.reshape(-1, 2), labels=labels, colors=[BOX_COLOR]
        )

    def __enter__(self) -> RerunFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._recording.disconnect()  # writes what is still held


def check_rerun() -> None:
    """Raise DependencyError without rerun-sdk."""
    _rerun()


def _rerun() -> Any:
    remedy = "--rrd needs rerun-sdk (the extra rerun): pip install 'rerun-sdk>=0.41'"
    return required('rerun', remedy)


def _root(camera: str) -> str:
    return f'/{camera or "camera"}'


def _blueprint(rerun: Any, cameras: Sequence[str], ground: bool) -> Any:
    """Return the layout: a tab for each camera; ground: with the obstacles in space."""
    views = rerun.blueprint
    tabs = []
    for camera in cameras:
        root = _root(camera)
        grid = [views.Spatial2DView(origin=f'{root}/{name}', name=name) for name in _IMAGES]
        curves = [
            views.TimeSeriesView(origin=f'{root}/{name}', name=name)
            for name in ('flagged', 'surprisal', *(('nearest',) if ground else ()))
        ]
        images: Any = views.Grid(*grid, grid_columns=2)
        if ground:
            space = views.Spatial3DView(origin=f'{root}/ground', name='ground')
            images = views.Horizontal(images, space, column_shares=[2, 1])
        rows = (images, views.Horizontal(*curves))
        tabs.append(views.Vertical(*rows, row_shares=[4, 1], name=camera or 'camera'))
    return views.Blueprint(views.Tabs(*tabs), collapse_panels=True)
