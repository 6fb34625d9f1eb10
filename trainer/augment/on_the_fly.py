# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Fresh views, mixes or crops in every step, the backbone running: UEM's own training, for a GPU.

A step's images depend on the seed, the step and their place in it alone, so that a resumed run
sees what an unbroken one sees.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cached_property

import cv2
import numpy as np
import torch

from ood_perception.errors import ConfigError
from ood_perception.image.geometry import geometry_for
from ood_perception.types import UInt8Array

from ..artifacts import digest
from ..backbones.base import Backbone, Layer, layer_name
from ..data.images import IGNORED, ImageList, content_sha256
from ..distributed import device, share
from ..features import FeatureSet, View, forward_tokens
from .mixes import AnomalyMix
from .views import ViewSettings, recoloured

DEVICES = ('auto', 'cpu', 'cuda')


@dataclass(frozen=True)
class OnTheFlySettings:
    """
    Options of on-the-fly training (used where segmenter.on_the_fly or uem.on_the_fly is set).

    crop: height and width of the part that is cut out of a scaled image; padded to the network's
        size with black, IGNORED pixels (UEM: 512 x 1024 in 518 x 1036).
    device: of the backbone and of what is trained; auto = cuda where there is one.
    """

    crop: tuple[int, int] = (512, 1024)
    device: str = 'auto'

    def __post_init__(self) -> None:
        if self.device not in DEVICES or min(self.crop) < 1:
            raise ConfigError(
                f'on_the_fly: crop {self.crop}, device {self.device!r}: give sides of at least 1 '
                f'and one of {", ".join(DEVICES)}'
            )

    @property
    def place(self) -> torch.device:
        """The device that counts."""
        if self.device == 'auto':
            return device()
        return torch.device(self.device)


@dataclass
class OnTheFlyFeatures:
    """
    A training set whose views are drawn when they are asked for.

    Stands where a FeatureSet of cached tokens does: names, height, width, patch, key. blocks:
    0-based, or names of layers. mix: objects pasted before the augmentation, None for views alone.
    device: where backbone and training are.
    """

    images: ImageList
    backbone: Backbone
    blocks: tuple[Layer, ...]
    view: View
    views: ViewSettings
    settings: OnTheFlySettings
    mix: AnomalyMix | None = None

    def __post_init__(self) -> None:
        self.names, (self.height, self.width) = self.images.names, self.view.size
        self.patch, self.device = self.backbone.patch, self.settings.place

    @cached_property
    def key(self) -> str:
        """A hash of everything that is drawn."""
        parts = [
            content_sha256(self.images),
            self.backbone.provenance.get('weights_sha256', ''),
            self.backbone.normalisation,
            list(self.blocks),
            asdict(self.view),
            asdict(self.views),
            self.settings.crop,
            *(self.mix.marks(self.images) if self.mix else ([], {}, [])),
        ]
        return digest(parts)

    @cached_property
    def _baked(self) -> torch.nn.Module:
        baked = self.backbone.baked(*self.view.size, self.blocks)
        # a copy of its own on the device: whoever else uses the backbone expects it on the CPU
        return baked if self.device.type == 'cpu' else copy.deepcopy(baked).to(self.device)

    def draw(
        self, indices: Sequence[int], step: int, places: Sequence[int] | None = None
    ) -> FeatureSet:
        """
        Return tokens and labels of fresh views of the images at `indices`, in that order.

        places: of indices, those that are drawn alone; None = all.
        """
        chosen = range(len(indices)) if places is None else places
        pairs = [(place, indices[place]) for place in chosen]
        with ThreadPoolExecutor(max(1, len(pairs))) as pool:  # reading waits for the disk
            drawn = list(pool.map(lambda pair: self._one(*pair, step), pairs))
        images = np.stack([image for image, _ in drawn])
        tokens = forward_tokens(self._baked, images, self.view.precision)
        return FeatureSet(
            names=tuple(self.names[i] for _, i in pairs),
            tokens={layer_name(b): t for b, t in zip(self.blocks, tokens, strict=True)},
            labels=np.stack([labels for _, labels in drawn]),
            height=self.height,
            width=self.width,
            patch=self.patch,
            key=f'{self.key} {step}',
        )

    def _one(self, place: int, index: int, step: int) -> tuple[UInt8Array, UInt8Array]:
        rng = np.random.default_rng((self.views.seed, step, place))
        image, labels = self.images.read(index)
        mix = self.mix
        if mix and rng.random() < mix.settings.probability:
            # the least size of an object holds at the image's own scale
            image, labels = mix.paste((image, labels), rng, 1.0, self.images)
        return draw_crop(image, labels, self.views, self.settings.crop, self.view.size, rng)


def draw_crop(
    image: UInt8Array,
    labels: UInt8Array,
    views: ViewSettings,
    crop: tuple[int, int],
    size: tuple[int, int],
    rng: np.random.Generator,
) -> tuple[UInt8Array, UInt8Array]:
    """
    Scale, crop, mirror and recolour an image of any size; return it at network size.

    image: uint8 (H, W, 3) RGB; labels: uint8 (H, W). crop: of the scaled image, at most `size`.
    What the crop does not fill is black and IGNORED.
    """
    factor = float(rng.uniform(*views.scale))
    sides = [max(1, round(side * factor)) for side in labels.shape]
    smoother = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    image = cv2.resize(image, sides[::-1], interpolation=smoother)
    labels = cv2.resize(labels, sides[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    wanted = [min(c, s) for c, s in zip(crop, size, strict=True)]
    top, left = (int(rng.integers(max(s - c, 0) + 1)) for s, c in zip(sides, wanted, strict=True))
    part = (slice(top, top + wanted[0]), slice(left, left + wanted[1]))
    image, labels = image[part], labels[part]
    if rng.random() < views.flip:
        image, labels = image[:, ::-1], labels[:, ::-1]
    image = recoloured(np.ascontiguousarray(image), views, rng)
    rows, columns = labels.shape
    canvas, truth = np.zeros((*size, 3), np.uint8), np.full(size, IGNORED, np.uint8)
    canvas[:rows, :columns], truth[:rows, :columns] = image, labels
    return canvas, truth


def drawn(
    features: FeatureSet | OnTheFlyFeatures, indices: Sequence[int], step: int
) -> tuple[FeatureSet, Sequence[int]]:
    """Return what a step reads of a training set, and at which places this process reads it."""
    if not isinstance(features, OnTheFlyFeatures):
        return features, share(indices)
    mine = share(range(len(indices)))
    return features.draw(indices, step, mine or [0]), range(len(mine))


def token_widths(features: FeatureSet | OnTheFlyFeatures, layers: Sequence[str]) -> list[int]:
    """Return the width of each of a set's layers."""
    if isinstance(features, OnTheFlyFeatures):
        return [features.backbone.width(layer) for layer in layers]
    return [int(features.tokens[layer].shape[-1]) for layer in layers]


def device_of(features: FeatureSet | OnTheFlyFeatures) -> torch.device:
    """Return where a set is trained on: cached tokens on the CPU."""
    return features.device if isinstance(features, OnTheFlyFeatures) else torch.device('cpu')


@dataclass(frozen=True)
class Crops:
    """
    Images to draw crops from.

    size: height and width of a crop, pixels. view: what magnification the network sees the
    images at. views: further magnification, flip and colours. mix: objects that are pasted into
    every image first, None = none.
    """

    images: ImageList
    size: tuple[int, int]
    view: View
    views: ViewSettings
    mix: AnomalyMix | None = None

    @cached_property
    def key(self) -> str:
        """A hash of everything that is drawn."""
        objects = self.mix.marks(self.images) if self.mix else ([],)
        network = (self.view.size, self.view.policy)
        parts = [content_sha256(self.images), self.size, network, asdict(self.views)]
        return digest([*parts, *objects])

    def draw(self, index: int, rng: np.random.Generator) -> tuple[UInt8Array, UInt8Array]:
        """
        Return a crop of image `index`, uint8 (h, w, 3) RGB, and its labels uint8 (h, w).

        What the image does not reach is black and IGNORED, right and below.
        """
        image, labels = self.images.read(index)
        size = (int(labels.shape[0]), int(labels.shape[1]))
        network = geometry_for(size, self.view.size, self.view.policy).scale_x
        if self.mix:
            image, labels = self.mix.paste((image, labels), rng, network, self.images)
        least, greatest = self.views.scale
        views = replace(self.views, scale=(least * network, greatest * network))
        return draw_crop(image, labels, views, self.size, self.size, rng)
