# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The ground of a rendered street seen from above: asphalt, markings, kerbs, pavement."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ood_perception.demo.noise import fractal_noise, soft_step
from ood_perception.types import Float32Array

# Pixels per metre; the length repeats, so it holds a whole number of dash periods.
RESOLUTION = 100
LENGTH = 36.0
HALF_WIDTH = 9.0
_KERB = 0.16
_DASH_PERIOD = 9.0
_DASH = 3.0


@dataclass(frozen=True)
class RoadStyle:
    """
    left, right: the kerbs' x in metres, the camera drives at x = 0.
    tone: asphalt's reflectance times 255. tint: its RGB factors.
    dashes: x of the broken line; edge_line: paint an unbroken line beside the right kerb.
    leaf_shade: how strongly tree crowns shade the ground, 0 to 1.
    """

    left: float = -2.2
    right: float = 5.2
    tone: float = 84.0
    tint: tuple[float, float, float] = (0.98, 1.0, 1.03)
    dashes: float = 1.6
    edge_line: bool = False
    leaf_shade: float = 0.0


def _shape() -> tuple[int, int]:
    return round(LENGTH * RESOLUTION), round(2 * HALF_WIDTH * RESOLUTION)


def _columns() -> Float32Array:
    """Return x of every column's centre in metres, float32 (1, columns)."""
    count = _shape()[1]
    x = (np.arange(count, dtype=np.float32) + 0.5) / RESOLUTION - HALF_WIDTH
    return np.asarray(x[None, :], dtype=np.float32)


def _asphalt(rng: np.random.Generator, style: RoadStyle) -> Float32Array:
    """Return asphalt's brightness, float32 (rows, columns), about style.tone."""
    shape, x = _shape(), _columns()
    tone = style.tone * (1.0 + 0.045 * fractal_noise(rng, shape, (400, 150, 60), stretch=3.0))
    grain = cv2.GaussianBlur(rng.standard_normal(shape, dtype=np.float32), (0, 0), 0.9)
    tone += style.tone * (0.16 * grain / float(grain.std()) * 0.6)
    tone += style.tone * 0.035 * fractal_noise(rng, shape, (12, 5))
    for wheel in (-0.75, 0.75, 2.75, 4.25):
        track = np.exp(-(((x - wheel) / 0.32) ** 2))
        tone *= 1.0 + 0.05 * track * (1.0 + 0.3 * fractal_noise(rng, shape, (200,), stretch=6))
    _repair(rng, tone, style)
    _crack(rng, tone, style)
    return np.asarray(tone, dtype=np.float32)


def _repair(rng: np.random.Generator, tone: Float32Array, style: RoadStyle) -> None:
    """Lay rectangular repairs with tar joints onto the asphalt, in place."""
    joints = np.zeros(tone.shape, np.uint8)
    for _ in range(3):
        width, length = rng.uniform(0.8, 1.8), rng.uniform(2.0, 7.0)
        x = rng.uniform(style.left + 0.3, style.right - width - 0.3)
        z = rng.uniform(0.5, LENGTH - length - 0.5)
        rows = slice(int(z * RESOLUTION), int((z + length) * RESOLUTION))
        left = int((x + HALF_WIDTH) * RESOLUTION)
        columns = slice(left, left + int(width * RESOLUTION))
        tone[rows, columns] *= rng.uniform(0.86, 1.06)
        corners = (columns.start, rows.start), (columns.stop, rows.stop)
        cv2.rectangle(joints, corners[0], corners[1], 255, 3)
    tone *= 1.0 - 0.28 * cv2.GaussianBlur(joints, (0, 0), 1.2).astype(np.float32) / 255.0


def _crack(rng: np.random.Generator, tone: Float32Array, style: RoadStyle) -> None:
    """Draw wandering cracks, in place."""
    cracks = np.zeros(tone.shape, np.uint8)
    for _ in range(9):
        steps = int(rng.integers(20, 90))
        along = rng.uniform(-1, 1) + np.cumsum(rng.normal(0, 0.35, steps))
        start = np.array([rng.uniform(style.left, style.right), rng.uniform(0, LENGTH)])
        points = start + 0.07 * np.cumsum(np.stack([np.sin(along), np.cos(along)], 1), 0)
        pixels = ((points + np.array([HALF_WIDTH, 0.0])) * RESOLUTION).astype(np.int32)
        cv2.polylines(cracks, [pixels.reshape(-1, 1, 2)], False, 255, int(rng.integers(1, 3)))
    soft = cv2.GaussianBlur(cracks, (0, 0), 0.8).astype(np.float32) / 255.0
    tone *= 1.0 - 0.4 * soft


def _paint(rng: np.random.Generator, color: Float32Array, style: RoadStyle) -> None:
    """Paint worn lane markings, in place."""
    shape, x = _shape(), _columns()
    z = (np.arange(shape[0], dtype=np.float32)[:, None] + 0.5) / RESOLUTION
    lines = (np.abs(x - style.dashes) < 0.06) & (z % _DASH_PERIOD < _DASH)
    if style.edge_line:
        lines = lines | ((np.abs(x - (style.right - 0.45)) < 0.05) & (z > -1))
    wear = soft_step(fractal_noise(rng, shape, (60, 14, 4), gain=0.8), 1.0, 1.4)
    cover = cv2.GaussianBlur(lines.astype(np.float32), (0, 0), 0.7) * (0.80 - 0.6 * wear)
    color += cover[..., None] * (np.array([196, 197, 192], np.float32) - color)


def _gutter(rng: np.random.Generator, color: Float32Array, style: RoadStyle) -> None:
    """Darken the gutters with dust and leaves' dirt, in place."""
    x = _columns()
    for kerb in (style.left, style.right):
        inside = np.clip(1.0 - np.abs(x - kerb) / 0.35, 0.0, 1.0)
        dirt = inside * (0.16 + 0.05 * fractal_noise(rng, _shape(), (60, 12), stretch=2))
        color *= 1.0 - dirt[..., None]


def _slabs(rng: np.random.Generator) -> Float32Array:
    """Return pavement slabs of 0.6 m with joints, float32 (rows, columns, 3)."""
    shape = _shape()
    pitch = round(0.6 * RESOLUTION)
    rows, columns = np.arange(shape[0]) // pitch, np.arange(shape[1]) // pitch
    shade = rng.normal(1.0, 0.05, (rows.max() + 1, columns.max() + 1)).astype(np.float32)
    tone = 112.0 * shade[rows][:, columns]
    tone *= 1.0 + 0.05 * fractal_noise(rng, shape, (60, 8, 3), gain=0.9)
    joint = (np.arange(shape[0]) % pitch < 2)[:, None] | (np.arange(shape[1]) % pitch < 2)[None]
    tone = np.where(joint, tone * 0.72, tone)
    return np.asarray(tone[..., None] * np.array([1.02, 1.0, 0.96], np.float32), np.float32)


def ground_map(rng: np.random.Generator, style: RoadStyle) -> Float32Array:
    """
    Return the ground from above, float32 (rows, columns, 3), RGB 0..255 in even light.

    Row r is z = (r + 0.5) / RESOLUTION metres ahead (repeating every LENGTH), column c is
    x = (c + 0.5) / RESOLUTION - HALF_WIDTH.
    """
    x = _columns()
    color = _asphalt(rng, style)[..., None] * np.array(style.tint, np.float32)
    _gutter(rng, color, style)
    _paint(rng, color, style)
    off_road = ((x < style.left) | (x > style.right))[..., None]
    color = np.where(off_road, _slabs(rng), color)
    kerb = ((x > style.left - _KERB) & (x < style.left)) | (
        (x < style.right + _KERB) & (x > style.right)
    )
    stone = 128.0 + 9.0 * fractal_noise(rng, _shape(), (90, 6))
    color = np.where(kerb[..., None], stone[..., None], color)
    if style.leaf_shade:
        crowns = soft_step(fractal_noise(rng, _shape(), (260, 90, 30, 12), gain=0.75), 0.25, 0.9)
        shade = cv2.GaussianBlur(crowns, (0, 0), 5.0)
        color = color * (1.0 - style.leaf_shade * shade[..., None])
    return np.asarray(color, dtype=np.float32)
