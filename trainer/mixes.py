# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Anomaly Mix: outlier exposure by pasting foreign objects into training pictures (UEM, section 4).

With some probability a picture takes all objects of one everyday picture, each at a uniformly
random place, before it is scaled, mirrored and recoloured. Mixes are drawn once, so that their
tokens can be cached.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from ood_perception.errors import ConfigError

from .data import IGNORED, PictureList
from .outliers import Cutout
from .views import ViewSettings, draw_view, hash_of, random_of

UInt8Array = npt.NDArray[np.uint8]
OUTLIER = 254
PAPER_WIDTH = 2048


@dataclass(frozen=True)
class MixSettings:
    """
    How outliers are mixed in.

    count: number of mixes. probability: of a mix with outliers (UEM: 0.2 in each step, of
        pictures that change with every epoch; pre-drawn mixes are fewer).
    scale: size of an object, as a factor of its own pixels in a picture 2048 wide (UEM: 1);
        smaller pictures scale it down alike.
    smallest: least longer side in pixels of an object at the network's width (a patch).
    border: pixels around each object that are ignored.
    seed: of everything.
    """

    count: int = 1200
    probability: float = 0.5
    scale: float = 1.0
    smallest: int = 14
    border: int = 1
    seed: int = 42

    def __post_init__(self) -> None:
        if self.count < 1 or not 0.0 < self.probability <= 1.0 or self.scale <= 0:
            raise ConfigError(
                f'mixes: count {self.count}, probability {self.probability:g}, scale '
                f'{self.scale:g}: give at least 1, a share in (0, 1] and a factor above 0'
            )


@dataclass(frozen=True)
class MixedPictures(PictureList):
    """
    Mixes as a list of pictures; labels are class ids, OUTLIER on pasted pixels, IGNORED around.

    A mix depends on the settings, the objects and its own name alone. groups: the cut-outs of
    each everyday picture. network_width: pixels, for MixSettings.smallest.
    """

    mix: MixSettings = field(default_factory=MixSettings)
    view: ViewSettings = field(default_factory=ViewSettings)
    groups: tuple[tuple[Cutout, ...], ...] = ()
    network_width: int = 672

    def read(self, index: int) -> tuple[UInt8Array, UInt8Array]:
        """Return a mix and its labels, see PictureList.read."""
        image, labels = super().read(index)
        rng = random_of(self.names[index])
        if rng.random() < self.mix.probability:
            group = self.groups[int(rng.integers(len(self.groups)))]
            image, labels = mix_objects(
                image, labels, group, rng, self.mix, self.network_width / image.shape[1]
            )
        return draw_view(image, labels, self.view, rng)


def draw_mixes(
    pictures: PictureList,
    cutouts: Sequence[Cutout],
    mix: MixSettings,
    view: ViewSettings,
    network_width: int,
) -> MixedPictures:
    """
    Return mix.count mixes; each picture is taken about equally often.

    cutouts: grouped by the everyday picture that they come from. ConfigError without any.
    """
    if not cutouts:
        raise ConfigError('there is no object to mix in: give cut-outs, or fewer exclusions')
    groups: dict[str, list[Cutout]] = {}
    for cutout in cutouts:
        groups.setdefault(cutout.picture, []).append(cutout)
    objects = [[c.picture, c.category, hash_of({'rgba': c.rgba.tobytes().hex()})] for c in cutouts]
    mark = hash_of({'mix': asdict(mix), 'view': asdict(view), 'objects': objects})
    rng = np.random.default_rng(mix.seed)
    rounds = -(-mix.count // len(pictures))
    order = np.concatenate([rng.permutation(len(pictures)) for _ in range(rounds)])[: mix.count]
    chosen = [int(i) for i in order]
    return MixedPictures(
        tuple(f'{pictures.names[i]}@{mark}-{n}' for n, i in enumerate(chosen)),
        tuple(pictures.images[i] for i in chosen),
        tuple(pictures.labels[i] for i in chosen),
        tuple(pictures.sequences[i] for i in chosen),
        pictures.classes,
        mix,
        view,
        tuple(tuple(group) for group in groups.values()),
        network_width,
    )


def mix_objects(
    image: UInt8Array,
    labels: UInt8Array,
    group: Sequence[Cutout],
    rng: np.random.Generator,
    settings: MixSettings,
    magnification: float,
) -> tuple[UInt8Array, UInt8Array]:
    """
    Paste every object of a group at a uniformly random place of the picture.

    image: uint8 (H, W, 3) RGB; labels: uint8 (H, W). magnification: network pixels per pixel.
    An object that is larger than the picture is left out; later objects cover earlier ones.
    Nothing is blended: a pixel is the object's or the picture's.
    """
    image, labels = image.copy(), labels.copy()
    height, width = labels.shape
    for cutout in group:
        rgba = _resized(cutout.rgba, settings, width, magnification)
        rows, columns = rgba.shape[:2]
        if rows > height or columns > width:
            continue
        top = int(rng.integers(height - rows + 1))
        left = int(rng.integers(width - columns + 1))
        solid = np.zeros(labels.shape, np.uint8)
        solid[top : top + rows, left : left + columns] = rgba[..., 3] > 127
        reach = 2 * settings.border + 1
        near = cv2.dilate(solid, np.ones((reach, reach), np.uint8)) > 0
        labels[near] = IGNORED
        labels[solid > 0] = OUTLIER
        inside = rgba[..., 3] > 127
        image[top : top + rows, left : left + columns][inside] = rgba[..., :3][inside]
    return image, labels


def _resized(
    rgba: UInt8Array, settings: MixSettings, width: int, magnification: float
) -> UInt8Array:
    """Scale an object to the picture: width / 2048 times its factor, but not below a patch."""
    factor = settings.scale * width / PAPER_WIDTH
    longer = max(rgba.shape[:2])
    factor = max(factor, settings.smallest / magnification / longer)
    rows, columns = (max(1, round(side * factor)) for side in rgba.shape[:2])
    smoother = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    # premultiplied, so that what surrounded the object does not bleed into its rim
    alpha = rgba[..., 3:].astype(np.float32) / 255
    layers = np.concatenate([rgba[..., :3] * alpha, alpha], axis=2)
    small = cv2.resize(layers, (columns, rows), interpolation=smoother)
    colour = small[..., :3] / np.maximum(small[..., 3:], 1e-3)
    return np.dstack([np.clip(np.round(colour), 0, 255), small[..., 3] * 255]).astype(np.uint8)
