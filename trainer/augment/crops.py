# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Fresh crops of pictures at the network's magnification, for training that needs pixels."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ood_perception.image.geometry import geometry_for

from ..artifacts import digest
from ..data.images import PictureList, content_sha256
from ..features import View
from .mixes import AnomalyMix
from .on_the_fly import draw_crop
from .views import ViewSettings

UInt8Array = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Crops:
    """
    Pictures to draw crops from.

    size: height and width of a crop, pixels. view: what magnification the network sees the
    pictures at. views: further magnification, flip and colours. mix: objects that are pasted into
    every picture first, None = none.
    """

    pictures: PictureList
    size: tuple[int, int]
    view: View
    views: ViewSettings
    mix: AnomalyMix | None = None

    @cached_property
    def key(self) -> str:
        """A hash of everything that is drawn."""
        objects = self.mix.marks(self.pictures) if self.mix else ([],)
        network = (self.view.size, self.view.policy)
        parts = [content_sha256(self.pictures), self.size, network, asdict(self.views)]
        return digest([*parts, *objects])

    def draw(self, index: int, rng: np.random.Generator) -> tuple[UInt8Array, UInt8Array]:
        """
        Return a crop of picture `index`, uint8 (h, w, 3) RGB, and its labels uint8 (h, w).

        What the picture does not reach is black and IGNORED, right and below.
        """
        image, labels = self.pictures.read(index)
        size = (int(labels.shape[0]), int(labels.shape[1]))
        network = geometry_for(size, self.view.size, self.view.policy).scale_x
        if self.mix:
            image, labels = self.mix.paste((image, labels), rng, network, self.pictures)
        least, greatest = self.views.scale
        views = replace(self.views, scale=(least * network, greatest * network))
        return draw_crop(image, labels, views, self.size, self.size, rng)
