# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What a real camera does to the light: vignetting, blur, exposure, noise, JPEG."""

from __future__ import annotations

import cv2
import numpy as np

from ood_perception.types import Float32Array, UInt8Array

_BLUR = 0.75
_JPEG_QUALITY = 92


def expose(light: Float32Array, exposure: float, rng: np.random.Generator) -> UInt8Array:
    """
    Return the camera's picture of a rendered scene, uint8 (H, W, 3) RGB.

    light: float32 (H, W, 3), RGB, about 0..255 and more for glare. exposure: factor. rng: source
    of the sensor noise.
    """
    height, width = light.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    vignette = (1.0 - 0.14 * (x * x + y * y)).astype(np.float32)[..., None]
    seen = cv2.GaussianBlur(light, (0, 0), _BLUR) * vignette * np.float32(exposure)
    glow = cv2.GaussianBlur(cv2.resize(seen, None, fx=0.125, fy=0.125), (0, 0), 12)
    seen = 0.96 * seen + 0.04 * cv2.resize(glow, (width, height))
    # Highlights roll off instead of clipping hard.
    rolled = np.where(seen > 200, 200 + 55 * np.tanh((seen - 200) / 55), seen)
    noisy = rolled + sensor_noise(rng, rolled)
    picture = np.clip(noisy + 0.5, 0, 255).astype(np.uint8)
    quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    _, jpeg = cv2.imencode('.jpg', picture[..., ::-1], quality)
    decoded = np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_COLOR))
    return np.ascontiguousarray(decoded[..., ::-1], dtype=np.uint8)


def sensor_noise(rng: np.random.Generator, picture: Float32Array) -> Float32Array:
    """Return shot and read noise of a demosaicked sensor, float32, like `picture`."""
    raw = rng.standard_normal(picture.shape, dtype=np.float32)
    smooth = cv2.GaussianBlur(raw, (0, 0), 0.7)
    smooth /= float(smooth.std())
    return np.asarray(smooth * np.sqrt(0.9 + 0.035 * np.clip(picture, 0, 255)), np.float32)
