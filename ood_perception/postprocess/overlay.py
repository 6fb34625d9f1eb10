# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Images for people: surprisal over the camera image, mask, boxes, legend; the maps in colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from ood_perception.errors import ConfigError, ImageError
from ood_perception.image.geometry import camera_window, to_camera
from ood_perception.postprocess.mask import surprisal_threshold
from ood_perception.postprocess.output_maps import OutputMaps
from ood_perception.types import (
    MASK_NORMAL,
    MASK_NOT_SCORED,
    MASK_OBSTACLE,
    BoolArray,
    Detection,
    Float32Array,
    Obstacle,
    UInt8Array,
)

Color = tuple[int, int, int]

REGION_COLOR: Color = (0, 229, 255)
OBSTACLE_COLOR: Color = (255, 255, 255)
BOX_COLOR: Color = (255, 32, 80)
TEXT_COLOR: Color = (255, 255, 255)
PANEL_COLOR: Color = (16, 16, 16)
# Heat by surprisal, as shares of twice the threshold; half is where the mask begins.
_HEAT_AT = (0.0, 0.25, 0.49, 0.5, 1.0)
_HEAT_COLORS = ((32, 160, 64), (224, 208, 0), (255, 144, 0), (255, 64, 0), (208, 0, 144))
_HEAT_WEIGHTS = (0.15, 0.35, 0.6, 1.0, 1.0)
NOT_SCORED_COLOR: Color = (56, 56, 64)
# The mask's values as a viewer shows them; 0, 1 and 255 are black, black and white to the eye.
MASK_COLORS: dict[int, Color] = {
    MASK_NORMAL: _HEAT_COLORS[0],
    MASK_OBSTACLE: _HEAT_COLORS[3],
    MASK_NOT_SCORED: NOT_SCORED_COLOR,
}
_MOST_CAPTIONS = 12
_FONT = cv2.FONT_HERSHEY_SIMPLEX


@dataclass(frozen=True)
class OverlayOptions:
    """
    What the overlay shows.

    opacity: of the strongest heat colour, 0 (none) to 1; weaker surprisal is more transparent.
    boxes: draw obstacle boxes with their surprisal. region: outline what is scored.
    legend: name the rate, the colour scale and the number of obstacles.
    """

    opacity: float = 0.6
    boxes: bool = True
    region: bool = True
    legend: bool = True

    def __post_init__(self) -> None:
        if not 0.0 <= self.opacity <= 1.0:
            raise ConfigError(f'overlay opacity {self.opacity:g}: give a number from 0 to 1')


def draw_overlay(detection: Detection, options: OverlayOptions | None = None) -> UInt8Array:
    """Return the image with the detection drawn over it, uint8 (H, W, 3) RGB, a new array."""
    options = options or OverlayOptions()
    image = _with_heat(detection, options.opacity)
    line = _line_width(image)
    mask = OutputMaps(detection).image('mask')
    if options.region:
        outline(image, mask != MASK_NOT_SCORED, REGION_COLOR, line)
    outline(image, mask == MASK_OBSTACLE, OBSTACLE_COLOR, line)
    if options.boxes:
        _draw_boxes(image, detection.obstacles)
    if options.legend:
        _draw_legend(image, detection)
    return image


def color_mask(mask: UInt8Array) -> UInt8Array:
    """
    Return a mask, uint8 (H, W) of MASK_NORMAL, ..., in MASK_COLORS: uint8 (H, W, 3) RGB.

    Any other value is black.
    """
    table = np.zeros((256, 1, 3), dtype=np.uint8)
    for value, color in MASK_COLORS.items():
        table[value] = color
    colored: UInt8Array = cv2.applyColorMap(mask, table)
    return colored


def color_score(surprisal: Float32Array, false_alarm_rate: float) -> UInt8Array:
    """
    Return surprisal, float32 (H, W), NaN = not scored, in the heat's colours: uint8 (H, W, 3) RGB.

    The mask's threshold lies in the middle of the colours, the ends are 0 and twice the threshold.
    """
    colors, _ = heat_tables()
    colors[0] = NOT_SCORED_COLOR
    level = np.maximum(_heat_level(surprisal, false_alarm_rate), 1)
    scored = cv2.compare(surprisal, 0.0, cv2.CMP_GE)  # 255, and 0 where it is NaN
    colored: UInt8Array = cv2.applyColorMap(cv2.bitwise_and(level, scored), colors[:, None])
    return colored


def encode_jpeg(image: UInt8Array, quality: int = 85) -> UInt8Array:
    """Return an RGB image as JPEG, uint8 (N,); quality: 1 to 100. ImageError if refused."""
    swapped = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    done, encoded = cv2.imencode('.jpg', swapped, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ImageError(f'image of {image.shape} cannot be written as JPEG')
    data: UInt8Array = encoded.reshape(-1)
    return data


def encode_png(image: UInt8Array) -> bytes:
    """Return an RGB image as the content of a PNG file; ImageError if refused."""
    done, encoded = cv2.imencode('.png', cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not done:
        raise ImageError(f'image of {image.shape} cannot be written as PNG')
    return encoded.tobytes()


def heat_tables() -> tuple[UInt8Array, Float32Array]:
    """Return the heat's colours, uint8 (256, 3) RGB, and weights, float32 (256,), per level."""
    levels = np.arange(256) / 255
    colors = np.array(_HEAT_COLORS)
    table = np.stack([np.interp(levels, _HEAT_AT, colors[:, i]) for i in range(3)], axis=1)
    weights = np.interp(levels, _HEAT_AT, _HEAT_WEIGHTS).astype(np.float32)
    weights[0] = 0  # not scored, or no surprise at all
    return np.rint(table).astype(np.uint8), weights


def _with_heat(detection: Detection, opacity: float) -> UInt8Array:
    """
    Return a copy of the image, blended with the heat colours where it is scored.

    The products with the weights are taken on the grid; at the image's size one multiplication
    and one addition of bytes remain.
    """
    colors, weights = heat_tables()
    shares = (weights * np.float32(opacity))[:, None]
    level = _heat_level(detection.surprisal, detection.false_alarm_rate)
    level[~detection.scored] = 0
    heat = to_camera(np.rint(colors * shares).astype(np.uint8)[level], detection.geometry)
    keep = np.repeat(np.rint(255 * (1 - shares)).astype(np.uint8), 3, axis=1)
    kept = to_camera(keep[level], detection.geometry)
    image = detection.frame.image.copy()
    window = camera_window(detection.geometry)
    part = cv2.multiply(image[window], kept[window], scale=1 / 255)
    image[window] = cv2.add(part, heat[window], dst=part)
    return image


def _heat_level(surprisal: Float32Array, false_alarm_rate: float) -> UInt8Array:
    """Return the places of surprisals in the heat's colours, uint8; NaN is anything."""
    full_scale = 2 * surprisal_threshold(false_alarm_rate)
    level: UInt8Array = cv2.convertScaleAbs(surprisal, alpha=255 / full_scale)
    return level


def _line_width(image: UInt8Array) -> int:
    """Return a line width that looks the same at every image size, in pixels."""
    return max(1, round(int(image.shape[0]) / 540))


def outline(image: UInt8Array, inside: BoolArray, color: Color, width: int) -> None:
    """Draw the border of an area, bool (H, W), into the image."""
    area = np.ascontiguousarray(inside).view(np.uint8)
    contours, _ = cv2.findContours(area, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(image, contours, -1, color, width)


def _draw_boxes(image: UInt8Array, obstacles: Sequence[Obstacle]) -> None:
    """Draw every box; captions for the highest-scoring only, or they would hide each other."""
    width = _line_width(image)
    for obstacle in obstacles:
        low = (round(obstacle.x), round(obstacle.y))
        high = (round(obstacle.x + obstacle.width), round(obstacle.y + obstacle.height))
        cv2.rectangle(image, low, high, BOX_COLOR, width)
    for obstacle in obstacles[:_MOST_CAPTIONS]:
        _caption(image, f'{obstacle.surprisal:.1f}', round(obstacle.x), round(obstacle.y))


def _caption(image: UInt8Array, text: str, x: int, y: int) -> None:
    """Write a short text above the point, inside the image."""
    scale = _text_scale(image) * 0.8
    (width, height), base = cv2.getTextSize(text, _FONT, scale, 1)
    left = max(0, min(x, image.shape[1] - width))
    bottom = max(height + base, y - 2)
    cv2.rectangle(image, (left, bottom - height - base), (left + width, bottom), BOX_COLOR, -1)
    cv2.putText(image, text, (left, bottom - base // 2), _FONT, scale, TEXT_COLOR, 1, cv2.LINE_AA)


def _text_scale(image: UInt8Array) -> float:
    return max(0.3, int(image.shape[0]) / 1100)


def _draw_legend(image: UInt8Array, detection: Detection) -> None:
    """Draw a panel: rate, number of obstacles, and the colours with their surprisals."""
    threshold = surprisal_threshold(detection.false_alarm_rate)
    count = len(detection.obstacles)
    noun = 'obstacle' if count == 1 else 'obstacles'
    text = f'{count} {noun} at false alarm rate {detection.false_alarm_rate:g}'
    scale = _text_scale(image)
    (width, height), base = cv2.getTextSize(text, _FONT, scale, 1)
    pad = max(3, height // 2)
    panel = image[: 3 * height + 5 * pad, : width + 2 * pad]
    panel[:] = (panel * 0.3 + np.array(PANEL_COLOR) * 0.7).astype(np.uint8)
    _write(image, text, pad, pad + height)
    top = height + base + 2 * pad
    bar = panel[top : top + height, pad : width + pad]
    bar[:] = heat_tables()[0][np.linspace(0, 255, bar.shape[1]).astype(np.intp)]
    ends = (0.0, '0'), (0.5, f'surprisal {threshold:.3g}: mask'), (1.0, f'{2 * threshold:.3g}')
    for place, number in ends:
        (extent, _), _ = cv2.getTextSize(number, _FONT, scale * 0.8, 1)
        _write(image, number, pad + round(place * (width - extent)), top + 2 * height + pad, 0.8)


def _write(image: UInt8Array, text: str, x: int, y: int, size: float = 1.0) -> None:
    scale = _text_scale(image) * size
    cv2.putText(image, text, (x, y), _FONT, scale, TEXT_COLOR, 1, cv2.LINE_AA)
