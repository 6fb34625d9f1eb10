# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Anomaly Mix: outlier exposure by pasting foreign objects into training images (UEM, section 4).

With some probability an image takes all objects of one everyday image, each at a uniformly
random place, before it is scaled, mirrored and recoloured. Mixes are drawn once, so that their
tokens can be cached.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ood_perception.errors import ConfigError
from ood_perception.image.geometry import geometry_for
from ood_perception.types import UInt8Array

from ..data.images import ImageList
from .cutouts import Cutout
from .pasting import MixSettings, mix_objects
from .views import ViewSettings, draw_view, hash_of, random_of


@dataclass(frozen=True)
class AnomalyMix:
    """Objects to paste; groups: the cut-outs of each everyday image."""

    groups: tuple[tuple[Cutout, ...], ...] = ()
    settings: MixSettings = field(default_factory=MixSettings)

    def paste(
        self,
        image: tuple[UInt8Array, UInt8Array],
        rng: np.random.Generator,
        magnification: float,
        images: ImageList,
    ) -> tuple[UInt8Array, UInt8Array]:
        """Return an image of the list and its labels with a drawn group, see mix_objects."""
        group = self.groups[int(rng.integers(len(self.groups)))]
        ground = self.settings.ground(images)
        return mix_objects(*image, group, rng, self.settings, magnification, ground)

    def marks(self, images: ImageList) -> tuple[Any, ...]:
        """Return what mixes of a list depend on, JSON values: objects, settings, their ground."""
        objects = [marks_of(group) for group in self.groups]
        return objects, asdict(self.settings), self.settings.ground(images)


@dataclass(frozen=True)
class MixedImages(ImageList):
    """
    Mixes as a list of images; labels are class ids, OUTLIER on pasted pixels, IGNORED around.

    A mix depends on the settings, the objects and its own name alone. source: the list that is
    drawn from, which alone knows how its labels are read. network, policy: (h, w) in
    pixels and how images are brought to it, for MixSettings.smallest.
    """

    source: ImageList
    mix: AnomalyMix = field(default_factory=AnomalyMix)
    view: ViewSettings = field(default_factory=ViewSettings)
    network: tuple[int, int] = (378, 672)
    policy: str = 'fit'

    def read(self, index: int) -> tuple[UInt8Array, UInt8Array]:
        """Return a mix and its labels, see ImageList.read."""
        image, labels = self.source.read(index)
        rng = random_of(self.names[index])
        if rng.random() < self.mix.settings.probability:
            size = (labels.shape[0], labels.shape[1])
            scale = geometry_for(size, self.network, self.policy).scale_x
            image, labels = self.mix.paste((image, labels), rng, scale, self)
        return draw_view(image, labels, self.view, rng)

    def encoding(self) -> bytes:
        """Return what the labels' meaning depends on, and where objects stand."""
        return self.source.encoding() + bytes(self.mix.settings.ground(self))


def draw_mixes(
    images: ImageList,
    cutouts: Sequence[Cutout],
    mix: MixSettings,
    view: ViewSettings,
    network: tuple[int, int],
    policy: str = 'fit',
) -> MixedImages:
    """
    Return mix.count mixes; each image is taken about equally often.

    cutouts: grouped by the everyday image that they come from. ConfigError without any.
    network, policy: size (h, w) of its input and how images are brought to it.
    """
    if not cutouts:
        raise ConfigError('there is no object to mix in: give cut-outs, or fewer exclusions')
    drawing = {'mix': asdict(mix), 'view': asdict(view), 'network': [*network, policy]}
    mark = hash_of({**drawing, 'objects': marks_of(cutouts)})
    rng = np.random.default_rng(mix.seed)
    rounds = -(-mix.count // len(images))
    order = np.concatenate([rng.permutation(len(images)) for _ in range(rounds)])[: mix.count]
    chosen = [int(i) for i in order]
    names = tuple(f'{images.names[i]}@{mark}-{n}' for n, i in enumerate(chosen))
    source = images.subset(chosen)
    return source.remade(
        MixedImages,
        names=names,
        source=source,
        mix=AnomalyMix(grouped(cutouts), mix),
        view=view,
        network=network,
        policy=policy,
    )


def grouped(cutouts: Sequence[Cutout]) -> tuple[tuple[Cutout, ...], ...]:
    """Return the cut-outs of each everyday image."""
    groups: dict[str, list[Cutout]] = {}
    for cutout in cutouts:
        groups.setdefault(cutout.image, []).append(cutout)
    return tuple(tuple(group) for group in groups.values())


def marks_of(cutouts: Sequence[Cutout]) -> list[list[str]]:
    """Return what tells cut-outs apart, as JSON values."""
    return [[c.image, c.category, hash_of({'rgba': c.rgba.tobytes().hex()})] for c in cutouts]
