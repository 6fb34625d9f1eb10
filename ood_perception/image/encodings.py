# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
What encodings and formats of image messages mean: how they become RGB, and which are no image.

Names are those of sensor_msgs/image_encodings and of image_transport's format strings.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import cv2


@dataclass(frozen=True)
class Encoding:
    """
    How one packed encoding becomes RGB.

    channels: values per pixel. conversion: OpenCV colour conversion code, None for RGB itself.
    even_width: whether pixels come in pairs along a row. wide: values of 16 bits.
    """

    channels: int
    conversion: int | None
    even_width: bool = False
    wide: bool = False


# OpenCV names a Bayer pattern by the second row's second and third pixel, ROS by the first row.
_EIGHT_BITS = {
    'rgb8': Encoding(3, None),
    'bgr8': Encoding(3, cv2.COLOR_BGR2RGB),
    'rgba8': Encoding(4, cv2.COLOR_RGBA2RGB),
    'bgra8': Encoding(4, cv2.COLOR_BGRA2RGB),
    'mono8': Encoding(1, cv2.COLOR_GRAY2RGB),
    'bayer_rggb8': Encoding(1, cv2.COLOR_BayerBG2RGB),
    'bayer_bggr8': Encoding(1, cv2.COLOR_BayerRG2RGB),
    'bayer_gbrg8': Encoding(1, cv2.COLOR_BayerGR2RGB),
    'bayer_grbg8': Encoding(1, cv2.COLOR_BayerGB2RGB),
}
_SIXTEEN_BITS = {
    name.removesuffix('8') + '16': replace(encoding, wide=True)
    for name, encoding in _EIGHT_BITS.items()
}
ENCODINGS: dict[str, Encoding] = {
    **_EIGHT_BITS,
    **_SIXTEEN_BITS,
    # OpenCV's own names say no colours; its images are BGR, and so rviz and Foxglove show them.
    '8UC1': _EIGHT_BITS['mono8'],
    '8UC3': _EIGHT_BITS['bgr8'],
    '8UC4': _EIGHT_BITS['bgra8'],
    '16UC3': _SIXTEEN_BITS['bgr16'],
    '16UC4': _SIXTEEN_BITS['bgra16'],
    'yuv422': Encoding(2, cv2.COLOR_YUV2RGB_UYVY, even_width=True),
    'uyvy': Encoding(2, cv2.COLOR_YUV2RGB_UYVY, even_width=True),
    'yuv422_yuy2': Encoding(2, cv2.COLOR_YUV2RGB_YUY2, even_width=True),
    'yuyv': Encoding(2, cv2.COLOR_YUV2RGB_YUY2, even_width=True),
}
# A plane of luma with a plane of interleaved chroma behind it: OpenCV's conversion for chroma of
# half width and height; None: chroma of the image's size.
SEMIPLANAR: dict[str, int | None] = {
    'nv12': cv2.COLOR_YUV2RGB_NV12,
    'nv21': cv2.COLOR_YUV2RGB_NV21,
    'nv24': None,
}
# One number per pixel that is no brightness: metres, millimetres, labels, temperatures.
DEPTH = frozenset({'16UC1', '16SC1', '32SC1', '32FC1', '64FC1'})
# Where a camera's images come from, by image_transport's names: 'raw' is the topic itself.
TRANSPORTS = ('raw', 'compressed', 'ffmpeg', 'foxglove')
# Message types that may hold a camera's images.
RAW = 'sensor_msgs/msg/Image'
COMPRESSED = 'sensor_msgs/msg/CompressedImage'
COMPRESSED_VIDEO = 'foxglove_msgs/msg/CompressedVideo'
FFMPEG_PACKET = 'ffmpeg_image_transport_msgs/msg/FFMPEGPacket'
IMAGE_TYPES = (RAW, COMPRESSED, COMPRESSED_VIDEO, FFMPEG_PACKET)
_VIDEO_CODECS = {'h264': ('h264', '264', 'avc'), 'hevc': ('h265', 'hevc', '265')}


def known_encodings() -> str:
    """Return the encodings that are decoded, in words."""
    return ', '.join([*ENCODINGS, *SEMIPLANAR])


def mosaic_conversion(encoding: str) -> int | None:
    """Return OpenCV's demosaicing for a Bayer encoding of either depth, else None."""
    known = ENCODINGS.get(encoding) if encoding.startswith('bayer_') else None
    return known.conversion if known else None


def split_format(name: str) -> tuple[str, str]:
    """
    Return (encoding, codec) of a CompressedImage's format, '' for what it does not say.

    image_transport writes 'bayer_rggb8; png compressed', drivers write 'jpeg' or nothing.
    """
    encoding, semicolon, rest = name.partition(';')
    if not semicolon:
        encoding, rest = '', name
    words = rest.split()
    return encoding.strip(), words[0].lower() if words else ''


def video_codec(name: str) -> str:
    """Return 'h264' or 'hevc' for a format or an encoder's name ('libx264;yuv420p'), else ''."""
    words = name.lower().split(';')[0]
    for codec, parts in _VIDEO_CODECS.items():
        if any(part in words for part in parts):
            return codec
    return ''


def message_codec(message: Any) -> str:
    """Return the video codec of an image message of any type, '' for an image by itself."""
    if hasattr(message, 'step'):
        return ''
    form = message.encoding if hasattr(message, 'pts') else getattr(message, 'format', '')
    return video_codec(str(form))


def is_wide_grey_png(data: Any, encoding: str) -> bool:
    """
    Return whether data is a PNG of 16 bits in one channel that its format does not call an image.

    encoding: as split_format gives it; 'mono16' and the mosaics of 16 bits are images. Where the
    format names no encoding it is most likely depth: not chosen by itself, read when chosen.
    """
    depth, colour = bytes(data[24:25]), bytes(data[25:26])
    wide_grey = bytes(data[:4]) == b'\x89PNG' and (depth, colour) == (b'\x10', b'\x00')
    known = ENCODINGS.get(encoding)
    return wide_grey and not (known is not None and known.wide)
