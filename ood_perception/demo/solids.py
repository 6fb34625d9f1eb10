# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Solid things of a rendered street as signed distance functions, drawn by sphere tracing.

Sphere tracing: J. C. Hart, "Sphere tracing: a geometric method for the antialiased ray tracing
of implicit surfaces", The Visual Computer 12(10), 1996.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from ood_perception.demo.camera import Camera
from ood_perception.types import BoolArray, Float32Array

# Points (N, 3) in the solid's own metres -> distance (N,); and -> RGB (N, 3) 0..255.
Distance = Callable[[Float32Array], Float32Array]
Paint = Callable[[Float32Array, Float32Array], Float32Array]
_STEPS = 48
_HIT = 0.002


@dataclass(frozen=True)
class Solid:
    """
    A thing that stands on the road.

    distance: signed distance to its surface, in its own metres (y = 0 is the ground).
    paint: colour from points and unit normals, both (N, 3), own metres.
    radius, height: its bounding cylinder. gloss: strength of the mirrored sky, 0 to 1.
    """

    distance: Distance
    paint: Paint
    radius: float
    height: float
    gloss: float = 0.0


@dataclass(frozen=True)
class Placed:
    """A solid at (x, z) on the ground, turned by `turn` radians about the vertical."""

    solid: Solid
    x: float
    z: float
    turn: float = 0.0

    def local(self, points: Float32Array) -> Float32Array:
        """Return world points (N, 3) in the solid's own metres."""
        moved = points - np.array([self.x, 0.0, self.z], np.float32)
        return self.rotated(moved, -self.turn)

    def rotated(self, vectors: Float32Array, angle: float) -> Float32Array:
        """Return vectors (N, 3) turned about the vertical."""
        c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        x, y, z = vectors.T
        return np.stack([c * x + s * z, y, c * z - s * x], axis=1).astype(np.float32)


@dataclass(frozen=True)
class Light:
    """
    sun: unit vector towards the sun. sun_strength: 0 = overcast. sky, bounce: RGB factors of the
    light from above and from the ground.
    """

    sun: tuple[float, float, float] = (0.5, 0.6, -0.62)
    sun_strength: float = 0.0
    sky: tuple[float, float, float] = (1.0, 1.0, 1.03)
    bounce: tuple[float, float, float] = (0.5, 0.49, 0.48)

    def shade(self, normals: Float32Array, lit: Float32Array, low: Float32Array) -> Float32Array:
        """
        Return RGB factors (N, 3).

        normals: (N, 3) unit. lit: (N,) share of the sun that arrives. low: (N,) share of the sky
        that arrives, 1 in the open.
        """
        upward = (0.5 + 0.5 * normals[:, 1:2]) * low[:, None]
        ambient = np.array(self.bounce) + upward * (np.array(self.sky) - np.array(self.bounce))
        direct = np.clip(normals @ np.array(self.sun, np.float32), 0.0, 1.0) * lit
        return np.asarray(ambient + self.sun_strength * direct[:, None], np.float32)


def bounds(camera: Camera, placed: Placed, margin: float = 1.1) -> tuple[int, int, int, int]:
    """Return left, top, right, bottom of the picture part that can show a solid, pixels."""
    r, h = placed.solid.radius * margin, placed.solid.height * margin
    corners = [
        (placed.x + dx, y, placed.z + dz) for dx in (-r, r) for y in (0.0, h) for dz in (-r, r)
    ]
    pixels = camera.project(np.array(corners, np.float32))
    low = np.maximum(np.floor(pixels.min(0)), 0).astype(int)
    high = np.minimum(np.ceil(pixels.max(0)) + 1, [camera.width, camera.height]).astype(int)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def rays(camera: Camera, box: tuple[int, int, int, int], sampling: int) -> Float32Array:
    """Return unit directions (rows * columns, 3) through `sampling` samples a pixel of a box."""
    left, top, right, bottom = box
    column = (np.arange((right - left) * sampling) + 0.5) / sampling + left
    row = (np.arange((bottom - top) * sampling) + 0.5) / sampling + top
    x, y = np.meshgrid((column - camera.center), (camera.horizon - row))
    direction = np.stack([x, y, np.full_like(x, camera.focal)], axis=-1).reshape(-1, 3)
    unit = direction / np.linalg.norm(direction, axis=1, keepdims=True)
    return np.asarray(unit, dtype=np.float32)


def trace(
    distance: Distance, origin: Float32Array, direction: Float32Array, start: float, stop: float
) -> tuple[Float32Array, BoolArray]:
    """Return how far each ray (N, 3) goes from origin (N, 3), (N,), and whether it hits, (N,)."""
    along = np.full(len(direction), start, np.float32)
    hit = np.zeros(len(direction), bool)
    active = np.arange(len(direction))
    for _ in range(_STEPS):
        d = distance(origin[active] + along[active, None] * direction[active])
        touched = d < _HIT
        hit[active[touched]] = True
        along[active] += np.where(touched, 0.0, d)
        active = active[~touched & (along[active] < stop)]
        if not len(active):
            break
    return along, hit


def normals(distance: Distance, points: Float32Array) -> Float32Array:
    """Return unit normals (N, 3) of the surface at points (N, 3), by four probes."""
    total = np.zeros_like(points)
    for probe in ((1, -1, -1), (-1, -1, 1), (-1, 1, -1), (1, 1, 1)):
        corner = np.array(probe, np.float32)
        total += corner * distance(points + 0.003 * corner)[:, None]
    length = np.linalg.norm(total, axis=1, keepdims=True)
    return np.asarray(total / np.maximum(length, 1e-6), np.float32)


def shadow(
    placed: Placed, points: Float32Array, light: Light
) -> tuple[Float32Array, Float32Array]:
    """Return the share of the sun and of the sky, (N,) each, that reach ground points (N, 3)."""
    local = placed.local(points)
    near = placed.solid.distance(local + np.array([0.0, 0.03, 0.0], np.float32))
    open_sky = np.clip(0.25 + near / (0.55 * placed.solid.height), 0.25, 1.0)
    toward = placed.rotated(np.array([light.sun], np.float32), -placed.turn)[0]
    lit, along = np.ones(len(local), np.float32), np.full(len(local), 0.03, np.float32)
    for _ in range(20 if light.sun_strength else 0):
        d = placed.solid.distance(local + along[:, None] * toward)
        lit = np.minimum(lit, np.clip(14.0 * d / along, 0.0, 1.0))
        along = along + np.clip(d, 0.02, 0.4)
    return lit.astype(np.float32), open_sky.astype(np.float32)


def draw(
    camera: Camera, placed: Placed, light: Light, sampling: int
) -> tuple[tuple[int, int, int, int], Float32Array]:
    """
    Draw a solid.

    sampling: samples per pixel and axis. Returns left, top, right, bottom in pixels and RGBA
    float32 (bottom - top, right - left, 4): colour 0..255 times cover, cover 0..1.
    """
    box = bounds(camera, placed)
    left, top, right, bottom = box
    if right <= left or bottom <= top:
        return (0, 0, 0, 0), np.zeros((0, 0, 4), np.float32)
    direction = placed.rotated(rays(camera, box, sampling), -placed.turn)
    eye = placed.local(np.array([[0.0, camera.above, camera.travelled]], np.float32))
    origin = np.broadcast_to(eye, direction.shape)
    away = float(np.linalg.norm(eye))
    reach = placed.solid.radius + placed.solid.height
    along, hit = trace(
        placed.solid.distance, origin, direction, max(away - reach, 0.1), away + reach
    )
    points = (origin + along[:, None] * direction)[hit]
    samples = np.zeros((len(direction), 4), np.float32)
    if len(points):
        samples[hit, :3] = _surface(placed, points, direction[hit], light)
        samples[hit, 3] = 1.0
    grid = samples.reshape(bottom - top, sampling, right - left, sampling, 4)
    return box, np.asarray(grid.mean(axis=(1, 3)), dtype=np.float32)


def _surface(
    placed: Placed, points: Float32Array, direction: Float32Array, light: Light
) -> Float32Array:
    """Return the colour (N, 3) of surface points seen along `direction`."""
    solid = placed.solid
    normal = normals(solid.distance, points)
    world = placed.rotated(normal, placed.turn)
    low = np.clip(0.55 + 0.9 * points[:, 1] / solid.height, 0.4, 1.0)
    color = solid.paint(points, normal) * light.shade(world, np.ones(len(points), np.float32), low)
    if solid.gloss:
        mirrored = direction - 2.0 * (direction * normal).sum(1, keepdims=True) * normal
        sky = np.clip(mirrored[:, 1:2] * 2.0 + 0.15, 0.0, 1.0)
        facing = np.abs((direction * normal).sum(1, keepdims=True))
        color = color + solid.gloss * (0.25 + 0.75 * (1.0 - facing) ** 3) * sky * 190.0
    return np.asarray(color, np.float32)


def cast_shadow(picture: Float32Array, camera: Camera, placed: Placed, light: Light) -> None:
    """Darken the ground around a solid, in place; picture: float32 (H, W, 3) RGB."""
    reach = placed.solid.radius + 2.2 * placed.solid.height
    left, top, right, bottom = _ground_bounds(camera, placed, reach)
    if right <= left or bottom <= top:
        return
    direction = rays(camera, (left, top, right, bottom), 1)
    along = -camera.above / np.minimum(direction[:, 1], -1e-3)
    eye = np.array([0.0, camera.above, camera.travelled], np.float32)
    points = (eye + along[:, None] * direction).astype(np.float32)
    lit, open_sky = shadow(placed, points, light)
    sky, sun = float(np.mean(light.sky)), light.sun_strength * light.sun[1]
    share = ((open_sky * sky + sun * lit) / (sky + sun)).reshape(bottom - top, right - left)
    picture[top:bottom, left:right] *= cv2.GaussianBlur(share, (0, 0), 1.0)[..., None]


def _ground_bounds(camera: Camera, placed: Placed, reach: float) -> tuple[int, int, int, int]:
    """Return the ground within `reach` metres of a solid: left, top, right, bottom in pixels."""
    ahead = placed.z - camera.travelled
    near, far = max(ahead - reach, 1.0), ahead + reach
    rows = [camera.horizon + camera.focal * camera.above / d for d in (far, near)]
    sides = [camera.center + camera.focal * (placed.x + s * reach) / near for s in (-1, 1)]
    left, right = np.clip(sides, 0, camera.width).astype(int)
    top, bottom = np.clip(rows, camera.horizon + 2, camera.height).astype(int)
    return int(left), int(top), int(right), int(bottom)
