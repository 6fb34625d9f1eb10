# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Image and CompressedImage messages to RGB arrays, with every way to lie refused.

A message is anything with the fields of sensor_msgs: the node's own, or a bag's.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from ood_perception.errors import ImageError
from ood_perception.types import UInt8Array

MAX_PIXELS = 200_000_000
_JPEG_START = b'\xff\xd8'
_JPEG_END = b'\xff\xd9'
_PNG_START = b'\x89PNG\r\n\x1a\n'
# Drivers pad JPEG buffers to a block size, so the end marker is looked for near the end.
_JPEG_PADDING = 4096
# Start-of-frame markers carry the size; C4, C8 and CC in the same range mean something else.
_JPEG_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


@dataclass(frozen=True)
class Encoding:
    """
    How one encoding becomes RGB.

    channels: bytes per pixel.
    conversion: OpenCV colour conversion code, None for RGB itself.
    even_width: whether pixels come in pairs along a row.
    """

    channels: int
    conversion: int | None
    even_width: bool = False


# OpenCV names a Bayer pattern by the second row's second and third pixel, ROS by the first row.
ENCODINGS: dict[str, Encoding] = {
    'rgb8': Encoding(3, None),
    'bgr8': Encoding(3, cv2.COLOR_BGR2RGB),
    'rgba8': Encoding(4, cv2.COLOR_RGBA2RGB),
    'bgra8': Encoding(4, cv2.COLOR_BGRA2RGB),
    'mono8': Encoding(1, cv2.COLOR_GRAY2RGB),
    '8UC1': Encoding(1, cv2.COLOR_GRAY2RGB),
    'bayer_rggb8': Encoding(1, cv2.COLOR_BayerBG2RGB),
    'bayer_bggr8': Encoding(1, cv2.COLOR_BayerRG2RGB),
    'bayer_gbrg8': Encoding(1, cv2.COLOR_BayerGR2RGB),
    'bayer_grbg8': Encoding(1, cv2.COLOR_BayerGB2RGB),
    'yuv422': Encoding(2, cv2.COLOR_YUV2RGB_UYVY, even_width=True),
    'uyvy': Encoding(2, cv2.COLOR_YUV2RGB_UYVY, even_width=True),
    'yuv422_yuy2': Encoding(2, cv2.COLOR_YUV2RGB_YUY2, even_width=True),
    'yuyv': Encoding(2, cv2.COLOR_YUV2RGB_YUY2, even_width=True),
}


def decode_image(message: Any, otherwise: Callable[[Any], UInt8Array] | None = None) -> UInt8Array:
    """
    Return a sensor_msgs/Image as uint8 (H, W, 3) RGB, C-contiguous.

    otherwise: decodes the encodings that the table lacks, None where nothing does.
    The result of 'rgb8' without row padding is a view of the message's own buffer.

    Raises ImageError when size, step, data and encoding do not agree, for an encoding that
    neither the table nor `otherwise` knows, and above 200 megapixels.
    """
    check_size(message.width, message.height, 'Image')
    encoding = ENCODINGS.get(message.encoding)
    if encoding is None and otherwise is not None:
        return otherwise(message)
    if encoding is None:
        raise ImageError(
            f'Image encoding {message.encoding!r} is not known: it has to be one of '
            f'{", ".join(ENCODINGS)}'
        )
    pixels = _rows(message, encoding)
    if encoding.conversion is None:
        return np.ascontiguousarray(pixels)
    try:
        return np.asarray(cv2.cvtColor(pixels, encoding.conversion), dtype=np.uint8)
    except cv2.error as error:
        raise ImageError(
            f'Image {message.width}x{message.height} {message.encoding} cannot be converted to '
            f'RGB ({first_line(error)}): check the camera driver'
        ) from error


def decode_compressed(message: Any) -> UInt8Array:
    """
    Return a sensor_msgs/CompressedImage (JPEG or PNG) as uint8 (H, W, 3) RGB, C-contiguous.

    EXIF rotation is ignored: camera_info and the boxes that we publish mean the stored pixels.

    Raises ImageError for other formats, truncated or undecodable data, and above 200 megapixels.
    """
    data = np.frombuffer(message.data, dtype=np.uint8)
    width, height = _compressed_size(data, message.format)
    check_size(width, height, f'CompressedImage {message.format!r}')
    try:
        picture = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise _undecodable(message, first_line(error)) from error
    if picture is None:
        raise _undecodable(message, 'the decoder found no picture in it')
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def check_size(width: int, height: int, what: str) -> None:
    """Raise ImageError for an empty picture and for one of more than 200 megapixels."""
    if width <= 0 or height <= 0:
        raise ImageError(f'{what} of size {width}x{height} is empty: check the camera driver')
    if width * height > MAX_PIXELS:
        raise ImageError(
            f'{what} of size {width}x{height} has {width * height / 1e6:.0f} megapixels, at most '
            f'{MAX_PIXELS / 1e6:.0f} are accepted: publish a smaller picture'
        )


def _rows(message: Any, encoding: Encoding) -> UInt8Array:
    """Return the pixels as uint8 (H, W) or (H, W, C) without row padding, a view if possible."""
    width, height, step = message.width, message.height, message.step
    place = f'Image {width}x{height} {message.encoding}'
    row = width * encoding.channels
    if encoding.even_width and width % 2:
        raise ImageError(f'{place} has an odd width, its pixels come in pairs: check the driver')
    if step < row:
        raise ImageError(
            f'{place} has step {step}, a row takes at least {row} bytes: check the camera driver'
        )
    if len(message.data) != height * step:
        raise ImageError(
            f'{place} has {len(message.data)} bytes of data, height x step = {height * step}: '
            'the message is truncated or lies about its size, check the camera driver'
        )
    grid = np.frombuffer(message.data, dtype=np.uint8).reshape(height, step)[:, :row]
    shape = (height, width) if encoding.channels == 1 else (height, width, encoding.channels)
    # Unpadded rows reshape without a copy; padded ones are copied here, once.
    return grid.reshape(shape)


def _compressed_size(data: UInt8Array, name: str) -> tuple[int, int]:
    """Return (width, height) as the file header says, before anything is allocated for it."""
    head = data[:8].tobytes()
    if head.startswith(_JPEG_START):
        if _JPEG_END not in data[-_JPEG_PADDING:].tobytes():
            raise ImageError(
                f'CompressedImage {name!r} of {data.size} bytes is a JPEG without its end: it '
                'was truncated, check the camera driver and the network'
            )
        return _jpeg_size(data, name)
    if head == _PNG_START and data.size >= 24:
        width, height = struct.unpack('>II', data[16:24].tobytes())
        return width, height
    raise ImageError(
        f'CompressedImage {name!r} of {data.size} bytes is neither JPEG nor PNG (it begins with '
        f'{head.hex(" ") or "nothing"}): publish jpeg or png, or use transport: raw'
    )


def _jpeg_size(data: UInt8Array, name: str) -> tuple[int, int]:
    """Walk the JPEG's segments to the frame header."""
    place = 2
    while place + 9 <= data.size:
        if data[place] != 0xFF:
            break
        marker = int(data[place + 1])
        if marker in _JPEG_FRAME_MARKERS:
            height, width = struct.unpack('>HH', data[place + 5 : place + 9].tobytes())
            return width, height
        if marker == 0xFF:  # a fill byte
            place += 1
            continue
        place += 2 + int.from_bytes(data[place + 2 : place + 4].tobytes(), 'big')
    raise ImageError(
        f'CompressedImage {name!r} of {data.size} bytes is a JPEG without a frame header: the '
        'data is damaged, check the camera driver'
    )


def _undecodable(message: Any, reason: str) -> ImageError:
    return ImageError(
        f'CompressedImage {message.format!r} of {len(message.data)} bytes cannot be decoded '
        f'({reason}): the data is damaged, check the camera driver and the network'
    )


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, its class's name without any."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
