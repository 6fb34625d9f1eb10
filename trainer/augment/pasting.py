# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Objects pasted anywhere in an image, as UEM's Anomaly Mix does: exact masks, ignored borders.

Beside `cutouts.paste_objects`, which makes test images with objects that stand on the road.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from ood_perception.errors import ConfigError
from ood_perception.types import UInt8Array

from ..data.images import IGNORED, ImageList
from .cutouts import Cutout, blend, scaled

OUTLIER = 254
PAPER_WIDTH = 2048


@dataclass(frozen=True)
class MixSettings:
    """
    How outliers are mixed in.

    count: number of mixes. probability: of a mix with outliers (UEM: 0.2 in each step, of
        images that change with every epoch; pre-drawn mixes are fewer).
    scale: size of an object, as a factor of its own pixels in an image 2048 wide (UEM: 1);
        smaller images scale it down alike.
    smallest: least longer side in pixels of an object at the network's width (a patch).
    border: pixels around each object that are ignored.
    stand_on: names of classes; the middle of an object's lowest row then lies on one of them. () =
        anywhere, as UEM.
    feather: sigma in pixels that softens an object's edge, most of it within the ignored border.
    recolour: share in [0, 1] by which an object's mean colour moves to that of the place. Both 0
        in UEM: nothing is blended.
    seed: of everything.
    """

    count: int = 1200
    probability: float = 0.5
    scale: float = 1.0
    smallest: int = 14
    border: int = 1
    stand_on: tuple[str, ...] = ()
    feather: float = 0.0
    recolour: float = 0.0
    seed: int = 42

    def __post_init__(self) -> None:
        if self.feather < 0 or (self.feather and not self.border) or not 0 <= self.recolour <= 1:
            raise ConfigError(
                f'mixes: feather {self.feather:g} with border {self.border}, recolour '
                f'{self.recolour:g}: give a sigma within a border of at least 1, and a share'
            )
        if self.count < 1 or not 0.0 < self.probability <= 1.0 or self.scale <= 0:
            raise ConfigError(
                f'mixes: count {self.count}, probability {self.probability:g}, scale '
                f'{self.scale:g}: give at least 1, a share in (0, 1] and a factor above 0'
            )

    def ground(self, images: ImageList) -> tuple[int, ...]:
        """Return the class ids of stand_on; ConfigError for an unknown name."""
        names = images.classes.names
        wrong = [name for name in self.stand_on if name not in names]
        if wrong:
            raise ConfigError(f'mixes stand_on {wrong}: no such class; known are {list(names)}')
        return tuple(names.index(name) for name in self.stand_on)


def mix_objects(
    image: UInt8Array,
    labels: UInt8Array,
    group: Sequence[Cutout],
    rng: np.random.Generator,
    settings: MixSettings,
    magnification: float,
    ground: Sequence[int] = (),
) -> tuple[UInt8Array, UInt8Array]:
    """
    Paste every object of a group at a random place of the image.

    image: uint8 (H, W, 3) RGB; labels: uint8 (H, W). magnification: network pixels per pixel.
    ground: class ids that objects stand on, () = places are uniformly random.
    An object that is larger than the image or finds no ground is left out; later objects cover
    earlier ones.
    """
    image, labels = image.copy(), labels.copy()
    standing = np.isin(labels, ground) if ground else None
    for cutout in group:
        rgba = _resized(cutout.rgba, settings, labels.shape[1], magnification)
        corner = _corner(rgba.shape[:2], labels.shape, standing, rng)
        if corner is None:
            continue
        image = _painted(image, rgba, corner, settings)
        rows, columns = (slice(c, c + n) for c, n in zip(corner, rgba.shape[:2], strict=True))
        solid = np.zeros(labels.shape, np.uint8)
        solid[rows, columns] = rgba[..., 3] > 127
        reach = 2 * settings.border + 1
        near = cv2.dilate(solid, np.ones((reach, reach), np.uint8)) > 0
        labels[near] = IGNORED
        labels[solid > 0] = OUTLIER
    return image, labels


def _corner(
    size: tuple[int, int],
    shape: tuple[int, int],
    standing: npt.NDArray[np.bool_] | None,
    rng: np.random.Generator,
) -> tuple[int, int] | None:
    """Return the first row and column of an object; None where it fits nowhere."""
    (rows, columns), (height, width) = size, shape
    if rows > height or columns > width:
        return None
    if standing is None:
        return int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
    middle = columns // 2
    feet = standing[rows - 1 :, middle : middle + width - columns + 1]
    corners = np.flatnonzero(feet)
    if not corners.size:
        return None
    top, left = divmod(int(corners[rng.integers(corners.size)]), feet.shape[1])
    return top, left


def _painted(
    image: UInt8Array, rgba: UInt8Array, corner: tuple[int, int], settings: MixSettings
) -> UInt8Array:
    """Return the image with one object on it, blended as the settings say."""
    (top, left), (rows, columns), pad = corner, rgba.shape[:2], settings.border
    inside = rgba[..., 3] > 127
    window = image[top : top + rows, left : left + columns]
    colour = rgba[..., :3].astype(np.float32)
    if settings.recolour and inside.any():
        shift = window.mean((0, 1)) - colour[inside].mean(0)
        colour = np.clip(colour + settings.recolour * shift.astype(np.float32), 0, 255)
    if not settings.feather:
        window[inside] = np.round(colour[inside]).astype(np.uint8)
        return image
    canvas = np.pad(image.astype(np.float32), ((pad, pad), (pad, pad), (0, 0)), 'edge')
    rim = ((pad, pad), (pad, pad))
    blend(
        canvas[top : top + rows + 2 * pad, left : left + columns + 2 * pad],
        *(np.pad(colour, (*rim, (0, 0))), np.pad(inside.astype(np.float32), rim)),
        settings.feather,
    )
    return np.clip(np.round(canvas[pad:-pad, pad:-pad]), 0, 255).astype(np.uint8)


def _resized(
    rgba: UInt8Array, settings: MixSettings, width: int, magnification: float
) -> UInt8Array:
    """Scale an object to the image: width / 2048 times its factor, but not below a patch."""
    factor = settings.scale * width / PAPER_WIDTH
    longer = max(rgba.shape[:2])
    factor = max(factor, settings.smallest / magnification / longer)
    rows, columns = (max(1, round(side * factor)) for side in rgba.shape[:2])
    colour, alpha = scaled(rgba, rows, columns)
    return np.dstack([np.clip(np.round(colour), 0, 255), alpha * 255]).astype(np.uint8)
