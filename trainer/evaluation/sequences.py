# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Short sequences for tracking, made of single pictures, and drives that are sequences already."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from ood_perception.errors import ConfigError
from ood_perception.types import Frame

from ..data import IGNORED, PictureList
from ..datasets.anomaly import ANOMALY
from ..outliers import Cutout, PasteSettings, paste_objects

BoolArray = npt.NDArray[np.bool_]
UInt8Array = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Step:
    """
    One frame of a sequence.

    frame: its camera is the sequence's name. labels: uint8 (H, W), true class ids, IGNORED where
    unknown. thing: bool (H, W), the pasted object's pixels, None without one.
    """

    frame: Frame
    labels: UInt8Array
    thing: BoolArray | None


@dataclass(frozen=True)
class Motion:
    """
    How a camera moves before a single picture.

    frames, fps: length and rate. growth: zoom a frame about the horizon's middle, as when driving
    forward. shake: standard deviation of the shift, as a share of the width. noise: of the
    sensor, in grey levels. horizon: its row as a share of the height.
    """

    frames: int = 12
    fps: float = 10.0
    growth: float = 0.015
    shake: float = 0.003
    noise: float = 2.0
    horizon: float = 0.46

    def __post_init__(self) -> None:
        if self.frames < 1 or not self.fps > 0 or not -0.5 < self.growth < 0.5:
            raise ConfigError(
                f'motion of {self.frames} frames at {self.fps:g} a second growing by '
                f'{self.growth:g}: give 1 or more frames, a rate above 0, growth within 0.5'
            )


def moved(
    image: UInt8Array,
    labels: UInt8Array,
    thing: BoolArray | None,
    name: str,
    motion: Motion,
    seed: int = 0,
) -> Iterator[Step]:
    """
    Yield a picture as a moving, shaking, noisy camera would see a flat print of it.

    image: uint8 (H, W, 3) RGB. labels: uint8 (H, W). thing: bool (H, W) or None. The draws depend
    on seed and name alone, so a picture with and without its object moves alike.
    """
    own = int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], 'big')
    rng = np.random.default_rng([seed, own])
    height, width = labels.shape
    # Borders that shake into view would be invented; a little zoom keeps them outside.
    margin = 1.0 + 6.0 * motion.shake
    for number in range(motion.frames):
        zoom = margin * (1.0 + motion.growth) ** number
        shift = rng.normal(0.0, motion.shake * width, 2)
        centre = np.array([0.5 * width, motion.horizon * height])
        matrix = np.column_stack([zoom * np.eye(2), centre - zoom * centre + shift])
        size = (width, height)
        picture = cv2.warpAffine(
            image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        noisy = picture + rng.normal(0.0, motion.noise, picture.shape)
        yield Step(
            Frame(
                np.clip(np.rint(noisy), 0, 255).astype(np.uint8),
                name,
                round((number + 1) * 1e9 / motion.fps),
                name,
            ),
            _moved_ids(labels, matrix, size, IGNORED),
            None if thing is None else _moved_ids(thing.astype(np.uint8), matrix, size, 0) > 0,
        )


def _moved_ids(
    ids: UInt8Array, matrix: npt.NDArray[np.float64], size: tuple[int, int], outside: int
) -> UInt8Array:
    return np.asarray(
        cv2.warpAffine(
            ids,
            matrix,
            size,
            flags=cv2.INTER_NEAREST,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=outside,
        ),
        dtype=np.uint8,
    )


def with_object(
    image: UInt8Array,
    labels: UInt8Array,
    cutouts: Sequence[Cutout],
    name: str,
    ground: Sequence[int],
) -> tuple[UInt8Array, BoolArray] | None:
    """Return the picture with an object on its ground, and its pixels; None without room."""
    own = int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], 'big')
    settings = PasteSettings(objects=(1, 1), width=(0.03, 0.15), ground=tuple(ground))
    pasted = paste_objects(image, labels, cutouts, np.random.default_rng(own), settings)
    thing = pasted.mask == ANOMALY
    return (pasted.image, thing) if thing.any() else None


def drive(pictures: PictureList, fps: float) -> Iterator[Step]:
    """Yield a labelled split as it was recorded, each of its drives at `fps` frames a second."""
    for number, name in enumerate(pictures.names):
        image, labels = pictures.read(number)
        stamp = round((number + 1) * 1e9 / fps)
        yield Step(Frame(image, pictures.sequences[number], stamp, name), labels, None)
