# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Lists of labelled images, and splits by contiguous blocks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from ood_perception.errors import DataError
from ood_perception.image import image_files as image_files
from ood_perception.image.image_files import IGNORED, IMAGES, read_label
from ood_perception.image.image_files import read_image as read_image
from ood_perception.types import UInt8Array

from .class_map import ClassMap

Kind = TypeVar('Kind', bound='ImageList')
NORMAL, ANOMALY = 0, 1
"""What the labels of a set of anomalies say of a pixel."""


@dataclass(frozen=True)
class ImageList:
    """
    Labelled images in their order.

    names: unique names. images, labels: one file each (labels may be empty: no labels at all).
    sequences: the drive that each image comes from; images of a drive are in time order.
    classes: how the labels are read.
    """

    names: tuple[str, ...]
    images: tuple[Path, ...]
    labels: tuple[Path, ...]
    sequences: tuple[str, ...]
    classes: ClassMap

    def __len__(self) -> int:
        return len(self.names)

    def subset(self, indices: Iterable[int]) -> ImageList:
        """Return the images at `indices`, in that order."""
        chosen = list(indices)
        return replace(
            self,
            names=tuple(self.names[i] for i in chosen),
            images=tuple(self.images[i] for i in chosen),
            labels=tuple(self.labels[i] for i in chosen) if self.labels else (),
            sequences=tuple(self.sequences[i] for i in chosen),
        )

    def remade(self, kind: type[Kind], **changes: Any) -> Kind:
        """Return the same images as another kind of list; changes: fields of that kind."""
        own = {field.name: getattr(self, field.name) for field in fields(ImageList)}
        return kind(**{**own, **changes})

    def read(self, index: int) -> tuple[UInt8Array, UInt8Array]:
        """
        Return an image and its labels.

        Returns uint8 (H, W, 3) RGB and uint8 (H, W) class ids with IGNORED (all of it where the
        list has no labels). Raises DataError naming the file that is missing or wrong.
        """
        image = read_image(self.images[index])
        if not self.labels:
            return image, np.full(image.shape[:2], IGNORED, np.uint8)
        labels = self.known(index)
        if labels.shape != image.shape[:2]:
            raise DataError(
                f'{self.labels[index]} has {labels.shape[1]} x {labels.shape[0]} pixels, its '
                f'image {self.images[index]} has {image.shape[1]} x {image.shape[0]}'
            )
        return image, labels.astype(np.uint8)

    def known(self, index: int) -> npt.NDArray[np.int16]:
        """Return classes int16 (H, W) with IGNORED; DataError for an id or colour without one."""
        if self.classes.label_colors:
            return _of_colors(self.labels[index], self.classes)
        labels = self.file_ids(index)
        known = self.classes.table()[labels]
        if (known < 0).any():
            unknown = sorted(int(v) for v in np.unique(labels[known < 0]))
            raise DataError(
                f'{self.labels[index]} holds label ids {unknown} that the class map does not '
                'know; add them to a class or to "ignored"'
            )
        return known

    def encoding(self) -> bytes:
        """Return what the labels' meaning depends on, beside the files."""
        colors = self.classes.label_colors
        return self.classes.table().tobytes() + (repr(colors).encode() if colors else b'')

    def file_ids(self, index: int) -> UInt8Array:
        """Return the label file's own ids, uint8 (H, W); other encodings override this."""
        return read_label(self.labels[index])


def write_png(path: Path, pixels: UInt8Array) -> None:
    """Write uint8 RGB (H, W, 3) or grey (H, W) and the folders above; DataError where it fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), pixels[..., ::-1] if pixels.ndim == 3 else pixels):
        raise DataError(f'{path} cannot be written: is the disk full?')


def list_images(folder: Path) -> list[Path]:
    """Return the image files in a folder by name; DataError where there are none."""
    if not folder.is_dir():
        raise DataError(f'image folder {folder} does not exist')
    found = image_files.list_images(folder)
    if not found:
        others = image_files.sorted_out(folder)[1]
        there = f'; it holds {len(others)} other files, such as {others[0].name}' if others else ''
        raise DataError(f'image folder {folder} holds no images ({", ".join(IMAGES)}){there}')
    return found


def need_files(paths: Sequence[Path], what: str, remedy: str = '') -> None:
    """Raise DataError naming the first file that does not exist, how many, and the remedy."""
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise DataError(
            f'{len(missing)} of {len(paths)} {what} are missing, the first is {missing[0]}'
            + (f'; {remedy}' if remedy else '')
        )


def image_list(
    images: Sequence[Path],
    labels: Sequence[Path],
    classes: ClassMap,
    remedy: str = '',
    names: Sequence[str] = (),
    sequences: Sequence[str] = (),
) -> ImageList:
    """
    Make a list of images in the order given.

    labels: () where there are none. remedy: what to do about missing ones. names: default the
    files'. sequences: default one of all. Raises DataError naming the first missing label file, or
    a name that repeats.
    """
    need_files(labels, 'label files', remedy)
    names = names or [path.stem for path in images]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        paths = [str(path) for path, name in zip(images, names, strict=True) if name == twice]
        raise DataError(f'several images are called {twice!r}: {" and ".join(paths)}')
    own = tuple(sequences or ['' for _ in names])
    return ImageList(tuple(names), tuple(images), tuple(labels), own, classes)


def content_sha256(images: ImageList) -> str:
    """Return the sha256 over names, sequences, file contents and class map of a list."""
    digest = hashlib.sha256()
    for index, name in enumerate(images.names):
        digest.update(name.encode() + b'\0')
        digest.update(hashlib.sha256(_content(images.images[index])).digest())
        if images.labels:
            digest.update(hashlib.sha256(_content(images.labels[index])).digest())
    digest.update(images.encoding())
    return digest.hexdigest()


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f'{path} cannot be read: {error.strerror}') from error


def _of_colors(path: Path, classes: ClassMap) -> npt.NDArray[np.int16]:
    """Return classes int16 (H, W) of an RGB label file; DataError for a colour without a class."""
    codes = _codes(read_image(path, 'label file'))
    found, places = np.unique(codes, return_inverse=True)
    table = {int(_codes(np.array(color))): known for color, known in classes.label_colors}
    unknown = [_color(code) for code in found.tolist() if code not in table]
    if unknown:
        raise DataError(
            f'{path} holds {len(unknown)} colours without a class, such as {unknown[:3]}; add '
            'them to "colors" of a class or to "ignored_colors", and keep label files lossless'
        )
    known = np.array([table[code] for code in found.tolist()], np.int16)
    return known[places.reshape(codes.shape)]


def _codes(colors: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """Return one number per RGB colour, int64 (...) of (..., 3)."""
    return colors.astype(np.int64) @ np.array([65536, 256, 1])


def _color(code: int) -> list[int]:
    return [code >> 16, code >> 8 & 255, code & 255]
