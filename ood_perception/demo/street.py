# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What stands beside and behind the rendered road: house fronts, trees, sky."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from ood_perception.demo.camera import Camera, Integral, resample
from ood_perception.demo.noise import fractal_noise, soft_step
from ood_perception.types import Float32Array

# House fronts: pixels per metre, length that repeats, height, metres.
RESOLUTION = 40
LENGTH = 54.0
HEIGHT = 13.0
_COLORS = ((148, 104, 82), (168, 156, 136), (120, 92, 80), (186, 180, 170), (140, 126, 104))


def _shape() -> tuple[int, int]:
    return round(LENGTH * RESOLUTION), round(HEIGHT * RESOLUTION)


def _house(rng: np.random.Generator, rows: int, height: float) -> Float32Array:
    """Return one front, float32 (rows along the street, columns upward, 3)."""
    columns = round(height * RESOLUTION)
    color = np.array(_COLORS[int(rng.integers(len(_COLORS)))], np.float32) * rng.uniform(0.7, 1.0)
    y = np.arange(columns) / RESOLUTION
    z = np.arange(rows) / RESOLUTION
    course = 1.0 - 0.14 * ((y % 0.15) < 0.03)[None, :]
    tone = course * (1.0 + 0.06 * fractal_noise(rng, (rows, columns), (60, 8, 3), gain=0.9))
    wall = tone[..., None] * color
    storey, bay = rng.uniform(2.8, 3.2), rng.uniform(2.0, 2.9)
    across, upward = np.abs(z % bay - bay / 2), (y - 3.4) % storey
    frame = (across < 0.62)[:, None] & ((upward > 0.75) & (upward < 2.3) & (y > 3.4))[None]
    pane = (across < 0.54)[:, None] & ((upward > 0.83) & (upward < 2.22) & (y > 3.4))[None]
    wall[frame] = (198, 196, 190)
    glass = 34.0 + 40.0 * np.clip(fractal_noise(rng, (rows, columns), (90, 30)), -0.7, 2.0)
    wall[pane] = (glass[..., None] * np.array([0.9, 1.0, 1.1], np.float32))[pane]
    shop = (np.abs(z % (2 * bay) - bay) < bay * 0.8)[:, None] & ((y > 0.45) & (y < 2.5))[None]
    wall[shop] = (0.8 * glass[..., None] * np.array([1.1, 1.0, 0.9], np.float32))[shop]
    sign = rng.uniform(30, 150, 3).astype(np.float32)
    wall[:, (y > 2.6) & (y < 3.2)] = sign
    wall[:, y > height - 0.35] *= 0.6
    return np.asarray(wall, np.float32)


def fronts(rng: np.random.Generator) -> Float32Array:
    """Return a row of houses, float32 (along z, upward, 4): RGB times cover, cover 0..1."""
    shape = _shape()
    picture = np.zeros((*shape, 4), np.float32)
    at = 0
    while at < shape[0]:
        rows = min(round(rng.uniform(6.0, 12.0) * RESOLUTION), shape[0] - at)
        house = _house(rng, rows, rng.uniform(6.5, 12.5))
        picture[at : at + rows, : house.shape[1], :3] = house
        picture[at : at + rows, : house.shape[1], 3] = 1.0
        at += rows
    return picture


def foliage(rng: np.random.Generator, shape: tuple[int, int], dense: float) -> Float32Array:
    """Return leaves lit from above, float32 (along, upward, 3)."""
    clumps = fractal_noise(rng, shape, (70, 28, 11, 5, 2.5), gain=0.85)
    above = np.roll(clumps, -6, axis=1)
    light = np.clip(0.75 + 0.30 * clumps + 0.35 * (clumps - above), 0.06, 2.2) * dense
    hue = 0.5 + 0.5 * np.tanh(fractal_noise(rng, shape, (60, 20)))
    green = np.array([52, 78, 34], np.float32) + hue[..., None] * np.array([40, 30, 8], np.float32)
    return np.asarray(green * light[..., None], np.float32)


@dataclass(frozen=True)
class Wall:
    """A vertical texture along the road at x metres from the camera's line."""

    x: float
    texture: Integral

    def draw(self, camera: Camera) -> tuple[slice, Float32Array]:
        """Return the picture columns it covers and RGBA float32 (height, columns, 4)."""
        sight = camera.focal * self.x
        edges = np.arange(camera.width + 1, dtype=np.float64) - camera.center
        usable = [
            c for c in range(camera.width) if min(sight * edges[c], sight * edges[c + 1]) > 0
        ]
        result = np.zeros((camera.height, len(usable), 4), np.float32)
        rows = np.arange(camera.height, -1, -1, dtype=np.float64)
        for index, column in enumerate(usable):
            near, far = sorted((sight / edges[column], sight / edges[column + 1]))
            line = self.texture.strip(near + camera.travelled, far + camera.travelled)
            depth = (near + far) / 2
            metres = camera.above + (camera.horizon - rows) * depth / camera.focal
            result[:, index] = _column(line, metres)[::-1]
        return slice(usable[0], usable[-1] + 1), result


def _column(line: Float32Array, metres: Float32Array) -> Float32Array:
    """Return RGBA (rows, 4) of a wall column between ascending heights (rows + 1,) in metres."""
    edges = np.clip(metres, 0.0, HEIGHT) * RESOLUTION
    pixels = resample(line, edges)
    width = np.diff(metres) * RESOLUTION
    # Rows that the wall covers in part (its foot) are covered in part.
    share = np.clip(np.diff(edges) / np.maximum(width, 1e-6), 0.0, 1.0).astype(np.float32)
    return np.asarray(pixels * share[:, None], np.float32)


def sky(rng: np.random.Generator, camera: Camera, cloudy: float) -> Float32Array:
    """Return the sky behind everything, float32 (height, width, 3), RGB 0..255."""
    shape = (camera.height, camera.width)
    row = np.arange(camera.height, dtype=np.float32)[:, None] / camera.horizon
    top, low = np.array([128, 164, 214], np.float32), np.array([222, 228, 234], np.float32)
    clear = top + np.clip(row, 0, 1)[..., None] ** 0.7 * (low - top)
    shapes = fractal_noise(rng, shape, (300, 130, 60, 28, 12), gain=0.6)
    cover = soft_step(shapes, 0.9 - 1.9 * cloudy, 1.8)[..., None]
    shade = 212.0 + 24.0 * np.tanh(fractal_noise(rng, shape, (240, 90, 40)))[..., None]
    return np.asarray(clear + cover * (shade - clear), np.float32)


def skyline(rng: np.random.Generator, camera: Camera, haze: Float32Array) -> Float32Array:
    """Return far trees and roofs at the horizon, RGBA float32 (height, width, 4)."""
    line = 26.0 + 14.0 * fractal_noise(rng, (camera.width, 1), (160, 60, 20, 6), gain=0.75)[:, 0]
    above = camera.horizon + 4.0 - np.arange(camera.height, dtype=np.float32)[:, None]
    cover = soft_step((line[None, :] - above).astype(np.float32), 0.0, 3.0)
    cover = cover * (above > 0)
    leaves = foliage(rng, (camera.width, camera.height), 0.8).transpose(1, 0, 2)
    color = haze + 0.62 * (leaves - haze)
    return np.concatenate([color * cover[..., None], cover[..., None]], axis=2).astype(np.float32)


def tree(rng: np.random.Generator) -> Float32Array:
    """Return a tree, 6 m wide and 9 m high, RGBA float32 (rows from the top, columns, 4)."""
    rows, columns = 540, 360
    trunk = np.zeros((rows, columns), np.uint8)
    _branch(rng, trunk, np.array([columns / 2, rows - 1.0]), -np.pi / 2, 150.0, 15)
    leaves = np.zeros((rows, columns), np.uint8)
    for _ in range(1500):
        angle, reach = rng.uniform(0, 2 * np.pi), rng.uniform(0, 1) ** 0.6
        x = columns / 2 + 165 * reach * np.cos(angle) + rng.normal(0, 9)
        y = 190 + 180 * reach * np.sin(angle) + rng.normal(0, 9)
        cv2.circle(leaves, (int(x), int(y)), int(rng.integers(3, 9)), 255, -1)
    bark = np.array([62, 54, 46], np.float32) * np.linspace(0.7, 1.3, columns)[None, :, None]
    cover = cv2.GaussianBlur(trunk, (0, 0), 0.7).astype(np.float32)[..., None] / 255.0
    picture = np.concatenate([np.broadcast_to(bark, (rows, columns, 3)) * cover, cover], axis=2)
    green = foliage(rng, (columns, rows), 1.0).transpose(1, 0, 2)[::-1]
    over = cv2.GaussianBlur(leaves, (0, 0), 0.8).astype(np.float32)[..., None] / 255.0
    layer = np.concatenate([green * over, over], axis=2)
    return np.asarray(layer + picture * (1.0 - over), np.float32)


def _branch(
    rng: np.random.Generator,
    canvas: cv2.typing.MatLike,
    start: Any,
    angle: float,
    length: float,
    width: float,
) -> None:
    """Draw a branch and its twigs, in place."""
    end = start + length * np.array([np.cos(angle), np.sin(angle)])
    cv2.line(canvas, _pixel(start), _pixel(end), 255, max(1, round(width)))
    if width < 1.5:
        return
    for _ in range(3):
        turn = angle + rng.normal(0, 0.5)
        _branch(rng, canvas, end, turn, length * rng.uniform(0.55, 0.8), width * 0.58)


def _pixel(point: Any) -> tuple[int, int]:
    return int(point[0]), int(point[1])


def paste_tree(
    camera: Camera, picture: Float32Array, x: float, z: float
) -> tuple[slice, slice, Float32Array]:
    """Return rows, columns and RGBA of a tree picture that stands at x, z in view of a camera."""
    depth = z - camera.travelled
    scale = camera.focal / depth / 60.0
    height, width = picture.shape[0] * scale, picture.shape[1] * scale
    foot = camera.horizon + camera.focal * camera.above / depth
    left = camera.center + camera.focal * x / depth - width / 2
    box = [max(0, int(left)), max(0, int(foot - height)),
           min(camera.width, int(left + width)), min(camera.height, int(foot))]  # fmt: skip
    if box[2] <= box[0] or box[3] <= box[1]:
        return slice(0, 0), slice(0, 0), np.zeros((0, 0, 4), np.float32)
    small = cv2.resize(picture, None, fx=min(scale, 1.0), fy=min(scale, 1.0),
                       interpolation=cv2.INTER_AREA) if scale < 1 else picture  # fmt: skip
    ratio = small.shape[0] / height
    matrix = np.array(
        [[ratio, 0, (box[0] - left) * ratio], [0, ratio, (box[1] - foot + height) * ratio]]
    )
    size = (box[2] - box[0], box[3] - box[1])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    view = cv2.warpAffine(small, matrix, size, flags=flags)
    return slice(box[1], box[3]), slice(box[0], box[2]), np.asarray(view, np.float32)
