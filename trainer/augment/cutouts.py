# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Objects cut out of everyday images (COCO masks), pasted on roads with exact masks."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from ood_perception.errors import DataError
from ood_perception.types import BoolArray, UInt8Array

from ..data.images import ANOMALY, IGNORED, NORMAL, read_image
from .coco import JSON_FILE, Mask, read_coco

FloatArray = npt.NDArray[np.float32]
PARTS = ('selection', 'training')
_TRIES = 60
_SMALLEST = 8


@dataclass(frozen=True)
class Cutout:
    """
    One object.

    rgba: uint8 (h, w, 4), RGB with a 0/255 mask, cropped to the object.
    image: name of the image that it was cut from; category: its class there.
    """

    rgba: UInt8Array
    image: str
    category: str


@dataclass(frozen=True)
class PasteSettings:
    """
    How objects are pasted.

    objects: least and greatest number an image.
    width: least and greatest object width as a share of the image's, drawn log-uniformly.
    height: greatest object height as a share of the image's.
    ground: class ids that an object may stand on.
    void: class ids of unknown content: ignored in the masks.
    border: pixels around each object that are ignored, feathered with feather (sigma, pixels).
    """

    objects: tuple[int, int] = (1, 3)
    width: tuple[float, float] = (0.01, 0.20)
    height: float = 0.5
    ground: tuple[int, ...] = (3, 4)
    void: tuple[int, ...] = (IGNORED,)
    border: int = 2
    feather: float = 0.6


@dataclass(frozen=True)
class Pasted:
    """
    An image with objects.

    image: uint8 (H, W, 3) RGB. mask: uint8 (H, W), NORMAL, ANOMALY or IGNORED.
    ground: bool (H, W), true ground and object pixels: the road region of interest.
    """

    image: UInt8Array
    mask: UInt8Array
    ground: BoolArray


def part_of(image: str) -> str:
    """Return 'selection' or 'training' for a source image: half each, by its name's hash."""
    return PARTS[hashlib.sha256(image.encode()).digest()[0] % 2]


def load_cutouts(
    folder: Path, part: str, smallest_area: int = 1024, licences: Sequence[int] = ()
) -> list[Cutout]:
    """
    Cut the objects of one part out of `folder`/images by `folder`/instances.json.

    Crowds, objects under smallest_area pixels and objects cut by the image's border are left
    out; with licences, images under others, by the numbers of the file. Raises DataError for an
    unknown part, a missing or wrong file (the annotation is named) or a part without objects.
    """
    if part not in PARTS:
        raise DataError(f'unknown part {part!r} of the objects; known are {PARTS}')
    cutouts: list[Cutout] = []
    for frame in read_coco(folder):
        if part_of(frame.name) == part and (not licences or frame.licence in licences):
            image = read_image(frame.path)
            frame.check_size(*image.shape[:2])
            for one in frame.objects:
                rgba = cut_out(image, one.mask, smallest_area)
                if rgba is not None:
                    cutouts.append(Cutout(rgba, frame.name, one.category))
    if not cutouts:
        under = f' under the licences {", ".join(map(str, licences))}' if licences else ''
        raise DataError(f'{folder / JSON_FILE} has no object for the part {part!r}{under}')
    return cutouts


def cut_out(image: UInt8Array, mask: Mask, smallest_area: int) -> UInt8Array | None:
    """Crop one object (h, w, 4); None when it is too small or touches the image's border."""
    drawn = np.zeros(image.shape[:2], np.uint8)
    mask.draw(drawn, 255)
    if cv2.countNonZero(drawn) < max(1, smallest_area):
        return None
    left, top, width, height = cv2.boundingRect(drawn)
    bottom, right = top + height, left + width
    if top < 2 or left < 2 or bottom > image.shape[0] - 2 or right > image.shape[1] - 2:
        return None
    part = (slice(top, bottom), slice(left, right))
    return np.dstack([image[part], drawn[part]])


def paste_objects(
    image: UInt8Array,
    labels: UInt8Array,
    cutouts: Sequence[Cutout],
    rng: np.random.Generator,
    settings: PasteSettings,
) -> Pasted:
    """
    Paste some objects so that each one's foot stands on ground and none covers another.

    image: uint8 (H, W, 3) RGB; labels: uint8 (H, W) true class ids. An image without enough
    ground gets fewer objects. Deterministic for a given state of rng.
    """
    if image.shape[:2] != labels.shape:
        raise DataError(f'image {image.shape[:2]} and labels {labels.shape} differ in size')
    canvas = image.astype(np.float32)
    ground = np.isin(labels, settings.ground)
    mask = np.where(np.isin(labels, settings.void), IGNORED, NORMAL).astype(np.uint8)
    taken = np.zeros(labels.shape, bool)
    low, high = settings.objects
    for _ in range(int(rng.integers(low, high + 1))):
        cutout = cutouts[int(rng.integers(len(cutouts)))]
        placed = _place(cutout, ground & ~taken, taken, rng, settings)
        if placed is not None:
            window, colour, alpha, near = placed
            blend(canvas[window], colour, alpha, settings.feather)
            mask[window][near] = IGNORED
            mask[window][alpha >= 0.5] = ANOMALY
            taken[window] |= near
    pixels = np.clip(np.round(canvas), 0, 255).astype(np.uint8)
    return Pasted(pixels, mask, ground | (mask == ANOMALY))


def _place(
    cutout: Cutout, ground: BoolArray, taken: BoolArray, rng: np.random.Generator, s: PasteSettings
) -> tuple[tuple[slice, slice], FloatArray, FloatArray, BoolArray] | None:
    """Return window, colour (h, w, 3), alpha (h, w), object with border (h, w); None: no room."""
    height, width = ground.shape
    spots = np.flatnonzero(ground)
    pad, reach = s.border + 1, 2 * s.border + 1
    for _ in range(_TRIES if spots.size else 0):
        columns = max(int(round(float(np.exp(rng.uniform(*np.log(s.width)))) * width)), 3)
        rows = max(int(round(columns * cutout.rgba.shape[0] / cutout.rgba.shape[1])), 2)
        foot, centre = divmod(int(spots[rng.integers(spots.size)]), width)
        top, left = foot - rows + 1 - pad, centre - columns // 2 - pad
        bottom, right = foot + pad + 1, left + columns + 2 * pad
        if rows > s.height * height or top < 0 or left < 0 or bottom > height or right > width:
            continue
        window = (slice(top, bottom), slice(left, right))
        colour, alpha = (
            np.pad(part, [(pad, pad), (pad, pad), (0, 0)][: part.ndim])
            for part in scaled(cutout.rgba, rows, columns)
        )
        solid = alpha >= 0.5
        near = cv2.dilate(solid.astype(np.uint8), np.ones((reach, reach), np.uint8)) > 0
        free = np.count_nonzero(solid) >= _SMALLEST and not (taken[window] & near).any()
        if free and _stands(solid, ground[foot, left:right]):
            return window, colour, alpha, near
    return None


def _stands(solid: BoolArray, ground: BoolArray) -> bool:
    """Whether nine tenths of its lowest pixels (the bottom tenth of its rows) are on ground."""
    rows = np.flatnonzero(solid.any(1))
    lowest = rows[-max(1, rows.size // 10) :]
    return float(ground[solid[lowest].any(0)].mean()) >= 0.9


def scaled(rgba: UInt8Array, rows: int, columns: int) -> tuple[FloatArray, FloatArray]:
    """
    Resize an object premultiplied, so that what surrounded it never bleeds in.

    Return its colour, float32 (rows, columns, 3), 0 to 255, and alpha, (rows, columns), 0 to 1.
    """
    alpha = rgba[..., 3:].astype(np.float32) / 255
    layers = np.concatenate([rgba[..., :3] * alpha, alpha], axis=2)
    shrinking = rows < rgba.shape[0] or columns < rgba.shape[1]
    smoother = cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
    small = cv2.resize(layers, (columns, rows), interpolation=smoother)
    return small[..., :3] / np.maximum(small[..., 3:], 1e-3), small[..., 3]


def cropped(rgba: UInt8Array) -> UInt8Array:
    """Return an object cut to what its alpha shows."""
    left, top, width, height = cv2.boundingRect(np.ascontiguousarray(rgba[..., 3]))
    return rgba[top : top + height, left : left + width]


def blend(window: FloatArray, colour: FloatArray, alpha: FloatArray, feather: float) -> None:
    """
    Lay an object over a window in place, its edge softened within the ignored border.

    window, colour: float32 (h, w, 3); alpha: float32 (h, w), 0 or 1. feather: sigma, pixels.
    """
    soft = cv2.GaussianBlur(alpha, (0, 0), feather)
    spread = cv2.GaussianBlur(colour * alpha[..., None], (0, 0), feather)
    extended = spread / np.maximum(soft, 1e-3)[..., None]
    filled = np.where((alpha >= 0.5)[..., None], colour, extended)
    window += soft[..., None] * (filled - window)
