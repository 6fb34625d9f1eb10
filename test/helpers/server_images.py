# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The images that the LaRS server takes, read again."""

import numpy as np

from ood_perception.metrics.lars import COLOURS, IGNORED


def from_coloured(picture):
    """Return labels (H, W) of a server picture (H, W, 3) RGB; unknown colours become IGNORED."""
    labels = np.full(picture.shape[:2], IGNORED, np.uint8)
    for label, colour in enumerate(COLOURS):
        labels[(picture == np.array(colour, np.uint8)).all(axis=2)] = label
    return labels
