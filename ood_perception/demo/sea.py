# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
A rendered sea with a ship and a buoy: what no licence binds, for golden vectors and tests.

Flat colours in broad steps, so that a bundle that carries such a picture stays small.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from ood_perception.types import Float32Array, UInt8Array

OBSTACLE, WATER, SKY = 0, 1, 2
_STEP = 4  # grey values between two colours of the picture
_CAMERA_HEIGHT = 3.0  # metres above the water


@dataclass(frozen=True)
class SeaScene:
    """
    One view of the sea.

    seed: of clouds and waves. size: (height, width) of the picture in pixels.
    horizon: row of the horizon, as a share of the height. roll: of the camera, radians.
    ship: place of the ship's bow as a share of the width, and its length in pixels.
    light: factor of all colours; 1 = an overcast day.
    """

    seed: int
    size: tuple[int, int] = (384, 512)
    horizon: float = 0.42
    roll: float = 0.0
    ship: tuple[float, int] = (0.3, 120)
    light: float = 1.0


SEA_SCENES = (
    SeaScene(5),
    SeaScene(9, horizon=0.5, roll=-0.06, ship=(0.55, 70), light=0.75),
)


@dataclass(frozen=True)
class RenderedSea:
    """A picture, uint8 (H, W, 3) RGB, and its labels, uint8 (H, W) of OBSTACLE, WATER, SKY."""

    image: UInt8Array
    labels: UInt8Array


def render_sea(scene: SeaScene) -> RenderedSea:
    """Render a view; the same scene gives the same picture."""
    height, width = scene.size
    rng = np.random.default_rng(scene.seed)
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    # how far below the horizon a pixel is, in pixels; the camera's roll tilts the horizon
    depth = rows - scene.horizon * height - np.tan(scene.roll) * (columns - width / 2)
    labels = np.where(depth > 0, WATER, SKY).astype(np.uint8)
    picture = np.where(
        (depth > 0)[..., None], _water(depth, columns - width / 2, rng), _sky(depth, height, rng)
    )
    for color, shape in _things(scene):
        mask = np.zeros(scene.size, np.uint8)
        cv2.fillPoly(mask, [shape], 1)
        picture[mask > 0], labels[mask > 0] = color, OBSTACLE
    picture = np.clip(picture * scene.light, 0, 255)
    return RenderedSea((np.round(picture / _STEP) * _STEP).clip(0, 255).astype(np.uint8), labels)


def _water(depth: Float32Array, aside: Float32Array, rng: np.random.Generator) -> Float32Array:
    """Return float32 (H, W, 3): waves on a plane, seen from _CAMERA_HEIGHT."""
    focal = 0.9 * depth.shape[1]
    distance = _CAMERA_HEIGHT * focal / np.maximum(depth, 1.0)
    across = aside * distance / focal
    waves = np.zeros_like(depth)
    for length in (1.1, 2.3, 4.7, 9.0):
        turn, phase = rng.uniform(-0.6, 0.6), rng.uniform(0, 6.28)
        along = distance * np.cos(turn) + across * np.sin(turn)
        # waves shorter than a few pixels average out
        seen = np.clip(length * depth / (4.0 * np.maximum(distance, 1.0)), 0, 1)
        waves += seen * np.sin(6.2832 * along / length + phase)
    near = np.clip(depth / depth.max(), 0, 1)[..., None]
    color = (1 - near) * np.array([128, 146, 156]) + near * np.array([52, 74, 82])
    return np.asarray(color + 9 * waves[..., None], np.float32)


def _sky(depth: Float32Array, height: int, rng: np.random.Generator) -> Float32Array:
    """Return float32 (H, W, 3): from pale at the horizon to blue above, with soft clouds."""
    up = np.clip(-depth / height, 0, 1)[..., None]
    clear = (1 - up) * np.array([212, 220, 226]) + up * np.array([96, 138, 190])
    noise = rng.random((5, 6)).astype(np.float32)
    clouds = cv2.resize(noise, depth.shape[::-1], interpolation=cv2.INTER_CUBIC)[..., None]
    cover = np.clip(2.0 * clouds - 0.9, 0, 1)
    return np.asarray(clear + cover * (np.array([236, 237, 240]) - clear), np.float32)


def _things(
    scene: SeaScene,
) -> list[tuple[tuple[int, int, int], npt.NDArray[np.int32]]]:
    """Return (RGB, polygon int32 (N, 2) of x, y) of ship and buoy, from back to front."""
    height, width = scene.size
    share, length = scene.ship

    def waterline(x: float) -> float:
        return float(scene.horizon * height + np.tan(scene.roll) * (x - width / 2))

    left = share * width
    foot = waterline(left + length / 2) + 0.08 * length
    hull = [(0, -0.16), (1.0, -0.2), (0.94, 0), (0.06, 0)]
    cabin = [(0.1, -0.36), (0.3, -0.36), (0.32, -0.16), (0.08, -0.16)]
    mast = [(0.6, -0.5), (0.62, -0.5), (0.63, -0.18), (0.59, -0.18)]
    ship = [((210, 208, 200), mast), ((226, 224, 216), cabin), ((120, 44, 40), hull)]
    things = [(color, [(left + length * x, foot + length * y) for x, y in part])
              for color, part in ship]  # fmt: skip
    x, y, size = 0.8 * width, waterline(0.8 * width) + 0.25 * height, 0.03 * width
    cone = [(x - size / 2, y), (x - size / 4, y - size), (x, y - 2 * size)]
    things.append(((230, 190, 30), [*cone, (x + size / 4, y - size), (x + size / 2, y)]))
    return [(color, np.round(np.array(shape)).astype(np.int32)) for color, shape in things]
