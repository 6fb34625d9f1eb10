# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Label files that hold colours in the place of ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import cv2
import numpy as np
import numpy.typing as npt

from ood_perception.errors import DataError

from .data import IGNORED, PictureList, color_of, decoded

UInt8Array = npt.NDArray[np.uint8]
Color = tuple[int, int, int]


@dataclass(frozen=True)
class ColouredPictures(PictureList):
    """
    Pictures whose label files are RGB.

    label_colors: pairs of a colour and its class, 0 .. C-1 or IGNORED; other colours are refused.
    """

    label_colors: tuple[tuple[Color, int], ...] = ()

    def known(self, index: int) -> npt.NDArray[np.int16]:
        """Return classes int16 (H, W) of a label file; DataError for a colour without a class."""
        path = self.labels[index]
        codes = _codes(decoded(path, 'label file', cv2.IMREAD_COLOR)[:, :, ::-1])
        found, places = np.unique(codes, return_inverse=True)
        table = {int(_codes(np.array(color))): known for color, known in self.label_colors}
        unknown = [_color(code) for code in found.tolist() if code not in table]
        if unknown:
            raise DataError(
                f'{path} holds {len(unknown)} colours without a class, such as {unknown[:3]}; add '
                'them to "colors" of a class or to "ignored_colors", and keep label files lossless'
            )
        classes = np.array([table[code] for code in found.tolist()], np.int16)
        return classes[places.reshape(codes.shape)]

    def encoding(self) -> bytes:
        """Return what the labels' meaning depends on."""
        return super().encoding() + repr(self.label_colors).encode()


def coloured(pictures: PictureList, colors: Sequence[tuple[Color, int]]) -> ColouredPictures:
    """Return a list whose label files are read as colours."""
    values = {field.name: getattr(pictures, field.name) for field in fields(PictureList)}
    return ColouredPictures(**values, label_colors=tuple(colors))


def label_colors_of(content: object, place: str) -> tuple[tuple[Color, int], ...]:
    """
    Read the colours of a class map: `colors` of each class and `ignored_colors`, lists of RGB.

    content: what YAML gave, checked by class_map_of. place: named in errors. Returns () where no
    class has any: the label files hold ids. Raises DataError for colours that are not three
    numbers, belong to two classes or are lacking for a class.
    """
    if not isinstance(content, dict):
        return ()
    lists = [(entry.get('colors', []), c) for c, entry in enumerate(content['classes'])]
    if not any(colors for colors, _ in lists):
        return ()
    lacking = [str(content['classes'][c]['name']) for colors, c in lists if not colors]
    if lacking:
        raise DataError(f'{place}: classes {lacking} have no "colors" while others have some')
    pairs: dict[Color, int] = {}
    for colors, known in [*lists, (content.get('ignored_colors', []), IGNORED)]:
        for value in colors:
            color = color_of(value, place)
            if pairs.setdefault(color, known) != known:
                raise DataError(f'{place}: label colour {list(color)} belongs to two classes')
    return tuple(pairs.items())


def _codes(colors: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """Return one number per RGB colour, int64 (...) of (..., 3)."""
    return colors.astype(np.int64) @ np.array([65536, 256, 1])


def _color(code: int) -> list[int]:
    return [code >> 16, code >> 8 & 255, code & 255]
