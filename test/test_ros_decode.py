# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Every listed encoding becomes the right RGB, and every lie is refused with its reason."""

import array
import struct
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from ood_perception.errors import ImageError
from ood_perception.ros.decode import ENCODINGS, decode_compressed, decode_image

COLOR = (200, 60, 90)


def image(pixels, encoding, padding=0):
    """Return something like a sensor_msgs/Image; decode.py needs no ROS."""
    height, width = pixels.shape[:2]
    rows = pixels.reshape(height, -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=255)
    data = array.array('B', rows.tobytes())
    return SimpleNamespace(
        height=height, width=width, step=rows.shape[1], encoding=encoding, data=data
    )


def compressed(data, name='jpeg'):
    return SimpleNamespace(format=name, data=array.array('B', data))


def picture(height=48, width=64):
    """A smooth RGB picture, so that chroma subsampling and demosaicing cost little."""
    y, x = np.mgrid[0:height, 0:width]
    red, green = 40 + 2.5 * x, 60 + 3 * y
    return np.stack([red, green, 250 - 2 * x], axis=-1).astype(np.uint8)


def bayer(rgb, pattern):
    """Sample an RGB picture by the pattern of the first two rows, 'rggb' for instance."""
    channel = {'r': 0, 'g': 1, 'b': 2}
    mosaic = np.empty(rgb.shape[:2], np.uint8)
    for place, color in enumerate(pattern):
        row, column = divmod(place, 2)
        mosaic[row::2, column::2] = rgb[row::2, column::2, channel[color]]
    return mosaic


def yuv422(rgb, order):
    """Pack BT.601 luma and chroma pairs as 'uyvy' or 'yuyv' bytes."""
    r, g, b = (rgb[..., i].astype(float) for i in range(3))
    luma = 16 + 0.257 * r + 0.504 * g + 0.098 * b
    u = 128 - 0.148 * r - 0.291 * g + 0.439 * b
    v = 128 + 0.439 * r - 0.368 * g - 0.071 * b
    planes = {'y': luma, 'u': u, 'v': v}
    packed = np.empty((*rgb.shape[:2], 2))
    for place, plane in enumerate(order):
        column, byte = divmod(place, 2)
        source = planes[plane]
        packed[:, column::2, byte] = source[:, column::2] if plane == 'y' else source[:, ::2]
    return np.rint(packed).astype(np.uint8)


ENCODED = {
    'rgb8': lambda p: p,
    'bgr8': lambda p: p[..., ::-1],
    'rgba8': lambda p: np.dstack([p, np.full(p.shape[:2], 7, np.uint8)]),
    'bgra8': lambda p: np.dstack([p[..., ::-1], np.full(p.shape[:2], 7, np.uint8)]),
}
INEXACT = {
    **{f'bayer_{p}8': lambda q, p=p: bayer(q, p) for p in ('rggb', 'bggr', 'gbrg', 'grbg')},
    'yuv422': lambda p: yuv422(p, 'uyvy'),
    'uyvy': lambda p: yuv422(p, 'uyvy'),
    'yuv422_yuy2': lambda p: yuv422(p, 'yuyv'),
    'yuyv': lambda p: yuv422(p, 'yuyv'),
}


@pytest.mark.parametrize('padding', [0, 5])
@pytest.mark.parametrize('encoding', ENCODED)
def test_colour_encodings_are_exact(encoding, padding):
    expected = picture()
    decoded = decode_image(image(ENCODED[encoding](expected), encoding, padding))
    np.testing.assert_array_equal(decoded, expected)
    assert decoded.flags.c_contiguous
    assert decoded.dtype == np.uint8


@pytest.mark.parametrize('encoding', INEXACT)
def test_mosaics_and_luma_chroma_come_close(encoding):
    expected = picture()
    decoded = decode_image(image(INEXACT[encoding](expected), encoding))
    inner = (slice(2, -2), slice(2, -2))  # the mosaic has no neighbours at the border
    difference = np.abs(decoded[inner].astype(int) - expected[inner].astype(int))
    assert difference.max() <= 6


@pytest.mark.parametrize('encoding', ['mono8', '8UC1'])
def test_grey_becomes_three_equal_channels(encoding):
    grey = picture()[..., 0]
    decoded = decode_image(image(grey, encoding, padding=3))
    np.testing.assert_array_equal(decoded, np.stack([grey] * 3, axis=-1))


def test_every_encoding_of_the_table_is_tested():
    assert set(ENCODINGS) == {*ENCODED, *INEXACT, 'mono8', '8UC1'}


def test_rgb8_without_padding_is_not_copied():
    message = image(picture(), 'rgb8')
    assert np.shares_memory(decode_image(message), np.frombuffer(message.data, np.uint8))


def lying(**fields):
    message = image(picture(4, 6), fields.pop('encoding', 'rgb8'))
    for name, value in fields.items():
        setattr(message, name, value)
    return message


@pytest.mark.parametrize(
    ('message', 'words'),
    [
        (lying(step=17), ['step 17', '18 bytes']),
        (lying(height=5), ['72 bytes', 'height x step = 90']),
        (lying(data=array.array('B', b'')), ['0 bytes', '72']),
        (lying(width=0), ['0x4', 'empty']),
        (lying(height=0), ['6x0', 'empty']),
        (lying(width=20000, height=10001), ['20000x10001', '200 megapixels']),
        (lying(encoding='32FC1'), ['32FC1', 'rgb8', 'cv_bridge']),
        (lying(encoding=''), ["''", 'rgb8']),
        (image(np.zeros((4, 5, 2), np.uint8), 'uyvy'), ['odd width']),
    ],
)
def test_lies_are_refused_with_value_and_remedy(message, words, monkeypatch):
    monkeypatch.setitem(sys.modules, 'cv_bridge', None)
    with pytest.raises(ImageError) as caught:
        decode_image(message)
    for word in words:
        assert word in str(caught.value)


def test_cv_bridge_is_asked_only_for_what_the_table_lacks(monkeypatch):
    class Bridge:
        def imgmsg_to_cv2(self, message, encoding):
            assert encoding == 'rgb8'
            if message.encoding == 'nonsense':
                raise RuntimeError('no conversion')
            return np.full((message.height, message.width, 3), 9, np.uint8)

    monkeypatch.setitem(sys.modules, 'cv_bridge', SimpleNamespace(CvBridge=Bridge))
    assert decode_image(lying(encoding='16UC1')).mean() == 9
    np.testing.assert_array_equal(decode_image(lying()), picture(4, 6))
    with pytest.raises(ImageError, match='no conversion'):
        decode_image(lying(encoding='nonsense'))


def encoded(extension, pixels, *options):
    return cv2.imencode(extension, pixels[..., ::-1], list(options))[1].tobytes()


def test_png_is_exact_and_jpeg_is_close():
    expected = picture()
    np.testing.assert_array_equal(
        decode_compressed(compressed(encoded('.png', expected))), expected
    )
    jpeg = decode_compressed(compressed(encoded('.jpg', expected, cv2.IMWRITE_JPEG_QUALITY, 95)))
    assert np.abs(jpeg.astype(int) - expected).mean() < 4


def test_padding_behind_a_jpeg_is_accepted():
    jpeg = encoded('.jpg', picture())
    assert decode_compressed(compressed(jpeg + bytes(512))).shape == (48, 64, 3)


def with_orientation(jpeg):
    """Put an EXIF block that asks for a quarter turn behind the JPEG's start."""
    tiff = b'MM\x00*' + struct.pack('>IHHHIHHI', 8, 1, 0x0112, 3, 1, 6, 0, 0)
    body = b'Exif\x00\x00' + tiff
    return jpeg[:2] + b'\xff\xe1' + struct.pack('>H', len(body) + 2) + body + jpeg[2:]


def test_exif_rotation_does_not_turn_the_picture():
    jpeg = with_orientation(encoded('.jpg', picture()))
    turned = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert turned.shape == (64, 48, 3), 'the test file does not ask for a turn'
    assert decode_compressed(compressed(jpeg)).shape == (48, 64, 3)


def huge_png():
    header = b'\x89PNG\r\n\x1a\n' + struct.pack('>I', 13) + b'IHDR'
    return header + struct.pack('>IIBBBBB', 20000, 10001, 8, 2, 0, 0, 0)


def huge_jpeg():
    jpeg = bytearray(encoded('.jpg', picture()))
    place = jpeg.index(b'\xff\xc0')
    jpeg[place + 5 : place + 9] = struct.pack('>HH', 20000, 20000)
    return bytes(jpeg)


@pytest.mark.parametrize(
    ('data', 'words'),
    [
        (b'', ['0 bytes', 'neither JPEG nor PNG']),
        (b'not a picture at all', ['neither JPEG nor PNG', '6e 6f']),
        (encoded('.jpg', picture())[:-200], ['truncated', 'network']),
        (encoded('.png', picture())[:-200], ['damaged']),
        (b'\xff\xd8' + bytes(100) + b'\xff\xd9', ['frame header']),
        (b'\xff\xd8\xff\xff\xff\xd9', ['frame header']),
        (huge_png(), ['20000x10001', 'megapixels']),
        (huge_jpeg(), ['20000x20000', 'megapixels']),
    ],
)
def test_damaged_files_are_refused(data, words):
    with pytest.raises(ImageError) as caught:
        decode_compressed(compressed(data))
    for word in words:
        assert word in str(caught.value)
