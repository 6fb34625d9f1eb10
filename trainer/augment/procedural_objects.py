# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Objects drawn by code: shapes with textures that no road scene has, for training without images.

They teach that something foreign is foreign, not what real obstacles look like; real cut-outs do
better where there are any.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from ood_perception.types import UInt8Array

from .cutouts import Cutout, cropped

FloatArray = npt.NDArray[np.float32]
SIZE = (48, 360)
"""Least and greatest longer side in pixels of an image 2048 wide, drawn log-uniformly."""


def draw_object(name: str, rng: np.random.Generator) -> Cutout:
    """Draw one object of a random shape, texture and shading; the shape is its category."""
    longer = float(np.exp(rng.uniform(*np.log(SIZE))))
    ratio = float(rng.uniform(0.4, 1.0))
    sides = [round(longer), max(16, round(longer * ratio))]
    height, width = (int(side) for side in rng.permutation(sides))
    shape = str(rng.choice(sorted(SHAPES)))
    mask = _outline(SHAPES[shape](rng), height, width)
    colours = rng.uniform(0, 255, (2, 3)).astype(np.float32)
    blend = TEXTURES[str(rng.choice(sorted(TEXTURES)))](height, width, rng)[..., None]
    light = _shading(height, width, rng)[..., None]
    pixels = (colours[0] * (1 - blend) + colours[1] * blend) * light
    pixels += rng.normal(0, 4, pixels.shape)  # the grain of a camera
    rgb = np.clip(np.round(pixels), 0, 255).astype(np.uint8)
    return Cutout(cropped(np.dstack([rgb, mask])), name, shape)


def _outline(points: FloatArray, height: int, width: int) -> UInt8Array:
    """Fill a closed outline, float (n, 2) x and y in [0, 1], stretched to the whole size."""
    points = (points - points.min(0)) / (points.max(0) - points.min(0))
    pixels = np.round(points * (width - 1, height - 1)).astype(np.int32)
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [pixels.reshape(-1, 1, 2)], 255)
    return mask


def _polar(radius: FloatArray) -> FloatArray:
    """Return the outline of radii at even angles."""
    angle = np.linspace(0, 2 * np.pi, len(radius), endpoint=False)
    return (radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)).astype(np.float32)


def _blob(rng: np.random.Generator) -> FloatArray:
    angle = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    waves = sum(
        rng.uniform(0, 0.4 / k) * np.cos(k * angle + rng.uniform(0, 2 * np.pi))
        for k in range(1, 6)
    )
    return _polar(np.asarray(1.0 + waves, np.float32).clip(0.2))


def _polygon(rng: np.random.Generator) -> FloatArray:
    return _polar(rng.uniform(0.5, 1.0, int(rng.integers(5, 9))).astype(np.float32))


def _star(rng: np.random.Generator) -> FloatArray:
    points = int(rng.integers(5, 9))
    return _polar(np.tile([1.0, float(rng.uniform(0.35, 0.7))], points).astype(np.float32))


def _box(rng: np.random.Generator) -> FloatArray:
    lean = float(rng.uniform(0, 0.3))
    return np.array([[lean, 0], [1, 0], [1 - lean, 1], [0, 1]], np.float32)


SHAPES: dict[str, Callable[[np.random.Generator], FloatArray]] = {
    'blob': _blob,
    'box': _box,
    'polygon': _polygon,
    'star': _star,
}


def _grid(height: int, width: int) -> tuple[FloatArray, FloatArray]:
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    return rows, columns


def _stripes(height: int, width: int, rng: np.random.Generator) -> FloatArray:
    rows, columns = _grid(height, width)
    angle, period = rng.uniform(0, np.pi), max(6.0, rng.uniform(0.08, 0.4) * max(height, width))
    phase = (rows * np.sin(angle) + columns * np.cos(angle)) * (2 * np.pi / period)
    return (np.sin(phase) > 0).astype(np.float32)


def _checks(height: int, width: int, rng: np.random.Generator) -> FloatArray:
    rows, columns = _grid(height, width)
    side = max(4.0, rng.uniform(0.08, 0.35) * max(height, width))
    return ((rows // side + columns // side) % 2).astype(np.float32)


def _cloud(height: int, width: int, rng: np.random.Generator) -> FloatArray:
    coarse = rng.uniform(0, 1, (int(rng.integers(3, 12)),) * 2).astype(np.float32)
    return np.clip(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), 0, 1)


def _flat(height: int, width: int, rng: np.random.Generator) -> FloatArray:
    return np.zeros((height, width), np.float32)


TEXTURES: dict[str, Callable[[int, int, np.random.Generator], FloatArray]] = {
    'checks': _checks,
    'cloud': _cloud,
    'flat': _flat,
    'stripes': _stripes,
}


def _shading(height: int, width: int, rng: np.random.Generator) -> FloatArray:
    """Light from one side: a factor from 0.5 to 1.2 that changes linearly over the object."""
    rows, columns = _grid(height, width)
    angle = rng.uniform(0, 2 * np.pi)
    slope = (rows / height - 0.5) * np.sin(angle) + (columns / width - 0.5) * np.cos(angle)
    return (0.85 + 0.5 * slope).clip(0.5, 1.2).astype(np.float32)
