# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Encoded images: how large they say they are, and JPEG as cameras send it, damage refused.

The size is looked at before a decoder allocates what it says; one limit for the camera's messages,
image files and label images. Of a JPEG, padding and stray bytes are passed over. libjpeg only
warns about data that is damaged and fills the image up with grey. OpenCV prints those warnings
and Pillow drops most of them; simplejpeg raises them, and takes half of OpenCV's time for the same
pixels (1080p: 5.5 ms against 12.5 ms on one core).
"""

from __future__ import annotations

import io
import re
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from ood_perception.errors import required
from ood_perception.types import UInt8Array

MAX_PIXELS = 200_000_000
PNG_START = b'\x89PNG\r\n\x1a\n'
_FORMATS = ('PNG', 'BMP', 'WEBP', 'TIFF', 'PPM', 'GIF')
_PILLOWS = threading.Lock()
JPEG_START, JPEG_END = b'\xff\xd8', b'\xff\xd9'
_START_OF_SCAN = b'\xff\xda'
# 0xFF and a code, but no stuffed byte (FF 00), fill byte (FF FF) or restart of a scan (D0 to D7).
_MARKER = re.compile(rb'\xff[^\x00\xff\xd0-\xd7]')
_PADDING = b'\x00\xff'
_Read = TypeVar('_Read')


def jpeg_header(data: UInt8Array) -> tuple[int, int, bool]:
    """
    Return (width, height, whether there is one channel alone) of a JPEG.

    data: uint8 (N,). Raises ValueError, with libjpeg's reason, for one without a frame header.
    """
    try:
        height, width, colours, _ = _first_success(_header, data)
    except ValueError as error:
        raise ValueError(f'a JPEG without a usable frame header: {error}') from error
    return width, height, colours == 'Gray'


def read_jpeg(data: UInt8Array, colours: str = 'RGB') -> UInt8Array:
    """
    Return a JPEG's pixels, uint8 (H, W, 3), or (H, W, 1) for colours 'GRAY'; EXIF is ignored.

    What follows the end marker, bytes between segments, and zeros or 0xFF between the last scan
    and the end marker do not matter. Raises ValueError, with libjpeg's reason, for everything that
    libjpeg finds wrong: missing or surplus data, bad codes, lost restart markers, no end marker.
    """
    return _first_success(partial(_decode, colours), data)


def _first_success(read: Callable[[Any], _Read], data: UInt8Array) -> _Read:
    """Read the data as it is, else without stray bytes, else without padding; ValueError."""
    try:
        return read(data)
    except ValueError as error:
        # One after the other: a last byte of a scan may look like padding and be none
        for padding in (False, True):
            try:
                return read(b''.join(_segments(data.tobytes(), padding)))
            except ValueError:
                continue
        raise error


def _header(data: Any) -> tuple[int, int, str, str]:
    height, width, colours, sampling = _simplejpeg().decode_jpeg_header(data, strict=True)
    return height, width, colours, sampling


def _decode(colours: str, data: Any) -> UInt8Array:
    """Decode with every warning an error; ValueError."""
    decode = partial(_simplejpeg().decode_jpeg, data, strict=True)
    if _header(data)[2] not in ('CMYK', 'YCCK'):
        return np.asarray(decode(colorspace=colours), np.uint8)
    inks = np.asarray(decode(colorspace='CMYK'), np.uint16)
    # Stored inverted, as Adobe began it and everybody reads it: 255 is no ink.
    return (inks[..., :3] * inks[..., 3:] // 255).astype(np.uint8)


def _segments(data: bytes, padding: bool) -> Iterator[bytes]:
    """
    Yield a JPEG's segments and scans up to its end marker, without what lies between them.

    padding: leave zeros and 0xFF at the end of the last scan out, too.
    """
    yield JPEG_START
    place = len(JPEG_START)
    while marker := _MARKER.search(data, place):
        if marker[0] == JPEG_END:
            yield JPEG_END
            return
        place = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], 'big')
        yield data[marker.start() : place]
        if marker[0] == _START_OF_SCAN:
            following = _MARKER.search(data, place)
            scan = data[place : following.start() if following else None]
            place += len(scan)
            last = following is not None and following[0] == JPEG_END
            yield _without_padding(scan) if padding and last else scan


def _without_padding(scan: bytes) -> bytes:
    """Return a scan without zeros and 0xFF at its end, but for a byte that may be its own."""
    kept = len(scan.rstrip(_PADDING))
    rest = scan[kept : kept + 2]
    if rest == b'\xff\x00':
        return scan[: kept + 2]
    return scan[: kept + 1] if rest[:1] == b'\x00' else scan[:kept]


def _simplejpeg() -> Any:
    remedy = 'decoding JPEG needs simplejpeg, which tells damaged data: pip install simplejpeg'
    return required('simplejpeg', remedy)


def size_problem(width: int, height: int, most_pixels: int | None = None) -> str:
    """
    Return what is wrong with an image's size in pixels, '' for nothing.

    most_pixels: None is MAX_PIXELS.
    """
    most = MAX_PIXELS if most_pixels is None else most_pixels
    if width <= 0 or height <= 0:
        return 'is empty'
    if width * height > most:
        return f'has {width * height / 1e6:.4g} megapixels, at most {most / 1e6:g} are accepted'
    return ''


def stored_size(data: UInt8Array) -> tuple[int, int]:
    """Return (width, height) of an encoded image, nothing decoded; ValueError without header."""
    start = data[:8].tobytes()
    if start[:2] == JPEG_START:
        return jpeg_header(data)[:2]
    if start == PNG_START:
        return png_size(data)
    try:
        with opened(data.tobytes(), _FORMATS) as image:
            return image.size
    except (OSError, SyntaxError) as error:  # Pillow's own text names an object in memory
        raise ValueError('it has no header of an image') from error


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
def opened(source: bytes | Path, formats: tuple[str, ...] | None = None) -> Iterator[Image.Image]:
    """
    Open an encoded image or a file with Pillow, which reads its header alone.

    Its own limit is off meanwhile (it warns from 89 megapixels on): see size_problem. Raises
    OSError or SyntaxError for what is none of `formats` (default: all that Pillow knows).
    """
    with _PILLOWS:  # the limit is one for the whole process
        kept, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            file = io.BytesIO(source) if isinstance(source, bytes) else source
            image = Image.open(file, formats=formats)
        finally:
            Image.MAX_IMAGE_PIXELS = kept
    with image:
        yield image
