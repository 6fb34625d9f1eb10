# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Synthetic negatives: patches of a flow pasted into images before any normalisation (NFlowJS).

The patch is a plain rectangle without any blending, and all of it is OUTLIER, void below it
included. No border around it is ignored.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ood_perception.types import UInt8Array

from ...augment.pasting import OUTLIER
from .flow import STRIDE

Corners = Sequence[tuple[int, int]]


def patch_sides(crop: tuple[int, int], smallest: int, largest: int, reference: int) -> list[int]:
    """
    Return the sides that a patch may have: multiples of STRIDE, at least one.

    smallest, largest: pixels where the crop's shorter side is `reference`; in proportion to it
    otherwise, rounded to the nearest multiple. The published law is 16 to 216 at 768.
    """
    shorter = min(crop)
    first, last = (
        max(1, round(side * shorter / reference / STRIDE)) for side in (smallest, largest)
    )
    last = min(last, shorter // STRIDE)
    return [STRIDE * count for count in range(min(first, last), last + 1)]


def draw_places(
    images: UInt8Array, sides: Sequence[int], rng: np.random.Generator
) -> tuple[tuple[int, int], list[tuple[int, int]]]:
    """
    Return one size (rows, columns) for a batch and a uniformly random corner in each image.

    images: uint8 (B, h, w, 3), padded with black right and below; corners keep the patch inside
    the image where it is large enough.
    """
    rows, columns = (int(rng.choice(sides)) for _ in range(2))
    corners = []
    for image in images:
        shown = image.any(axis=2)
        height, width = (
            int(np.flatnonzero(shown.any(axis=axis))[-1]) + 1 if shown.any() else side
            for axis, side in ((1, image.shape[0]), (0, image.shape[1]))
        )
        top = int(rng.integers(max(height - rows, 0) + 1))
        left = int(rng.integers(max(width - columns, 0) + 1))
        corners.append((top, left))
    return (rows, columns), corners


def cut(images: torch.Tensor, corners: Corners, size: tuple[int, int]) -> torch.Tensor:
    """Return what patches of a size would cover, (B, 3, rows, columns) of (B, h, w, 3)."""
    rows, columns = size
    parts = [
        image[top : top + rows, left : left + columns]
        for image, (top, left) in zip(images, corners, strict=True)
    ]
    return torch.stack(parts).permute(0, 3, 1, 2)


def paste(
    images: torch.Tensor, labels: torch.Tensor, patches: torch.Tensor, corners: Corners
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Return images and labels with a patch in each; the gradient passes to the patches.

    images: float (B, h, w, 3) RGB, 0 to 255. labels: (B, h, w). patches: float (B, 3, rows,
    columns) in the same units. corners: first row and column of each.
    """
    mixed, truth = images.clone(), labels.clone()
    rows, columns = patches.shape[2:]
    for index, (top, left) in enumerate(corners):
        place = (index, slice(top, top + rows), slice(left, left + columns))
        mixed[place] = patches[index].permute(1, 2, 0)
        truth[place] = OUTLIER
    return mixed, truth
