# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A few numbers of a camera image: dark, flat, blurred, and how far from another."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

from ood_perception.types import Float32Array, UInt8Array

MEASURES = ('brightness', 'contrast', 'sharpness', 'warmth')
NEW_VIEW = 4.0  # grey levels between thumbnails from which on two frames are not the same view
_WIDTH = 160
_SMALL = (32, 18)  # columns, rows of the thumbnail


@dataclass(frozen=True)
class ImageStatistics:
    """
    Of one image; takes one to four milliseconds at 1080p, nearly all of it to make it small.

    brightness: mean grey, 0 to 255. contrast: its standard deviation. sharpness: the standard
    deviation of the Laplacian at 160 columns. warmth: mean of red - blue in the upper third, -255
    to 255; skies are blue: where red and blue are exchanged it changes sign.
    thumbnail: float32 (18, 32), grey.
    """

    brightness: float
    contrast: float
    sharpness: float
    warmth: float
    thumbnail: Float32Array = field(repr=False, compare=False)


def statistics_of(image: UInt8Array) -> ImageStatistics:
    """Return the statistics of uint8 (H, W, 3) RGB."""
    rows = max(3, round(image.shape[0] * _WIDTH / image.shape[1]))
    small = cv2.resize(image, (_WIDTH, rows), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    upper = small[: rows // 3].reshape(-1, 3).mean(axis=0)
    thumbnail = cv2.resize(grey, _SMALL, interpolation=cv2.INTER_AREA)
    return ImageStatistics(
        float(grey.mean()),
        float(grey.std()),
        float(cv2.Laplacian(grey, cv2.CV_32F).std()),
        float(upper[0] - upper[2]),
        thumbnail.astype(np.float32),
    )


def difference(first: Float32Array, second: Float32Array) -> float:
    """Return the mean absolute difference of two thumbnails in grey levels, each less its mean."""
    return float(np.abs((first - first.mean()) - (second - second.mean())).mean())
