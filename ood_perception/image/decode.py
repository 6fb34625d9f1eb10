# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
One camera's messages to frames, for node and bags, with every way to lie refused.

A message is anything with the fields of sensor_msgs, the node's own or a bag's. Images are
decoded each by itself, packets of a video by a stream that remembers the last ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic

import cv2
import numpy as np

from ood_perception.errors import ImageError
from ood_perception.types import Frame, UInt8Array

from .encoded import JPEG_START, PNG_START, jpeg_header, png_size, read_jpeg, size_problem
from .encodings import (
    DEPTH,
    ENCODINGS,
    SEMIPLANAR,
    Encoding,
    is_wide_grey_png,
    known_encodings,
    message_codec,
    mosaic_conversion,
    split_format,
    video_codec,
)
from .video import Ticket, VideoStream

_PNG_GREY = 0
NANOSECONDS = 1_000_000_000
Otherwise = Callable[[Any], UInt8Array]


class FrameDecoder(Generic[Ticket]):
    """
    Decodes what arrives on one camera's topic.

    camera: the frames' camera. otherwise: for encodings of Image that our tables lack, or None.
    most_pixels: of an image, before it is decoded; None: encoded.MAX_PIXELS.
    """

    def __init__(
        self, camera: str, otherwise: Otherwise | None = None, most_pixels: int | None = None
    ) -> None:
        self._camera, self._otherwise, self._most = camera, otherwise, most_pixels
        self._stream: VideoStream[tuple[Ticket, Any]] | None = None

    def decode(self, message: Any, ticket: Ticket) -> list[tuple[Ticket, Frame]]:
        """
        Return the frames that a message completes: one for an image, any number for a packet.

        message: sensor_msgs/Image or CompressedImage, foxglove_msgs/CompressedVideo or
        ffmpeg_image_transport_msgs/FFMPEGPacket. ticket: comes back with the message's own frame.
        Raises ImageError for what is not what it claims, and as VideoStream.decode does.
        """
        codec = message_codec(message)
        if not codec:
            if hasattr(message, 'step'):
                image = decode_image(message, self._otherwise, self._most)
            else:
                image = decode_compressed(message, self._most)
            return [(ticket, self._frame(message, image))]
        if self._stream is None or self._stream.codec != codec:
            self._stream = VideoStream(codec, self._most)
        data = _bytes_of(message, f'{codec} packet').tobytes()
        return self._framed(self._stream.decode(data, (ticket, message)))

    def finish(self) -> tuple[list[tuple[Ticket, Frame]], int]:
        """Return the frames that a stream held back, and how many packets never gave one."""
        if self._stream is None:
            return [], 0
        stream, self._stream = self._stream, None
        done = self._framed(stream.finish())
        return done, stream.lost

    def _framed(
        self, images: list[tuple[tuple[Ticket, Any], UInt8Array]]
    ) -> list[tuple[Ticket, Frame]]:
        return [(ticket, self._frame(message, image)) for (ticket, message), image in images]

    def _frame(self, message: Any, image: UInt8Array) -> Frame:
        place = message.header if hasattr(message, 'header') else message
        return Frame(image, self._camera, stamp_ns(message), place.frame_id)


def stamp_ns(message: Any) -> int:
    """Return a message's stamp in nanoseconds, of its header or CompressedVideo's own."""
    stamp = message.header.stamp if hasattr(message, 'header') else message.timestamp
    return int(stamp.sec) * NANOSECONDS + int(stamp.nanosec)


def decode_image(
    message: Any, otherwise: Otherwise | None = None, most_pixels: int | None = None
) -> UInt8Array:
    """
    Return a sensor_msgs/Image as uint8 (H, W, 3) RGB, C-contiguous.

    otherwise: decodes the encodings that the tables lack, None where nothing does.
    Values of 16 bits give their upper eight (value / 256). The result of 'rgb8' without row
    padding is a view of the message's own buffer.

    Raises ImageError when size, step, data and encoding do not agree, for depth, for an encoding
    that neither the tables nor `otherwise` know, and above `most_pixels` (encoded.MAX_PIXELS).
    """
    _check_size(message.width, message.height, 'Image', most_pixels)
    name = message.encoding
    if name in DEPTH:
        raise ImageError(
            f'Image encoding {name!r} is depth or another measurement, no image: choose the '
            "camera's colour topic, or publish brightness as mono16"
        )
    if name in SEMIPLANAR:
        return _from_semiplanar(message, SEMIPLANAR[name])
    if name in ENCODINGS:
        return _converted(_rows(message, ENCODINGS[name]), ENCODINGS[name].conversion, message)
    if otherwise is not None:
        return otherwise(message)
    raise ImageError(
        f'Image encoding {name!r} is not known: it has to be one of {known_encodings()}'
    )


def decode_compressed(message: Any, most_pixels: int | None = None) -> UInt8Array:
    """
    Return a sensor_msgs/CompressedImage (JPEG or PNG) as uint8 (H, W, 3) RGB, C-contiguous.

    An image of one channel whose format names a Bayer pattern is demosaiced. EXIF rotation is
    ignored: camera_info and the boxes that we publish mean the stored pixels.

    Raises ImageError for other formats, depth, damaged data, and above `most_pixels`
    (encoded.MAX_PIXELS).
    """
    place = f'CompressedImage {message.format!r}'
    data = _bytes_of(message, place)
    encoding, codec = split_format(message.format)
    depth = encoding in DEPTH or codec == 'compresseddepth'
    if depth or (encoding and is_wide_grey_png(data, encoding)):
        raise ImageError(
            f'{place} is depth or another measurement, no image: its format or its 16 bits in '
            "one channel say so; choose the camera's colour topic, or publish brightness as "
            "'mono16; png compressed'"
        )
    if video_codec(message.format):
        raise ImageError(f'{place} is one packet of a video, which is no image by itself')
    try:
        return _unpacked(data, place, mosaic_conversion(encoding), most_pixels)
    except (cv2.error, ValueError) as error:
        raise ImageError(
            f'{place} of {data.size} bytes cannot be decoded ({first_line(error)}): it is damaged '
            'or truncated, check the camera driver and the network'
        ) from error


def _check_size(width: int, height: int, what: str, most_pixels: int | None) -> None:
    """Raise ImageError for an empty image and for one of more pixels."""
    if problem := size_problem(width, height, most_pixels):
        smaller = 'publish a smaller image, or raise max_megapixels'
        remedy = smaller if width and height else 'check the camera driver'
        raise ImageError(f'{what} of size {width}x{height} {problem}: {remedy}')


def _bytes_of(message: Any, place: str) -> UInt8Array:
    """Return a message's data as uint8 (N,), a view; ImageError where it lies elsewhere."""
    try:
        return np.frombuffer(message.data, dtype=np.uint8)
    except (TypeError, ValueError, BufferError) as error:
        raise ImageError(
            f'{place}: its data is a {type(message.data).__name__}, not bytes in the memory of '
            'this process (a device buffer?): have the publisher send CPU memory'
        ) from error


def _converted(pixels: UInt8Array, conversion: int | None, message: Any) -> UInt8Array:
    """Return the pixels as RGB, contiguous; conversion: OpenCV's, None: they are RGB."""
    if conversion is None:
        return np.ascontiguousarray(pixels)
    try:
        return np.asarray(cv2.cvtColor(pixels, conversion), dtype=np.uint8)
    except cv2.error as error:
        raise ImageError(
            f'Image {message.width}x{message.height} {message.encoding} cannot be converted to '
            f'RGB ({first_line(error)}): check the camera driver'
        ) from error


def _rows(message: Any, encoding: Encoding) -> UInt8Array:
    """Return the pixels as uint8 (H, W) or (H, W, C) without row padding, a view if possible."""
    width, height = message.width, message.height
    if encoding.even_width and width % 2:
        raise ImageError(
            f'Image {width}x{height} {message.encoding} has an odd width, its pixels come in '
            'pairs: check the driver'
        )
    values = width * encoding.channels
    grid = _grid(message, row=values * (2 if encoding.wide else 1), rows=height)
    if encoding.wide:
        # The upper byte is the value / 256: 255 for 65535.
        grid = np.ascontiguousarray(grid[:, 0 if message.is_bigendian else 1 :: 2])
    shape = (height, width) if encoding.channels == 1 else (height, width, encoding.channels)
    # Unpadded rows reshape without a copy; padded ones are copied here, once.
    return grid.reshape(shape)


def _grid(message: Any, row: int, rows: int) -> UInt8Array:
    """Return the data as uint8 (rows, row): `row` bytes of each `step`; ImageError."""
    place, step = f'Image {message.width}x{message.height} {message.encoding}', message.step
    data = _bytes_of(message, place)
    if step < row:
        raise ImageError(
            f'{place} has step {step}, a row takes at least {row} bytes: check the camera driver'
        )
    if data.size != rows * step:
        times = 'height' if rows == message.height else f'{rows} rows'
        raise ImageError(
            f'{place} has {data.size} bytes of data, {times} x step = {rows * step}: '
            'the message is truncated or lies about its size, check the camera driver'
        )
    return data.reshape(rows, step)[:, :row]


def _from_semiplanar(message: Any, conversion: int | None) -> UInt8Array:
    width, height = message.width, message.height
    if conversion is None:
        return _from_full_chroma(message)
    if width % 2 or height % 2:
        raise ImageError(
            f'Image {width}x{height} {message.encoding} has an odd width or height, its chroma '
            'is shared by 2 x 2 pixels: check the camera driver'
        )
    grid = _grid(message, row=width, rows=height + height // 2)
    return _converted(np.ascontiguousarray(grid), conversion, message)


def _from_full_chroma(message: Any) -> UInt8Array:
    """Return an nv24 image: a chroma pair for every pixel, in rows of two steps."""
    width, height = message.width, message.height
    step = max(message.step, width)
    data = _grid(message, row=step, rows=3 * height)
    luma = data[:height, :width, None]
    chroma = data[height:].reshape(height, 2 * step)[:, : 2 * width].reshape(height, width, 2)
    # OpenCV knows no such layout: each pixel becomes a pair of equal ones of YUYV, one is kept.
    pairs = np.empty((height, width, 2, 2), np.uint8)
    pairs[..., 0], pairs[..., 1] = luma, chroma
    doubled = pairs.reshape(height, 2 * width, 2)
    return np.ascontiguousarray(_converted(doubled, cv2.COLOR_YUV2RGB_YUYV, message)[:, ::2])


def _unpacked(
    data: UInt8Array, place: str, mosaic: int | None, most_pixels: int | None
) -> UInt8Array:
    """Return a JPEG's or a PNG's pixels as RGB; ImageError, ValueError or cv2.error."""
    if data[:2].tobytes() == JPEG_START:
        width, height, grey = jpeg_header(data)
        _check_size(width, height, place, most_pixels)
        if not (grey and mosaic):
            return read_jpeg(data)
        pixels = read_jpeg(data, 'GRAY')
        return np.asarray(cv2.cvtColor(pixels, mosaic), np.uint8)
    if data[:8].tobytes() == PNG_START and data.size > 25:
        _check_size(*png_size(data), place, most_pixels)
        return _read_png(data, mosaic if data[25] == _PNG_GREY else None)
    head = data[:8].tobytes().hex(' ') or 'nothing'
    raise ImageError(
        f'{place} of {data.size} bytes is neither JPEG nor PNG (it begins with {head}): publish '
        'jpeg or png, or use transport: raw'
    )


def _read_png(data: UInt8Array, mosaic: int | None) -> UInt8Array:
    """Return a PNG's pixels as RGB, of 16 bits the upper eight; ValueError for a damaged one."""
    flags = cv2.IMREAD_COLOR if mosaic is None else cv2.IMREAD_GRAYSCALE
    pixels = cv2.imdecode(data, flags | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:
        raise ValueError('the decoder found no image in it')
    return np.asarray(cv2.cvtColor(pixels, mosaic or cv2.COLOR_BGR2RGB), np.uint8)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, its class's name without any."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
