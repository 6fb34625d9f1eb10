# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A bank of pre-drawn views of labelled images: augmentation for features that are cached."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import cv2
import numpy as np

from ood_perception.types import UInt8Array

from ..artifacts import digest
from ..data.images import IGNORED, ImageList


@dataclass(frozen=True)
class ViewSettings:
    """
    How the views of one image are drawn; the first is the image itself.

    views: number of an image's views. scale: least and greatest magnification, drawn uniformly
        (UEM: 0.5 to 2); above 1 a part is cropped, below 1 the rim is ignored.
    flip: probability of a mirrored view. brightness, contrast, saturation: greatest relative
        change of each, hue: greatest turn as a share of the circle.
    """

    views: int = 4
    scale: tuple[float, float] = (0.5, 2.0)
    flip: float = 0.5
    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    hue: float = 0.02
    seed: int = 42


@dataclass(frozen=True)
class DrawnImages(ImageList):
    """
    Views of the images of a list, each an image of its own: name@<settings>-<view>.

    A view depends on the settings and its own name alone, in which a hash of the settings stands.
    source: the list that is drawn from, which alone knows how its labels are read. draws: which
    view of its image each one is, 0 = the image itself.
    """

    source: ImageList
    settings: ViewSettings = field(default_factory=ViewSettings)
    draws: tuple[int, ...] = ()

    def read(self, index: int) -> tuple[UInt8Array, UInt8Array]:
        """Return a view and its labels, see ImageList.read."""
        image, labels = self.source.read(index)
        if not self.draws[index]:
            return image, labels
        return draw_view(image, labels, self.settings, random_of(self.names[index]))

    def encoding(self) -> bytes:
        """Return what the labels' meaning depends on."""
        return self.source.encoding()


def draw_views(images: ImageList, settings: ViewSettings, first: int = 0) -> DrawnImages:
    """
    Return the views of all images, image by image.

    first: 1 leaves out the images themselves, whose tokens may be there already.
    """
    mark = hash_of(asdict(settings))
    places = [(i, v) for i in range(len(images)) for v in range(first, settings.views)]
    names = [f'{images.names[i]}@{mark}-{v}' for i, v in places]
    shown, draws = images.subset(i for i, _ in places), tuple(v for _, v in places)
    return shown.remade(
        DrawnImages, names=tuple(names), source=shown, settings=settings, draws=draws
    )


def draw_view(
    image: UInt8Array, labels: UInt8Array, settings: ViewSettings, rng: np.random.Generator
) -> tuple[UInt8Array, UInt8Array]:
    """
    Scale, mirror and recolour one image; its size stays.

    image: uint8 (H, W, 3) RGB; labels: uint8 (H, W). What the image does not reach is black
    and IGNORED.
    """
    height, width = labels.shape
    scale = float(rng.uniform(*settings.scale))
    left = float(rng.uniform(0, 1)) * (width - width * scale)
    top = float(rng.uniform(0, 1)) * (height - height * scale)
    matrix = np.array([[scale, 0, left], [0, scale, top]])
    # the centre of pixel x is at x + 0.5
    matrix[:, 2] += 0.5 * scale - 0.5
    size = (width, height)
    smooth = cv2.GaussianBlur(image, (0, 0), 0.5 / scale) if scale < 1 else image
    image = cv2.warpAffine(smooth, matrix, size, flags=cv2.INTER_LINEAR)
    labels = cv2.warpAffine(
        labels, matrix, size, flags=cv2.INTER_NEAREST, borderValue=(float(IGNORED),)
    )
    if rng.random() < settings.flip:
        image, labels = image[:, ::-1], labels[:, ::-1]
    return recoloured(np.ascontiguousarray(image), settings, rng), np.ascontiguousarray(labels)


def recoloured(image: UInt8Array, settings: ViewSettings, rng: np.random.Generator) -> UInt8Array:
    """Change brightness, contrast, saturation and hue of uint8 (H, W, 3) RGB at random."""

    def factor(most: float) -> float:
        return 1.0 + float(rng.uniform(-most, most))

    values = image.astype(np.float32) * factor(settings.brightness)
    values = (values - values.mean()) * factor(settings.contrast) + values.mean()
    hsv = cv2.cvtColor(np.clip(values, 0, 255) / 255, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0] + 360 * rng.uniform(-settings.hue, settings.hue)) % 360
    hsv[..., 1] = np.clip(hsv[..., 1] * factor(settings.saturation), 0, 1)
    rgb = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    return np.clip(np.round(rgb * 255), 0, 255).astype(np.uint8)


def random_of(name: str) -> np.random.Generator:
    """Return the generator that belongs to a name."""
    mark = hashlib.sha256(name.encode()).digest()
    return np.random.default_rng(int.from_bytes(mark[:8], 'big'))


def hash_of(values: Mapping[str, Any]) -> str:
    """Return a short hash of JSON values, to mark names with."""
    return digest(values)[:8]
