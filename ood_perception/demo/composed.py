# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Real road pictures with one drawn object each, where labels say that the road is free."""

from __future__ import annotations

import cv2
import numpy as np

from ood_perception.demo.camera import Camera
from ood_perception.demo.film import sensor_noise
from ood_perception.demo.solids import Light, Placed, bounds, cast_shadow, draw
from ood_perception.demo.things import OBJECTS
from ood_perception.demo.truth import GroundTruth
from ood_perception.types import BoolArray, UInt8Array

# A dashboard camera as in CamVid, in shares of the picture: focal length by width, horizon by
# height. The exact values only decide how large an object at a distance is.
_FOCAL, _HORIZON, _ABOVE = 1.0, 0.46, 1.35
_DEPTHS = (5.5, 11.0)
_TRIES = 60
# Brightness of asphalt under light of strength one in the objects' own colours.
_ASPHALT = 84.0
_BLUR = 0.6


def compose(
    image: UInt8Array, road: BoolArray, seed: int
) -> tuple[UInt8Array, GroundTruth] | None:
    """
    Return a picture with an object on its free road and what is known of it, None without room.

    image: uint8 (H, W, 3) RGB. road: bool (H, W), where road is seen. seed: chooses object and
    place; the same seed gives the same picture.
    """
    rng = np.random.default_rng(seed)
    height, width = road.shape
    camera = Camera(width, height, _FOCAL * width, _HORIZON * height, _ABOVE)
    placed = _free_place(rng, camera, road)
    if placed is None:
        return None
    picture = image.astype(np.float32)
    light = Light()
    cast_shadow(picture, camera, placed, light)
    (left, top, right, bottom), layer = draw(camera, placed, light, 3)
    part = picture[top:bottom, left:right]
    layer[..., :3] *= _brightness(image, road) / _ASPHALT
    layer = cv2.GaussianBlur(layer, (0, 0), _BLUR)
    part *= 1.0 - layer[..., 3:]
    part += layer[..., :3]
    part += sensor_noise(rng, part) * layer[..., 3:]
    mask = np.zeros(road.shape, bool)
    mask[top:bottom, left:right] = layer[..., 3] > 0.5
    result = np.clip(picture + 0.5, 0, 255).astype(np.uint8)
    return result, GroundTruth(objects=(mask,), road=np.asarray(road & ~mask, dtype=np.bool_))


def _free_place(rng: np.random.Generator, camera: Camera, road: BoolArray) -> Placed | None:
    """Return an object whose foot stands on free road, None when no place was found."""
    names = sorted(OBJECTS)
    solid = OBJECTS[names[int(rng.integers(len(names)))]]()
    for _ in range(_TRIES):
        z = float(rng.uniform(*_DEPTHS))
        x = float(rng.uniform(-0.35, 0.35)) * z
        placed = Placed(solid, x, z, float(rng.uniform(-0.6, 0.6)))
        left, top, right, bottom = bounds(camera, placed, margin=1.2)
        inside = left > 0 and right < camera.width and bottom < camera.height
        # Its top may hide what is behind the road; its foot and sides stand on road alone.
        foot = top + round(0.45 * (bottom - top))
        if inside and road[foot:bottom, left:right].all():
            return placed
    return None


def _brightness(image: UInt8Array, road: BoolArray) -> float:
    """Return the road's median brightness, 0..255."""
    return float(np.median(image[road].mean(axis=1)))
