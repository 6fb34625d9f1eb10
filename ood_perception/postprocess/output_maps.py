# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A detection's maps at the size of the camera picture, fresh or written into given memory."""

from __future__ import annotations

from functools import cached_property

import cv2
import numpy as np

from ood_perception.image.geometry import (
    Size,
    camera_window,
    for_output,
    to_camera,
    to_camera_nearest,
)
from ood_perception.postprocess.mask import score_from_surprisal
from ood_perception.postprocess.open_set import OUTSIDE, open_set_cells
from ood_perception.types import (
    MASK_NORMAL,
    MASK_NOT_SCORED,
    MASK_OBSTACLE,
    Detection,
    Float32Array,
    UInt8Array,
)

UNLABELLED = 255
# Rows that are worked on together: a 1080p stripe of float32 (0.5 MB) stays in the L2 cache.
_STRIPE = 64


class OutputMaps:
    """
    The maps of one detection; what several share is computed once, each only when asked for.

    Mask and labels repeat the grid's cells (each pixel takes the cell that holds its centre);
    surprisal is interpolated bilinearly, score and confidence are made from it. `write_...` fill
    given memory, which spares a 1080p map about a millisecond of page faults a frame.
    """

    def __init__(self, detection: Detection, scale: float = 1.0) -> None:
        """`scale`: size of the maps as a share of the camera picture, > 0."""
        self.detection = detection
        self._geometry = detection.geometry
        if scale != 1.0:
            height = max(1, round(detection.geometry.camera_height * scale))
            width = max(1, round(detection.geometry.camera_width * scale))
            self._geometry = for_output(detection.geometry, (height, width))

    @property
    def size(self) -> Size:
        """(height, width) of the maps in pixels."""
        return self._geometry.camera_height, self._geometry.camera_width

    def write_surprisal(self, out: Float32Array) -> None:
        """Write the surprisal >= 0, NaN = not scored, into float32 (H, W)."""
        out.fill(np.nan)
        cv2.copyTo(self._surprisal, self._scored, out)

    def write_score(self, out: Float32Array) -> None:
        """Write 1 - 10^-surprisal in [0, 1], NaN = not scored, into float32 (H, W)."""
        for top in range(0, out.shape[0], _STRIPE):
            rows = slice(top, top + _STRIPE)
            score_from_surprisal(self._surprisal[rows], out=out[rows])
            np.copyto(out[rows], np.nan, where=self._scored[rows] == 0)

    def write_confidence(self, out: UInt8Array, full_scale: float) -> None:
        """Write round(255 min(surprisal, S) / S), 0 = not scored, into uint8 (H, W)."""
        # convertScaleAbs rounds and saturates at 255, which is the min; nothing is negative.
        cv2.convertScaleAbs(self._surprisal, dst=out, alpha=255.0 / full_scale)
        np.bitwise_and(out, self._scored, out=out)

    def write_mask(self, out: UInt8Array) -> None:
        """Write MASK_NORMAL, MASK_OBSTACLE or MASK_NOT_SCORED into uint8 (H, W)."""
        cells = np.full(self.detection.mask.shape, MASK_NOT_SCORED, dtype=np.uint8)
        cells[self.detection.scored] = MASK_NORMAL
        cells[self.detection.mask] = MASK_OBSTACLE
        np.copyto(out, self._nearest(cells, MASK_NOT_SCORED))

    def write_labels(self, out: UInt8Array) -> None:
        """Write class ids into uint8 (H, W), 255 where a cropping network does not look."""
        np.copyto(out, self._nearest(self.detection.labels, UNLABELLED))

    def write_open_set(self, out: UInt8Array, outside: str = OUTSIDE[0]) -> None:
        """Write class ids, 254 unknown and 255 not scored (open_set.py) into uint8 (H, W)."""
        cells = open_set_cells(self.detection, outside)
        np.copyto(out, self._nearest(cells, UNLABELLED))

    def surprisal(self) -> Float32Array:
        """Return the surprisal, float32 (H, W) >= 0, NaN = not scored."""
        out = np.empty(self.size, dtype=np.float32)
        self.write_surprisal(out)
        return out

    def score(self) -> Float32Array:
        """Return 1 - 10^-surprisal, float32 (H, W) in [0, 1], NaN = not scored."""
        out = np.empty(self.size, dtype=np.float32)
        self.write_score(out)
        return out

    def confidence(self, full_scale: float = 5.0) -> UInt8Array:
        """Return round(255 min(surprisal, S) / S), uint8 (H, W), S: full_scale; 0: not scored."""
        out = np.empty(self.size, dtype=np.uint8)
        self.write_confidence(out, full_scale)
        return out

    def mask(self) -> UInt8Array:
        """Return 0 normal, 1 obstacle, 255 not scored, uint8 (H, W)."""
        out = np.empty(self.size, dtype=np.uint8)
        self.write_mask(out)
        return out

    def labels(self) -> UInt8Array:
        """Return class ids, uint8 (H, W), 255 where a cropping network does not look."""
        out = np.empty(self.size, dtype=np.uint8)
        self.write_labels(out)
        return out

    def open_set(self, outside: str = OUTSIDE[0]) -> UInt8Array:
        """Return class ids, 254 unknown and 255 not scored, uint8 (H, W)."""
        out = np.empty(self.size, dtype=np.uint8)
        self.write_open_set(out, outside)
        return out

    @cached_property
    def _surprisal(self) -> Float32Array:
        """float32 (H, W), everywhere."""
        return to_camera(self.detection.surprisal, self._geometry)

    @cached_property
    def _scored(self) -> UInt8Array:
        """uint8 (H, W): 255 where scored, else 0."""
        return self._nearest(self.detection.scored * np.uint8(255), 0)

    def _nearest(self, cells: UInt8Array, outside: int) -> UInt8Array:
        """Repeat the cells, with `outside` where a cropping network does not look."""
        pixels = to_camera_nearest(cells, self._geometry)
        rows, columns = camera_window(self._geometry)
        pixels[: rows.start] = outside
        pixels[rows.stop :] = outside
        pixels[:, : columns.start] = outside
        pixels[:, columns.stop :] = outside
        return pixels
