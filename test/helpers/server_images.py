# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The images that the LaRS server takes, read again."""

import numpy as np

from ood_perception.metrics.lars import COLOURS, IGNORED


def from_coloured(photo):
    """Return labels (H, W) of a server image (H, W, 3) RGB; unknown colours become IGNORED."""
    labels = np.full(photo.shape[:2], IGNORED, np.uint8)
    for label, colour in enumerate(COLOURS):
        labels[(photo == np.array(colour, np.uint8)).all(axis=2)] = label
    return labels
