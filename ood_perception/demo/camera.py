# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
The pinhole camera of the rendered street, level with the road, and its exact area sampling.

World: x to the right, y up, z ahead, metres; the ground is y = 0 and the camera stands at
(0, HEIGHT, travelled). A picture row below the horizon sees one z, a picture column of a wall
parallel to the road sees one z, too: both are integrals over a texture by cumulative sums.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ood_perception.types import Float32Array


@dataclass(frozen=True)
class Camera:
    """
    width, height: the picture in pixels. focal: in pixels. horizon: row of the horizon, pixels.
    above: height over the road, metres. travelled: z of the camera, metres.
    """

    width: int = 1280
    height: int = 720
    focal: float = 1000.0
    horizon: float = 330.0
    above: float = 1.35
    travelled: float = 0.0

    @property
    def center(self) -> float:
        """Column of the optical axis, pixels."""
        return self.width / 2

    def project(self, point: Float32Array) -> Float32Array:
        """Return pixel coordinates, float (N, 2) as column, row, of world points (N, 3)."""
        depth = np.maximum(point[:, 2] - self.travelled, 0.1)
        column = self.center + self.focal * point[:, 0] / depth
        row = self.horizon + self.focal * (self.above - point[:, 1]) / depth
        return np.stack([column, row], axis=1).astype(np.float32)

    def ground_depths(self) -> Float32Array:
        """Return how far ahead every row boundary sees the ground: (height + 1,), inf above."""
        below = np.arange(self.height + 1, dtype=np.float64) - self.horizon
        with np.errstate(divide='ignore'):
            depth = np.where(
                below > 0.05, self.focal * self.above / np.maximum(below, 1e-9), np.inf
            )
        return depth.astype(np.float32)


class Integral:
    """Means of a texture over strips of its first axis, which repeats."""

    def __init__(self, texture: Float32Array, resolution: float) -> None:
        """texture: float32 (rows, columns, channels). resolution: rows per metre."""
        self.resolution = resolution
        self.rows = texture.shape[0]
        zero = np.zeros((1, *texture.shape[1:]), np.float32)
        self._mean = texture.mean(axis=0)
        # Sums of what differs from the column's mean stay small, so float32 keeps them exact.
        self._sums = np.concatenate([zero, np.cumsum(texture - self._mean, axis=0)])

    def strip(self, near: float, far: float) -> Float32Array:
        """Return the mean over near..far metres, float32 (columns, channels); near < far."""
        if not np.isfinite(far) or (far - near) * self.resolution > self.rows:
            return np.asarray(self._mean, dtype=np.float32)
        total = self._at(far * self.resolution) - self._at(near * self.resolution)
        return np.asarray(self._mean + total / ((far - near) * self.resolution), np.float32)

    def _at(self, row: float) -> Float32Array:
        # One whole period adds nothing to the sum of differences from the mean.
        row = row % self.rows
        low = int(row)
        share = np.float32(row - low)
        below, above = self._sums[low], self._sums[min(low + 1, self.rows)]
        return np.asarray(below + share * (above - below), dtype=np.float32)


def resample(line: Float32Array, edges: Float32Array) -> Float32Array:
    """
    Return means of a line over pixels.

    line: float32 (n, channels), cell i covers i..i+1. edges: (m + 1,) ascending, in cells;
    outside the line its end values go on. Returns float32 (m, channels).
    """
    sums = np.concatenate([np.zeros((1, line.shape[1])), np.cumsum(line, 0, dtype=np.float64)])
    cells = np.arange(len(line) + 1, dtype=np.float64)
    width = np.maximum(np.diff(edges), 1e-6)
    result = np.empty((len(edges) - 1, line.shape[1]), np.float32)
    low, high = np.minimum(edges, 0.0), np.maximum(edges - len(line), 0.0)
    for channel in range(line.shape[1]):
        integral = np.interp(edges, cells, sums[:, channel])
        integral = integral + low * line[0, channel] + high * line[-1, channel]
        result[:, channel] = np.diff(integral) / width
    return result
