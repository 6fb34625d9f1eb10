# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Seamless noise, from which all of the demo's rendered surfaces are made."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from ood_perception.types import Float32Array


def smooth_noise(
    rng: np.random.Generator, shape: tuple[int, int], cell: tuple[float, float]
) -> Float32Array:
    """
    Return float32 (rows, columns), roughly standard normal, that repeats seamlessly.

    cell: size of a noise cell in rows and columns, pixels.
    """
    grid = [max(1, round(n / c)) for n, c in zip(shape, cell, strict=True)]
    coarse = rng.standard_normal(grid).astype(np.float32)
    wrapped = np.pad(coarse, 2, mode='wrap')
    scale = [n / g for n, g in zip(shape, grid, strict=True)]
    size = (round(wrapped.shape[1] * scale[1]), round(wrapped.shape[0] * scale[0]))
    fine = cv2.resize(wrapped, size, interpolation=cv2.INTER_CUBIC)
    top, left = round(2 * scale[0]), round(2 * scale[1])
    return np.asarray(fine[top : top + shape[0], left : left + shape[1]], dtype=np.float32)


def fractal_noise(
    rng: np.random.Generator,
    shape: tuple[int, int],
    cells: Sequence[float],
    gain: float = 0.6,
    stretch: float = 1.0,
) -> Float32Array:
    """
    Return float32 `shape` noise of unit variance: octaves of the given cell sizes, in pixels.

    gain: weight of each octave relative to the one before. stretch: cells are this many times
    longer along rows (the first axis).
    """
    total = np.zeros(shape, np.float32)
    weight, power = 1.0, 0.0
    for cell in cells:
        total += weight * smooth_noise(rng, shape, (cell * stretch, cell))
        power += weight * weight
        weight *= gain
    return np.asarray(total / max(float(total.std()), 1e-6), dtype=np.float32)


def soft_step(values: Float32Array, edge: float, width: float) -> Float32Array:
    """Return 0 below `edge`, 1 above it, with a linear ramp of `width` around it; float32."""
    return np.asarray(np.clip((values - edge) / width + 0.5, 0.0, 1.0), dtype=np.float32)
