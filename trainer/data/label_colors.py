# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Label files that hold colours in the place of ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from ood_perception.errors import DataError

from .class_map import Color
from .images import PictureList, read_image


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
        codes = _codes(read_image(path, 'label file'))
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


def _codes(colors: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """Return one number per RGB colour, int64 (...) of (..., 3)."""
    return colors.astype(np.int64) @ np.array([65536, 256, 1])


def _color(code: int) -> list[int]:
    return [code >> 16, code >> 8 & 255, code & 255]
