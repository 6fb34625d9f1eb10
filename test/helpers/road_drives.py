# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Drawn roads as a drive of clean frames, and a bundle whose calibration does not fit them."""

import cv2
import numpy as np
from bundles import ODD, ROAD_GREY, write_tiny_bundle

from ood_perception.postprocess.calibration import HeldOutSample

SPREAD = 14


def road(number, odd=False):
    """Return uint8 (112, 168, 3): squares of greys about the road's, as wide as a patch."""
    rng = np.random.default_rng(number)
    squares = np.array(ROAD_GREY) + rng.normal(0, SPREAD, (4, 6, 1))
    image = np.kron(squares, np.ones((28, 28, 1))).clip(0, 255).astype(np.uint8)
    if odd:
        image[40:80, 60:110] = ODD
    return image


def write_home(path):
    """Write a bundle calibrated on roads of a fifth of the spread."""
    surprisal = np.random.default_rng(0).exponential(0.02, (2000, 1)).astype(np.float32)
    truth, weight = np.zeros(2000, np.uint8), np.ones(2000, np.float32)
    sample = HeldOutSample(('Road', 'Sky'), np.repeat(surprisal, 2, axis=1), truth, weight)
    return write_tiny_bundle(path, classes=('Road', 'Sky'), held_out=sample)


def drive(folder, numbers, **options):
    """Write a folder of road images."""
    folder.mkdir()
    for number in numbers:
        cv2.imwrite(str(folder / f'{number:03d}.png'), road(number, **options)[..., ::-1])
    return folder
