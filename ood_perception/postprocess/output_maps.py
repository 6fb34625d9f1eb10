# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A detection's maps at the size of the camera image, fresh or written into given memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ood_perception.errors import ConfigError
from ood_perception.image.geometry import (
    Size,
    camera_window,
    for_output,
    to_camera,
    to_camera_nearest,
)
from ood_perception.postprocess.mask import score_from_surprisal, surprisal_threshold
from ood_perception.types import (
    MASK_NORMAL,
    MASK_NOT_SCORED,
    MASK_OBSTACLE,
    Detection,
    Float32Array,
    UInt8Array,
)

# Class ids end at 253, so that both values below are free in every bundle.
UNKNOWN = 254
NOT_SCORED = MASK_NOT_SCORED
UNKNOWN_NAME, NOT_SCORED_NAME = 'unknown', 'not scored'
OUTSIDE = ('not_scored', 'labels')


def open_set_cells(detection: Detection, outside: str = OUTSIDE[0]) -> UInt8Array:
    """
    Return the open-set labels on the score grid, uint8 (gh, gw).

    Where the mask is set by the score: UNKNOWN; what is an obstacle by its class alone keeps that
    class. Elsewhere inside the region of interest: the class id. Outside
    it, for `outside` = 'not_scored': NOT_SCORED; for 'labels': the class id, which no score has
    checked. Raises ConfigError for another `outside`.

    The mask speaks for the chosen classes: a known class that is not among `in_distribution` is
    unknown here, too. Choose all classes to see what the bundle has never been shown.
    """
    if outside not in OUTSIDE:
        raise ConfigError(f'open-set outside {outside!r}: choose one of {", ".join(OUTSIDE)}')
    cells = detection.labels.copy()
    if outside == OUTSIDE[0]:
        cells[~detection.scored] = NOT_SCORED
    flagged = detection.surprisal >= surprisal_threshold(detection.false_alarm_rate)
    cells[detection.mask & flagged] = UNKNOWN
    return cells


def open_set_names(classes: Sequence[str]) -> dict[int, str]:
    """Return what every value of the open-set labels means, for a LabelInfo."""
    names = dict(enumerate(classes[:UNKNOWN]))
    return {**names, UNKNOWN: UNKNOWN_NAME, NOT_SCORED: NOT_SCORED_NAME}


UNLABELLED = 255
FULL_SCALE = 5.0
# Rows that are worked on together: a 1080p stripe of float32 (0.5 MB) stays in the L2 cache.
_STRIPE = 64


class OutputMaps:
    """
    The maps of one detection; what several share is computed once, each only when asked for.

    Mask and labels repeat the grid's cells (each pixel takes the cell that holds its centre);
    surprisal is interpolated bilinearly, score and confidence are made from it. `write_...` fill
    given memory, which spares a 1080p map about a millisecond of page faults a frame.
    """

    def __init__(
        self,
        detection: Detection,
        scale: float = 1.0,
        full_scale: float = FULL_SCALE,
        outside: str = OUTSIDE[0],
    ) -> None:
        """
        Make no map yet.

        scale: size of the maps as a share of the camera image, > 0. full_scale: surprisal that
        `confidence` shows as 255, > 0. outside: what open_set_labels holds outside the region,
        see open_set.open_set_cells.
        """
        self.detection, self._full_scale, self._outside = detection, full_scale, outside
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

    def write_confidence(self, out: UInt8Array) -> None:
        """Write round(255 min(surprisal, S) / S), S: full_scale, 0 = not scored: uint8 (H, W)."""
        # convertScaleAbs rounds and saturates at 255, which is the min; nothing is negative.
        cv2.convertScaleAbs(self._surprisal, dst=out, alpha=255.0 / self._full_scale)
        np.bitwise_and(out, self._scored, out=out)

    def write_mask(self, out: UInt8Array) -> None:
        """Write MASK_NORMAL, MASK_OBSTACLE or MASK_NOT_SCORED into uint8 (H, W)."""
        cells = np.full(self.detection.mask.shape, MASK_NOT_SCORED, dtype=np.uint8)
        cells[self.detection.scored] = MASK_NORMAL
        cells[self.detection.mask] = MASK_OBSTACLE
        self._nearest(cells, MASK_NOT_SCORED, out)

    def write_labels(self, out: UInt8Array) -> None:
        """Write class ids into uint8 (H, W), 255 where a cropping network does not look."""
        self._nearest(self.detection.labels, UNLABELLED, out)

    def write_open_set(self, out: UInt8Array) -> None:
        """Write class ids, 254 unknown and 255 not scored into uint8 (H, W)."""
        self._nearest(open_set_cells(self.detection, self._outside), UNLABELLED, out)

    def image(self, name: str) -> npt.NDArray[Any]:
        """Return a map of IMAGES in memory of its own, (H, W) of its type."""
        row = IMAGES[name]
        out = np.empty(self.size, dtype=row.dtype)
        row.write(self, out)
        return out

    @cached_property
    def _surprisal(self) -> Float32Array:
        """float32 (H, W), everywhere."""
        return to_camera(self.detection.surprisal, self._geometry)

    @cached_property
    def _scored(self) -> UInt8Array:
        """uint8 (H, W): 255 where scored, else 0."""
        return self._nearest(self.detection.scored * np.uint8(255), 0)

    def _nearest(
        self, cells: UInt8Array, outside: int, out: UInt8Array | None = None
    ) -> UInt8Array:
        """Repeat the cells into `out`, with `outside` where a cropping network does not look."""
        pixels = to_camera_nearest(cells, self._geometry, out)
        rows, columns = camera_window(self._geometry)
        pixels[: rows.start] = outside
        pixels[rows.stop :] = outside
        pixels[:, : columns.start] = outside
        pixels[:, columns.stop :] = outside
        return pixels


@dataclass(frozen=True)
class ImageOutput:
    """An output that is an image: its encoding in a message, its type, and what fills it."""

    encoding: str
    dtype: type[Any]
    write: Callable[[OutputMaps, Any], None]


# The image outputs of node and result bag, by topic.
IMAGES = {
    'score': ImageOutput('32FC1', np.float32, OutputMaps.write_score),
    'surprisal': ImageOutput('32FC1', np.float32, OutputMaps.write_surprisal),
    'confidence': ImageOutput('mono8', np.uint8, OutputMaps.write_confidence),
    'mask': ImageOutput('mono8', np.uint8, OutputMaps.write_mask),
    'labels': ImageOutput('mono8', np.uint8, OutputMaps.write_labels),
    'open_set_labels': ImageOutput('mono8', np.uint8, OutputMaps.write_open_set),
}
