# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Which files of a folder are pictures, and their pixels as they are stored.

One rule for pictures and masks: an orientation in EXIF is not applied, as decode.py does not apply
it to the camera's messages. Labels and boxes mean the stored pixels.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from ood_perception.errors import DataError
from ood_perception.image.image_size import opened, size_problem, stored_size
from ood_perception.image.jpeg import START, read_jpeg
from ood_perception.texts import printable
from ood_perception.types import UInt8Array

LOG = logging.getLogger(__name__)
JPEG = ('.jpg', '.jpeg', '.jpe', '.jfif')
NETPBM = ('.ppm', '.pgm', '.pbm', '.pnm')
PICTURES = (*JPEG, '.png', '.bmp', '.webp', '.tif', '.tiff', *NETPBM, '.gif')
# What desktops and network drives leave in folders, beside all names that begin with a dot.
_LITTER = ('__macosx', 'thumbs.db', 'desktop.ini', '@eadir')
MOST_BYTES = 1 << 30
_GIF = (b'GIF87a', b'GIF89a')
_TIFF = (b'II*\0', b'MM\0*')
_ORIENTATION = 274  # the tag of EXIF and TIFF


def visible(folder: Path) -> list[Path]:
    """Return the files and folders in a folder that are neither hidden nor litter, sorted."""
    names = (path for path in folder.iterdir() if not path.name.startswith('.'))
    return sorted(path for path in names if path.name.lower() not in _LITTER)


def sorted_out(folder: Path, suffixes: Sequence[str] = PICTURES) -> tuple[list[Path], list[Path]]:
    """Return the files in a folder by name: those with a suffix in any case, and the others."""
    # A link that leads nowhere is no folder: it is listed, and the error when it is read names it.
    files = [path for path in visible(folder) if not path.is_dir()]
    chosen = [path for path in files if path.suffix.lower() in suffixes]
    return chosen, [path for path in files if path.suffix.lower() not in suffixes]


def list_pictures(folder: Path) -> list[Path]:
    """Return the picture files in a folder by name, [] for none; tell of other files there."""
    pictures, others = sorted_out(folder)
    if pictures and others:
        tell(f'{folder}: {len(others)} files are not read as pictures, such as {others[0].name}')
    return pictures


def picture_tree(folder: Path) -> Iterator[Path]:
    """Yield the pictures in a folder and all folders in it, litter left out, sorted in each."""
    yield from list_pictures(folder)
    for inner in visible(folder):
        if inner.is_dir():
            yield from picture_tree(inner)


@functools.cache
def tell(text: str) -> None:
    """Log a warning once, however often a folder is listed."""
    LOG.warning('%s', printable(text))


def read_picture(path: Path, what: str = 'picture') -> UInt8Array:
    """
    Return a picture file as uint8 (H, W, 3) RGB, its pixels as they are stored.

    what: how errors call the file. Raises DataError where it is missing, cut off or broken, holds
    several pictures, or is a TIFF that has to be turned to be shown.
    """
    return decode_picture(file_content(path, what), f'{what} {path}')


def file_content(path: Path, what: str) -> bytes:
    """Return a regular file's bytes; DataError where it cannot be read, or has above 1 GiB."""
    try:
        if path.exists() and not path.is_file():
            raise DataError(f'{what} {path} is no regular file: give an image file')
        if path.stat().st_size > MOST_BYTES:
            raise DataError(f'{what} {path} has more than {MOST_BYTES >> 20} MiB: save it smaller')
        return path.read_bytes()
    except OSError as error:
        raise DataError(f'{what} {path} is missing or cannot be read: {error.strerror}') from error


def decode_picture(content: bytes, place: str) -> UInt8Array:
    """Return an encoded picture as uint8 (H, W, 3) RGB; place: names it in errors."""
    data = np.frombuffer(content, np.uint8)
    check_stored_size(data, place)
    if content[:6] in _GIF:  # not every OpenCV knows it
        return _decode_gif(content, place)
    if content[:4] in _TIFF:
        refuse_turned(content, place)
    if content[:2] == START:
        # OpenCV fills what a damaged JPEG lacks with grey and says nothing.
        try:
            return read_jpeg(data)
        except ValueError as error:
            raise broken(place, error) from error
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = cv2.imdecode(data, flags)
    if pixels is None:
        raise broken(place)
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)


def check_stored_size(data: UInt8Array, place: str) -> None:
    """Raise DataError for an encoded picture, uint8 (N,), of no size or of too many pixels."""
    try:
        width, height = stored_size(data)
    except ValueError as error:
        raise broken(place, error) from error
    check_pixels(width, height, place)


def check_pixels(width: int, height: int, place: str) -> None:
    """Raise DataError for a picture file of too many pixels, or of none."""
    if problem := size_problem(width, height):
        raise DataError(f'{place} of size {width}x{height} {problem}: save it smaller')


def broken(place: str, reason: object = '') -> DataError:
    """Return the error of a file that cannot be decoded."""
    why = f' ({reason})' if reason else ''
    return DataError(f'{place} is broken: it cannot be decoded{why}; fetch it again')


def refuse_turned(content: bytes, place: str) -> None:
    """Raise DataError for a TIFF with an orientation: every decoder turns it, none gives both."""
    try:
        with opened(content, ('TIFF',)) as image:
            orientation = image.getexif().get(_ORIENTATION, 1)
    except (OSError, SyntaxError, ValueError) as error:
        raise broken(place, error) from error
    if orientation != 1:
        raise DataError(
            f'{place} is a TIFF with orientation {orientation}: pixels are read as they are '
            'stored; save it upright, with orientation 1, and its labels alike'
        )


def _decode_gif(content: bytes, place: str) -> UInt8Array:
    from PIL.Image import DecompressionBombError

    try:
        with opened(content, ('GIF',)) as image:
            frames = getattr(image, 'n_frames', 1)
            pixels = np.asarray(image.convert('RGB'), np.uint8)
    except (OSError, SyntaxError, ValueError, EOFError, DecompressionBombError) as error:
        raise broken(place, error) from error
    if frames > 1:
        raise DataError(f'{place} holds {frames} pictures: save each as a file of its own')
    return pixels
