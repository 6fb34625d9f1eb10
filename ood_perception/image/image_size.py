# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
How large an encoded picture says it is: looked at before a decoder allocates what it says.

One limit for the camera's messages, picture files and label pictures.
"""

from __future__ import annotations

import io
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ood_perception.types import UInt8Array

from .jpeg import START as JPEG_START
from .jpeg import jpeg_header

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 200_000_000
PNG_START = b'\x89PNG\r\n\x1a\n'
_FORMATS = ('PNG', 'BMP', 'WEBP', 'TIFF', 'PPM', 'GIF')
_PILLOWS = threading.Lock()


def size_problem(width: int, height: int) -> str:
    """Return what is wrong with a picture's size in pixels, '' for nothing."""
    if width <= 0 or height <= 0:
        return 'is empty'
    if width * height > MAX_PIXELS:
        return (
            f'has {width * height / 1e6:.0f} megapixels, at most {MAX_PIXELS / 1e6:g} are accepted'
        )
    return ''


def stored_size(data: UInt8Array) -> tuple[int, int]:
    """
    Return (width, height) of an encoded picture, uint8 (N,); nothing is decoded.

    Raises ValueError for what has no header of a picture, and as png_size.
    """
    start = data[:8].tobytes()
    if start[:2] == JPEG_START:
        return jpeg_header(data)[:2]
    if start == PNG_START:
        return png_size(data)
    try:
        with opened(data.tobytes(), _FORMATS) as image:
            return image.size
    except (OSError, SyntaxError) as error:  # Pillow's own text names an object in memory
        raise ValueError('it has no header of a picture') from error


def png_size(data: UInt8Array) -> tuple[int, int]:
    """
    Return (width, height) of a PNG, uint8 (N,).

    Raises ValueError where it does not begin with its header, or a chunk is longer than what is
    left of the data: decoders allocate up to 4 GiB for a chunk before they miss its bytes.
    """
    view, place, kind = data.data, len(PNG_START), b''
    if bytes(view[place : place + 8]) != b'\0\0\0\rIHDR':
        raise ValueError('a PNG that does not begin with its header')
    while place + 8 <= len(view) and kind != b'IEND':  # what follows the end does not matter
        length, kind = struct.unpack_from('>I4s', view, place)
        if place + 8 + length > len(view):
            raise ValueError(f'a chunk of {length} bytes, {len(view) - place - 8} are left')
        place += 12 + length
    if len(view) < 24:
        raise ValueError('a PNG without a size')
    width, height = struct.unpack_from('>II', view, 16)
    return width, height


@contextmanager
def opened(source: bytes | Path, formats: tuple[str, ...] | None = None) -> Iterator[Image]:
    """
    Open an encoded picture or a file with Pillow, which reads its header alone.

    Its own limit is off meanwhile (it warns from 89 megapixels on): see size_problem. Raises
    OSError or SyntaxError for what is none of `formats` (default: all that Pillow knows).
    """
    from PIL import Image

    with _PILLOWS:  # the limit is one for the whole process
        kept, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            file = io.BytesIO(source) if isinstance(source, bytes) else source
            image = Image.open(file, formats=formats)
        finally:
            Image.MAX_IMAGE_PIXELS = kept
    with image:
        yield image
