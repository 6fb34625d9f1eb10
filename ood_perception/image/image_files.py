# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Which files of a folder are images and labels, and their pixels as they are stored.

One rule for images and masks: an orientation in EXIF is not applied, as decode.py does not apply
it to the camera's messages. Labels and boxes mean the stored pixels; labels are ids, grey values
or palette indices in 1, 2, 4, 8 or 16 bits. OpenCV turns palettes into colours and stretches grey
of few bits over 0..255.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from ood_perception.errors import DataError
from ood_perception.image.encoded import (
    JPEG_START,
    PNG_START,
    opened,
    png_size,
    read_jpeg,
    size_problem,
    stored_size,
)
from ood_perception.texts import printable
from ood_perception.types import UInt8Array

LOG = logging.getLogger(__name__)
JPEG = ('.jpg', '.jpeg', '.jpe', '.jfif')
NETPBM = ('.ppm', '.pgm', '.pbm', '.pnm')
IMAGES = (*JPEG, '.png', '.bmp', '.webp', '.tif', '.tiff', *NETPBM, '.gif')
# What desktops and network drives leave in folders, beside all names that begin with a dot.
_LITTER = ('__macosx', 'thumbs.db', 'desktop.ini', '@eadir')
MOST_BYTES = 1 << 30
_GIF = (b'GIF87a', b'GIF89a')
_TIFF = (b'II*\0', b'MM\0*')
LABELS = ('.png', '.bmp', '.tif', '.tiff', '.gif')
IGNORED = 255
_FORMATS = ('PNG', 'BMP', 'TIFF', 'GIF')  # lossless: others change ids
_ONE_CHANNEL = ('1', 'L', 'P', 'I', 'I;16', 'I;16B', 'I;16L')
_PNG_DEPTH = 24  # the byte of the bit depth
_TIFF_DEPTH = 258  # the tag BitsPerSample
_ORIENTATION = 274  # the tag of EXIF and TIFF


def visible(folder: Path) -> list[Path]:
    """Return the files and folders in a folder that are neither hidden nor litter, sorted."""
    names = (path for path in folder.iterdir() if not path.name.startswith('.'))
    return sorted(path for path in names if path.name.lower() not in _LITTER)


def sorted_out(folder: Path, suffixes: Sequence[str] = IMAGES) -> tuple[list[Path], list[Path]]:
    """Return the files in a folder by name: those with a suffix in any case, and the others."""
    # A link that leads nowhere is no folder: it is listed, and the error when it is read names it.
    files = [path for path in visible(folder) if not path.is_dir()]
    chosen = [path for path in files if path.suffix.lower() in suffixes]
    return chosen, [path for path in files if path.suffix.lower() not in suffixes]


def list_images(folder: Path) -> list[Path]:
    """Return the image files in a folder by name, [] for none; tell of other files there."""
    images, others = sorted_out(folder)
    if images and others:
        tell(f'{folder}: {len(others)} files are not read as images, such as {others[0].name}')
    return images


def image_tree(folder: Path) -> Iterator[Path]:
    """Yield the images in a folder and all folders in it, litter left out, sorted in each."""
    yield from list_images(folder)
    for inner in visible(folder):
        if inner.is_dir():
            yield from image_tree(inner)


@functools.cache
def tell(text: str) -> None:
    """Log a warning once, however often a folder is listed."""
    LOG.warning('%s', printable(text))


def read_image(path: Path, what: str = 'image') -> UInt8Array:
    """
    Return an image file as uint8 (H, W, 3) RGB, its pixels as they are stored.

    what: how errors call the file. Raises DataError where it is missing, cut off or broken, holds
    several images, or is a TIFF that has to be turned to be shown.
    """
    return decode_image(file_content(path, what), f'{what} {path}')


def file_content(path: Path, what: str) -> bytes:
    """Return a regular file's bytes; DataError where it cannot be read, or has above 1 GiB."""
    try:
        if path.exists() and not path.is_file():
            raise DataError(f'{what} {path} is no regular file: give an image file')
        if path.stat().st_size > MOST_BYTES:
            raise DataError(f'{what} {path} has more than {MOST_BYTES >> 20} MiB: save it smaller')
        return path.read_bytes()
    except (OSError, ValueError) as error:  # a NUL in its name
        reason = getattr(error, 'strerror', error)
        raise DataError(f'{what} {path} is missing or cannot be read: {reason}') from error


def decode_image(content: bytes, place: str) -> UInt8Array:
    """Return an encoded image as uint8 (H, W, 3) RGB; place: names it in errors."""
    data = np.frombuffer(content, np.uint8)
    check_stored_size(data, place)
    if content[:6] in _GIF:  # not every OpenCV knows it
        return _decode_gif(content, place)
    if content[:4] in _TIFF:
        refuse_turned(content, place)
    if content[:2] == JPEG_START:
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
    """Raise DataError for an encoded image, uint8 (N,), of no size or of too many pixels."""
    try:
        width, height = stored_size(data)
    except ValueError as error:
        raise broken(place, error) from error
    check_pixels(width, height, place)


def check_pixels(width: int, height: int, place: str) -> None:
    """Raise DataError for an image file of too many pixels, or of none."""
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
    try:
        with opened(content, ('GIF',)) as image:
            frames = getattr(image, 'n_frames', 1)
            pixels = np.asarray(image.convert('RGB'), np.uint8)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise broken(place, error) from error
    if frames > 1:
        raise DataError(f'{place} holds {frames} images: save each as a file of its own')
    return pixels


def label_files(folder: Path) -> dict[str, Path]:
    """Return a folder's label images by stem, {} for none; DataError for two files of a stem."""
    if not folder.is_dir():
        return {}
    files, others = sorted_out(folder, LABELS)
    if others:
        tell(
            f'{folder}: {len(others)} files are not read as labels, such as {others[0].name}; '
            f'labels are {", ".join(LABELS)}'
        )
    found: dict[str, Path] = {}
    for path in files:
        if found.setdefault(path.stem, path) != path:
            raise DataError(f'{folder} holds {found[path.stem].name} and {path.name}: keep one')
    return found


def read_label(path: Path, what: str = 'label file') -> UInt8Array:
    """
    Return a label file's ids as uint8 (H, W): grey values, or the indices of a palette.

    what: how errors call the file. Raises DataError where it is missing, broken, lossy, in colour
    or holds an id above 255.
    """
    return decode_label(file_content(path, what), f'{what} {path}')


def decode_label(content: bytes, place: str) -> UInt8Array:
    """Return an encoded label image as uint8 (H, W); place: names it in errors."""
    try:
        if content[:8] == PNG_START:
            png_size(np.frombuffer(content, np.uint8))
        with opened(content, _FORMATS) as image:
            check_pixels(*image.size, place)
            kind, frames = str(image.format), getattr(image, 'n_frames', 1)
            if kind == 'TIFF':
                refuse_turned(content, place)
            depth = _bit_depth(content, image)
            pixels, mode = np.asarray(image), image.mode
    except DataError:
        raise
    except Exception as error:  # Pillow's decoders let struct's, zlib's and many others through
        if content[:2] == JPEG_START:
            raise DataError(f'{place} is a JPEG, which changes ids: save labels as PNG') from error
        raise broken(place, '' if isinstance(error, UnidentifiedImageError) else error) from error
    if frames > 1:
        raise DataError(f'{place} holds {frames} images: a label file holds one')
    if mode not in _ONE_CHANNEL:
        raise DataError(
            f'{place} is {pixels.dtype} with shape {pixels.shape}; expected one channel of class '
            'ids: save it as one grey channel of 8 bits or with a palette'
        )
    return _as_ids(pixels, mode, depth, place)


def _as_ids(pixels: Any, mode: str, depth: int, place: str) -> UInt8Array:
    """Return the stored values of decoded pixels."""
    if mode == 'L' and depth < 8:
        # Pillow stretches grey of 2 and 4 bits over 0..255, by a whole factor
        return np.asarray(pixels // (255 // ((1 << depth) - 1)), np.uint8)
    if pixels.size and not 0 <= int(pixels.min()) <= int(pixels.max()) <= 255:
        raise DataError(
            f'{place} is {pixels.dtype} with values from {pixels.min()} to {pixels.max()}: ids '
            'are 0 to 255; save it as one grey channel of 8 bits'
        )
    return pixels.astype(np.uint8)  # type: ignore[no-any-return]


def _bit_depth(content: bytes, image: Image.Image) -> int:
    """Return the bits that a pixel takes in the file."""
    if image.format == 'PNG':
        return content[_PNG_DEPTH]
    if image.format == 'TIFF':
        return int(getattr(image, 'tag_v2', {}).get(_TIFF_DEPTH, (8,))[0])
    return 8


def need_anomaly(labels: Iterable[UInt8Array], anomaly: Sequence[int], what: str) -> None:
    """
    Raise DataError unless a label holds an anomaly pixel; read none after the first that does.

    labels: uint8 (H, W) ids of the files. anomaly: the ids that mean it. what: names the labels.
    """
    seen, count = np.zeros(256, bool), 0
    for one in labels:
        seen |= np.bincount(one.ravel(), minlength=256) > 0
        count += 1
        if seen[list(anomaly)].any():
            return
    if count:
        raise DataError(_without_anomaly(np.flatnonzero(seen).tolist(), anomaly, count, what))


def _without_anomaly(values: list[int], anomaly: Sequence[int], count: int, what: str) -> str:
    wanted = ' or '.join(str(value) for value in sorted(anomaly)[:3])
    text = (
        f'{what}: none of {count} label images has a pixel of anomaly ({wanted}), they hold '
        f'{", ".join(map(str, values))}; nothing can be measured against them'
    )
    if IGNORED in values:
        text += (
            f'. {IGNORED} means ignored here: where it stands for anomaly, write the masks anew '
            f'with {anomaly[0]} in its place (mask[mask == {IGNORED}] = {anomaly[0]})'
        )
    return text
