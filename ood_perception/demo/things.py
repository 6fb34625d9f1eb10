# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What stands on the rendered road: objects that no road data set knows, and parked cars."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ood_perception.demo.solids import Solid
from ood_perception.types import Float32Array


def _box(
    p: Float32Array, center: tuple[float, ...], half: tuple[float, ...], r: float
) -> Float32Array:
    """Return the distance (N,) to a box with edges rounded by r metres."""
    q = np.abs(p - np.array(center, np.float32)) - (np.array(half, np.float32) - r)
    outside = np.linalg.norm(np.maximum(q, 0.0), axis=1)
    return np.asarray(outside + np.minimum(q.max(axis=1), 0.0) - r, np.float32)


def _grain(p: Float32Array, scale: float) -> Float32Array:
    """Return a wavy grain (N,) in -1..1 that runs along x, from sums of incommensurate waves."""
    x, y, z = p.T * np.float32(scale)
    bend = 0.8 * np.sin(0.31 * x + 1.3 * z)
    return np.asarray(
        np.sin(9.1 * y + bend + 2.0 * np.sin(1.7 * y)) * np.sin(2.3 * z + 0.5 * bend + 1.0)
    )


def crate() -> Solid:
    """Return a wooden crate, 0.8 x 0.62 x 0.6 m, of slats with gaps."""
    half = (0.40, 0.31, 0.30)

    def distance(p: Float32Array) -> Float32Array:
        body = _box(p, (0.0, half[1], 0.0), (half[0] - 0.03, half[1] - 0.01, half[2] - 0.03), 0.01)
        level = (p[:, 1] / 0.155) % 1.0 - 0.5
        slat = np.maximum(_box(p, (0.0, half[1], 0.0), half, 0.01), (np.abs(level) - 0.40) * 0.155)
        posts = _box(
            np.stack([np.abs(p[:, 0]), p[:, 1], np.abs(p[:, 2])], 1).astype(np.float32),
            (half[0] - 0.04, half[1], half[2] - 0.04), (0.055, half[1], 0.055), 0.008,
        )  # fmt: skip
        return np.asarray(np.minimum(np.minimum(body, slat), posts) * 0.9, np.float32)

    def paint(p: Float32Array, n: Float32Array) -> Float32Array:
        board = np.floor(p[:, 1] / 0.155)
        tone = 1.0 + 0.10 * np.sin(board * 12.9) + 0.13 * _grain(p, 14.0)
        deep = np.maximum(np.abs(p[:, 0]) / half[0], np.abs(p[:, 2]) / half[2]) < 0.95
        tone = np.where(deep & (p[:, 1] < 0.6), tone * 0.35, tone)
        return np.asarray(tone[:, None] * np.array([196, 148, 88], np.float32), np.float32)

    return Solid(distance, paint, radius=0.55, height=0.66)


def suitcase() -> Solid:
    """Return a red hard-shell suitcase standing up, 0.52 x 0.74 x 0.3 m, ribs and handle."""

    def distance(p: Float32Array) -> Float32Array:
        rib = 0.006 * np.sin(p[:, 0] * 75.0)
        shell = _box(p, (0.0, 0.40, 0.0), (0.26, 0.34, 0.15), 0.07) + rib
        bar = _box(p, (0.0, 0.86, 0.0), (0.13, 0.018, 0.018), 0.015)
        sides = np.stack([np.abs(p[:, 0]), p[:, 1], p[:, 2]], 1).astype(np.float32)
        rods = _box(sides, (0.11, 0.78, 0.0), (0.012, 0.09, 0.012), 0.01)
        wheels = _box(sides, (0.19, 0.035, 0.09), (0.03, 0.035, 0.03), 0.02)
        return np.asarray(np.minimum.reduce([shell, bar, rods, wheels]) * 0.8, np.float32)

    def paint(p: Float32Array, n: Float32Array) -> Float32Array:
        color = np.tile(np.array([188, 30, 36], np.float32), (len(p), 1))
        dark = (p[:, 1] > 0.745) | (p[:, 1] < 0.065) | (np.abs(p[:, 2]) < 0.008)
        color[dark] = (38, 38, 42)
        sticker = (np.hypot(p[:, 0] - 0.08, p[:, 1] - 0.5) < 0.07) & (n[:, 2] < -0.5)
        color[sticker] = (232, 214, 60)
        return color

    return Solid(distance, paint, radius=0.36, height=0.9, gloss=0.12)


def armchair() -> Solid:
    """Return a blue armchair that fell off a lorry, 0.85 m wide."""

    def distance(p: Float32Array) -> Float32Array:
        seat = _box(p, (0.0, 0.26, 0.0), (0.42, 0.19, 0.38), 0.06)
        back = _box(p, (0.0, 0.55, 0.30), (0.42, 0.38, 0.12), 0.08)
        sides = np.stack([np.abs(p[:, 0]), p[:, 1], p[:, 2]], 1).astype(np.float32)
        arms = _box(sides, (0.38, 0.38, 0.0), (0.09, 0.24, 0.38), 0.07)
        feet = _box(
            np.stack([sides[:, 0], p[:, 1], np.abs(p[:, 2])], 1).astype(np.float32),
            (0.34, 0.05, 0.3), (0.03, 0.06, 0.03), 0.01,
        )  # fmt: skip
        return np.asarray(np.minimum.reduce([seat, back, arms, feet]) * 0.95, np.float32)

    def paint(p: Float32Array, n: Float32Array) -> Float32Array:
        weave = 1.0 + 0.08 * np.sin(p[:, 0] * 160) * np.sin(p[:, 1] * 150) + 0.06 * _grain(p, 9.0)
        color = weave[:, None] * np.array([48, 84, 152], np.float32)
        stripe = np.abs((p[:, 0] * 6.0) % 1.0 - 0.5) < 0.10
        color[stripe] = weave[stripe, None] * np.array([206, 190, 150], np.float32)
        color[p[:, 1] < 0.07] = (70, 44, 26)
        return np.asarray(color, np.float32)

    return Solid(distance, paint, radius=0.6, height=0.95)


def car(color: tuple[int, int, int]) -> Solid:
    """Return a parked hatchback of the given RGB paint, 4 m long, its rear towards -z."""

    def shell(p: Float32Array) -> Float32Array:
        lower = _box(p, (0.0, 0.56, 0.0), (0.84, 0.34, 2.0), 0.2)
        lean = np.float32(1.0) + 0.55 * np.clip(p[:, 1] - 0.85, 0.0, 1.0)
        q = np.stack([p[:, 0] * (1 + 0.3 * np.clip(p[:, 1] - 0.85, 0, 1)), p[:, 1],
                      (p[:, 2] + 0.35) * lean], 1).astype(np.float32)  # fmt: skip
        cabin = _box(q, (0.0, 1.05, 0.0), (0.78, 0.42, 1.6), 0.18) * 0.75
        return np.asarray(np.minimum(lower, cabin), np.float32)

    def distance(p: Float32Array) -> Float32Array:
        side = np.abs(p[:, 0]) - 0.74
        away = np.minimum(
            np.hypot(p[:, 1] - 0.3, p[:, 2] - 1.25), np.hypot(p[:, 1] - 0.3, p[:, 2] + 1.25)
        )
        wheel = np.maximum(away - 0.30, np.abs(side) - 0.1)
        arch = np.maximum(shell(p), 0.34 - away)
        return np.asarray(np.minimum(arch, wheel) * 0.9, np.float32)

    def paint(p: Float32Array, n: Float32Array) -> Float32Array:
        result = np.tile(np.array(color, np.float32), (len(p), 1))
        x, y, z = np.abs(p[:, 0]), p[:, 1], p[:, 2]
        pillars = (np.abs(n[:, 0]) > 0.6) & ((np.abs(z + 0.3) < 0.05) | (np.abs(z - 1.0) < 0.07))
        glass = (y > 0.93) & (y < 1.36) & (n[:, 1] < 0.75) & ~pillars
        glass &= (np.abs(n[:, 0]) > 0.6) | (x < 0.62)
        result[glass] = (26, 30, 34)
        rear = n[:, 2] < -0.5
        result[rear & (x > 0.52) & (y > 0.62) & (y < 0.86)] = (140, 16, 18)
        result[rear & (x < 0.26) & (y > 0.5) & (y < 0.61)] = (206, 182, 64)
        result[(y < 0.40) & (y > 0.24) & (n[:, 1] < 0.7)] *= 0.55
        away = np.minimum(np.hypot(y - 0.3, z - 1.25), np.hypot(y - 0.3, z + 1.25))
        result[(away < 0.36)] = (22, 22, 23)
        result[(away < 0.19) & (x > 0.7)] = (128, 130, 134)
        return result

    return Solid(distance, paint, radius=2.15, height=1.5, gloss=0.35)


# Objects by name; each scene puts one of them on the road.
OBJECTS: dict[str, Callable[[], Solid]] = {
    'crate': crate,
    'suitcase': suitcase,
    'armchair': armchair,
}
