# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A detection's maps at the size of the output images, written into given memory."""

from __future__ import annotations

import dataclasses
from functools import cached_property

import cv2
import numpy as np

from ood_perception.geometry import to_camera, to_camera_nearest
from ood_perception.postprocess import score_from_surprisal
from ood_perception.types import (
    MASK_NORMAL,
    MASK_NOT_SCORED,
    MASK_OBSTACLE,
    BoolArray,
    Detection,
    Float32Array,
    Geometry,
    UInt8Array,
)

# Rows that are worked on together: a 1080p stripe of float32 (0.5 MB) stays in the L2 cache.
_STRIPE = 64


def output_geometry(geometry: Geometry, scale: float) -> Geometry:
    """Return the geometry of a picture of `scale` times the camera's size, rounded, >= 1 pixel."""
    height = max(1, round(geometry.camera_height * scale))
    width = max(1, round(geometry.camera_width * scale))
    return dataclasses.replace(
        geometry,
        camera_height=height,
        camera_width=width,
        scale_y=geometry.scale_y * geometry.camera_height / height,
        scale_x=geometry.scale_x * geometry.camera_width / width,
    )


class OutputMaps:
    """
    The maps of one detection; what several outputs need is computed once, and only on demand.

    scale: size of the outputs as a share of the camera picture.
    """

    def __init__(self, detection: Detection, scale: float = 1.0) -> None:
        self.detection = detection
        whole = detection.geometry
        self._geometry = whole if scale == 1.0 else output_geometry(whole, scale)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the outputs in pixels."""
        return self._geometry.camera_height, self._geometry.camera_width

    @cached_property
    def _surprisal(self) -> Float32Array:
        """float32 (H, W), everywhere."""
        return to_camera(self.detection.surprisal, self._geometry)

    @cached_property
    def _outside(self) -> BoolArray:
        """Bool (H, W): not scored."""
        return to_camera_nearest(~self.detection.scored, self._geometry).astype(bool, copy=False)

    @cached_property
    def _everywhere(self) -> bool:
        return bool(self.detection.scored.all())

    def write_surprisal(self, out: Float32Array) -> None:
        """Write surprisal >= 0, NaN = not scored, into float32 (H, W)."""
        np.copyto(out, self._surprisal)
        if not self._everywhere:
            np.copyto(out, np.nan, where=self._outside)

    def write_score(self, out: Float32Array) -> None:
        """Write score = 1 - 10^-surprisal in [0, 1], NaN = not scored, into float32 (H, W)."""
        for top in range(0, out.shape[0], _STRIPE):
            rows = slice(top, top + _STRIPE)
            stripe = out[rows]
            np.copyto(stripe, score_from_surprisal(self._surprisal[rows]))
            if not self._everywhere:
                np.copyto(stripe, np.nan, where=self._outside[rows])

    def write_confidence(self, out: UInt8Array, full_scale: float) -> None:
        """Write round(255 min(surprisal, S) / S), 0 where not scored, into uint8 (H, W)."""
        # Saturates at 255, which is the min, and rounds; surprisal has no sign to lose.
        cv2.convertScaleAbs(self._surprisal, dst=out, alpha=255.0 / full_scale)
        if not self._everywhere:
            np.copyto(out, 0, where=self._outside)

    def write_mask(self, out: UInt8Array) -> None:
        """Write MASK_NORMAL, MASK_OBSTACLE or MASK_NOT_SCORED into uint8 (H, W)."""
        grid = np.where(self.detection.mask, np.uint8(MASK_OBSTACLE), np.uint8(MASK_NORMAL))
        grid[~self.detection.scored] = MASK_NOT_SCORED
        np.copyto(out, to_camera_nearest(grid, self._geometry), casting='unsafe')

    def write_labels(self, out: UInt8Array) -> None:
        """Write the arg-max known class into uint8 (H, W)."""
        np.copyto(out, to_camera_nearest(self.detection.labels, self._geometry), casting='unsafe')
