# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The values that travel between stages: frozen, with shapes and ranges in the docstrings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

UInt8Array = npt.NDArray[np.uint8]
UInt16Array = npt.NDArray[np.uint16]
Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
Int64Array = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

MASK_NORMAL = 0
MASK_OBSTACLE = 1
MASK_NOT_SCORED = 255
MASK_NAMES = {MASK_NORMAL: 'normal', MASK_OBSTACLE: 'obstacle', MASK_NOT_SCORED: 'not scored'}


@dataclass(frozen=True)
class Frame:
    """
    One decoded camera image.

    image: uint8 (H, W, 3), RGB, C-contiguous.
    camera: the camera's name, '' for the single unnamed camera.
    stamp_ns: time of the exposure in nanoseconds, as the header says.
    frame_id: the header's frame_id, untouched.
    horizon: float64 (n, 2), points x, y of the horizon in camera pixels, x rising; None = not
        known. Regions that end at the ground's edge end there at the latest.
    """

    image: UInt8Array
    camera: str = ''
    stamp_ns: int = 0
    frame_id: str = ''
    horizon: npt.NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Geometry:
    """
    The map between a camera image and the network input (made by geometry.geometry_for).

    Camera pixel centres (x, y) map to network pixel centres by
    ``x_net = (x + 0.5) * scale_x + offset_x - 0.5``, y likewise.

    camera_height, camera_width: the image, in pixels.
    height, width: the network input, in pixels.
    scale_x, scale_y: network pixels per camera pixel.
    offset_x, offset_y: where the image's left/top edge falls in the network input, in network
        pixels; negative when the image is cropped, positive when it is padded.
    """

    camera_height: int
    camera_width: int
    height: int
    width: int
    scale_x: float
    scale_y: float
    offset_x: float
    offset_y: float


@dataclass(frozen=True)
class Obstacle:
    """
    One connected component of the mask.

    x, y, width, height: bounding box in camera pixels (x, y = left, top edge).
    area: covered camera pixels (grid cells times the cell's area), > 0.
    surprisal: the largest surprisal inside, >= -log10(false_alarm_rate) unless the obstacle is
        one by its label (Settings.obstacle_classes).
    """

    x: float
    y: float
    width: float
    height: float
    area: float
    surprisal: float

    @property
    def center(self) -> tuple[float, float]:
        """The box's middle, x and y, in coordinates whose whole numbers are pixel centres."""
        return self.x + self.width / 2 - 0.5, self.y + self.height / 2 - 0.5

    @property
    def score(self) -> float:
        """1 - 10^-surprisal, in [0, 1]."""
        return 1.0 - float(10.0**-self.surprisal)


@dataclass(frozen=True)
class StageTimes:
    """Wall time of the stages of one frame in milliseconds (a batch's inference is shared)."""

    preprocess_ms: float = 0.0
    inference_ms: float = 0.0
    postprocess_ms: float = 0.0


@dataclass(frozen=True)
class Detection:
    """
    What one frame gives, on the score grid (gh, gw) = patch grid x upsampling factor.

    surprisal: float32 (gh, gw) >= 0, -log10 of the calibrated p-value, never NaN.
    labels: uint8 (gh, gw), arg-max known class.
    scored: bool (gh, gw), inside the image and the region of interest.
    mask: bool (gh, gw), obstacle pixels; a subset of scored and of
        surprisal >= -log10(false_alarm_rate), or of an obstacle class.
    obstacles: components of the mask, largest surprisal first.
    geometry: how the grid lies over the camera image.
    false_alarm_rate: the rate that the mask was made for.
    times: wall times.
    visible: bool (gh, gw), inside the image and not ignored, whatever the region of interest
        makes of it; None = not kept.
    """

    frame: Frame
    surprisal: Float32Array
    labels: UInt8Array
    scored: BoolArray
    mask: BoolArray
    obstacles: tuple[Obstacle, ...]
    geometry: Geometry
    false_alarm_rate: float
    times: StageTimes = field(default_factory=StageTimes)
    visible: BoolArray | None = None


@dataclass(frozen=True)
class EngineOutput:
    """
    What an engine returns for a batch.

    surprisal: float32 (B, gh, gw) >= 0.
    labels: uint8 (B, gh, gw).
    stage_ms: wall time per stage name, in milliseconds.
    """

    surprisal: Float32Array
    labels: UInt8Array
    stage_ms: dict[str, float]


JsonDict = dict[str, Any]
Tell = Callable[[str], None]  # takes a line for people
