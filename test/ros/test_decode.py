# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Every listed encoding becomes the right RGB, and every lie is refused with its reason."""

import array
import struct
import sys
from functools import partial
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from ood_perception.errors import ImageError
from ood_perception.image import decode
from ood_perception.image.decode import decode_compressed
from ood_perception.image.encodings import ENCODINGS, SEMIPLANAR
from ood_perception.ros.decode import decode_by_cv_bridge

COLOR = (200, 60, 90)
decode_image = partial(decode.decode_image, otherwise=decode_by_cv_bridge)


def image(pixels, encoding, padding=0, big=0):
    """Return something like a sensor_msgs/Image; decode.py needs no ROS."""
    height, width = pixels.shape[:2]
    rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(height, -1)
    return packed(rows, encoding, height, width, padding, big)


def packed(rows, encoding, height, width, padding=0, big=0):
    """Return a message of uint8 (n, bytes) rows, each followed by `padding` bytes."""
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=255)
    data = array.array('B', rows.tobytes())
    return SimpleNamespace(
        height=height, width=width, step=rows.shape[1], encoding=encoding, data=data,
        is_bigendian=big,
    )  # fmt: skip


def compressed(data, name='jpeg'):
    return SimpleNamespace(format=name, data=array.array('B', data))


def photo(height=48, width=64):
    """A smooth RGB image, so that chroma subsampling and demosaicing cost little."""
    y, x = np.mgrid[0:height, 0:width]
    red, green = 40 + 2.5 * x, 60 + 3 * y
    return np.stack([red, green, 250 - 2 * x], axis=-1).astype(np.uint8)


def bayer(rgb, pattern):
    """Sample an RGB image by the pattern of the first two rows, 'rggb' for instance."""
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


def with_alpha(pixels):
    return np.dstack([pixels, np.full(pixels.shape[:2], 7, np.uint8)])


ENCODED = {
    'rgb8': lambda p: p,
    'bgr8': lambda p: p[..., ::-1],
    'rgba8': with_alpha,
    'bgra8': lambda p: with_alpha(p[..., ::-1]),
    '8UC3': lambda p: p[..., ::-1],
    '8UC4': lambda p: with_alpha(p[..., ::-1]),
}
WIDE = {
    'rgb16': ENCODED['rgb8'],
    'bgr16': ENCODED['bgr8'],
    'rgba16': ENCODED['rgba8'],
    'bgra16': ENCODED['bgra8'],
    '16UC3': ENCODED['bgr8'],
    '16UC4': ENCODED['bgra8'],
}
PATTERNS = ('rggb', 'bggr', 'gbrg', 'grbg')
INEXACT = {
    **{f'bayer_{p}8': lambda q, p=p: bayer(q, p) for p in PATTERNS},
    'yuv422': lambda p: yuv422(p, 'uyvy'),
    'uyvy': lambda p: yuv422(p, 'uyvy'),
    'yuv422_yuy2': lambda p: yuv422(p, 'yuyv'),
    'yuyv': lambda p: yuv422(p, 'yuyv'),
}


def widened(pixels, big, low=None):
    """Return 16-bit values with the pixels in the upper byte, in the byte order asked for."""
    low = pixels if low is None else low
    return (pixels.astype(np.uint16) * 256 + low).astype('>u2' if big else '<u2')


@pytest.mark.parametrize('padding', [0, 5])
@pytest.mark.parametrize('encoding', ENCODED)
def test_colour_encodings_are_exact(encoding, padding):
    expected = photo()
    decoded = decode_image(image(ENCODED[encoding](expected), encoding, padding))
    np.testing.assert_array_equal(decoded, expected)
    assert decoded.flags.c_contiguous
    assert decoded.dtype == np.uint8


@pytest.mark.parametrize('big', [0, 1])
@pytest.mark.parametrize('padding', [0, 6])
@pytest.mark.parametrize('encoding', WIDE)
def test_sixteen_bits_are_divided_by_256_in_both_byte_orders(encoding, padding, big):
    expected = photo()
    noise = np.random.default_rng(1).integers(0, 256, (48, 64, 1)).astype(np.uint16)
    values = widened(WIDE[encoding](expected), big, low=noise)
    decoded = decode_image(image(values, encoding, padding, big))
    np.testing.assert_array_equal(decoded, expected)
    assert decoded.flags.c_contiguous
    assert decoded.dtype == np.uint8


@pytest.mark.parametrize('big', [0, 1])
@pytest.mark.parametrize('pattern', PATTERNS)
def test_a_mosaic_of_sixteen_bits_is_that_of_eight(pattern, big):
    mosaic = bayer(photo(), pattern)
    wide = decode_image(image(widened(mosaic, big), f'bayer_{pattern}16', 2, big))
    np.testing.assert_array_equal(wide, decode_image(image(mosaic, f'bayer_{pattern}8')))


@pytest.mark.parametrize('big', [0, 1])
def test_white_and_black_of_sixteen_bits(big):
    values = np.array([[0, 255, 256, 32768, 65535]], '>u2' if big else '<u2')
    decoded = decode_image(image(values, 'mono16', padding=4, big=big))
    np.testing.assert_array_equal(decoded[0, :, 0], [0, 0, 1, 128, 255])
    np.testing.assert_array_equal(decoded[..., 0], decoded[..., 2])


def planes(rgb):
    """Return BT.601 luma and chroma of every pixel, float (H, W) each."""
    r, g, b = (rgb[..., i].astype(float) for i in range(3))
    return (
        16 + 0.257 * r + 0.504 * g + 0.098 * b,
        128 - 0.148 * r - 0.291 * g + 0.439 * b,
        128 + 0.439 * r - 0.368 * g - 0.071 * b,
    )


def semiplanar(rgb, encoding, padding=0):
    """Return a message of luma rows and rows of interleaved chroma, each of `step` bytes."""
    height, width = rgb.shape[:2]
    y, u, v = planes(rgb)
    pair = [v, u] if encoding == 'nv21' else [u, v]
    if encoding == 'nv24':
        chroma = np.pad(np.stack(pair, -1).reshape(height, -1), ((0, 0), (0, 2 * padding)))
        y = np.pad(y, ((0, 0), (0, padding)))
        rows = np.vstack([y, chroma.reshape(2 * height, width + padding)])
        return packed(np.rint(rows).astype(np.uint8), encoding, height, width)
    half = [c.reshape(height // 2, 2, width // 2, 2).mean((1, 3)) for c in pair]
    rows = np.vstack([y, np.stack(half, -1).reshape(height // 2, width)])
    return packed(np.rint(rows).astype(np.uint8), encoding, height, width, padding)


@pytest.mark.parametrize('padding', [0, 8])
@pytest.mark.parametrize('encoding', SEMIPLANAR)
def test_luma_and_chroma_in_planes_come_close(encoding, padding):
    expected = photo()
    decoded = decode_image(semiplanar(expected, encoding, padding))
    difference = np.abs(decoded.astype(int) - expected.astype(int))
    assert difference.max() <= 6
    assert decoded.flags.c_contiguous


def test_chroma_of_every_pixel_is_not_shared():
    expected = np.zeros((4, 6, 3), np.uint8)
    expected[::2, 1::2] = (200, 40, 40)
    expected[1::2, ::2] = (30, 60, 210)
    decoded = decode_image(semiplanar(expected, 'nv24'))
    assert np.abs(decoded.astype(int) - expected.astype(int)).max() <= 3


@pytest.mark.parametrize('encoding', INEXACT)
def test_mosaics_and_luma_chroma_come_close(encoding):
    expected = photo()
    decoded = decode_image(image(INEXACT[encoding](expected), encoding))
    inner = (slice(2, -2), slice(2, -2))  # the mosaic has no neighbours at the border
    difference = np.abs(decoded[inner].astype(int) - expected[inner].astype(int))
    assert difference.max() <= 6


@pytest.mark.parametrize('encoding', ['mono8', '8UC1'])
def test_grey_becomes_three_equal_channels(encoding):
    grey = photo()[..., 0]
    decoded = decode_image(image(grey, encoding, padding=3))
    np.testing.assert_array_equal(decoded, np.stack([grey] * 3, axis=-1))


def test_every_encoding_of_the_table_is_tested():
    mosaics = {f'bayer_{p}16' for p in PATTERNS}
    assert set(ENCODINGS) == {*ENCODED, *WIDE, *INEXACT, *mosaics, 'mono8', '8UC1', 'mono16'}


def test_rgb8_without_padding_is_not_copied():
    message = image(photo(), 'rgb8')
    assert np.shares_memory(decode_image(message), np.frombuffer(message.data, np.uint8))


def lying(**fields):
    message = image(photo(4, 6), fields.pop('encoding', 'rgb8'))
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
        (lying(encoding='8UC2'), ['8UC2', 'rgb8', 'nv12', 'cv_bridge']),
        (lying(encoding='rgb16'), ['step 18', '36 bytes']),
        (lying(encoding='nv12'), ['72 bytes', '6 rows', '108']),
        (image(np.zeros((4, 5), np.uint8), 'nv12'), ['odd width or height', '2 x 2']),
        (image(np.zeros((5, 4), np.uint8), 'nv21'), ['odd width or height', '2 x 2']),
        (image(np.zeros((4, 4), np.uint8), 'nv24'), ['16 bytes', '12 rows', '48']),
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


@pytest.mark.parametrize('bridge', [True, False])
@pytest.mark.parametrize('encoding', ['16UC1', '16SC1', '32SC1', '32FC1', '64FC1'])
def test_depth_is_refused_whoever_could_decode_it(encoding, bridge, monkeypatch):
    module = SimpleNamespace(CvBridge=lambda: pytest.fail('asked')) if bridge else None
    monkeypatch.setitem(sys.modules, 'cv_bridge', module)
    with pytest.raises(ImageError, match=f'{encoding}.*depth.*mono16'):
        decode_image(lying(encoding=encoding))


class DeviceBuffer:
    """What rclpy hands over where a publisher's bytes lie in a device's memory."""

    def __len__(self):
        return 72


@pytest.mark.parametrize('encoding', ['rgb8', 'rgb16', 'mono8', 'nv12', 'nv24', 'uyvy'])
def test_a_device_buffer_is_refused_in_one_sentence(encoding):
    with pytest.raises(ImageError, match=r'DeviceBuffer.*CPU memory$') as caught:
        decode_image(lying(encoding=encoding, data=DeviceBuffer(), step=72))
    assert '\n' not in str(caught.value)


def test_a_device_buffer_in_a_compressed_image_is_refused_too():
    with pytest.raises(ImageError, match=r'DeviceBuffer.*CPU memory$'):
        decode_compressed(SimpleNamespace(format='jpeg', data=DeviceBuffer()))


def test_cv_bridge_is_asked_only_for_what_the_table_lacks(monkeypatch):
    class Bridge:
        def imgmsg_to_cv2(self, message, encoding):
            assert encoding == 'rgb8'
            if message.encoding == 'nonsense':
                raise RuntimeError('no conversion')
            return np.full((message.height, message.width, 3), 9, np.uint8)

    monkeypatch.setitem(sys.modules, 'cv_bridge', SimpleNamespace(CvBridge=Bridge))
    assert decode_image(lying(encoding='8UC2')).mean() == 9
    np.testing.assert_array_equal(decode_image(lying()), photo(4, 6))
    with pytest.raises(ImageError, match='no conversion'):
        decode_image(lying(encoding='nonsense'))


def encoded(extension, pixels, *options):
    return cv2.imencode(extension, pixels[..., ::-1], list(options))[1].tobytes()


def test_png_is_exact_and_jpeg_is_close():
    expected = photo()
    np.testing.assert_array_equal(
        decode_compressed(compressed(encoded('.png', expected))), expected
    )
    jpeg = decode_compressed(compressed(encoded('.jpg', expected, cv2.IMWRITE_JPEG_QUALITY, 95)))
    assert np.abs(jpeg.astype(int) - expected).mean() < 4


def test_padding_behind_a_jpeg_is_accepted():
    jpeg = encoded('.jpg', photo())
    assert decode_compressed(compressed(jpeg + bytes(512))).shape == (48, 64, 3)


def with_orientation(jpeg):
    """Put an EXIF block that asks for a quarter turn behind the JPEG's start."""
    tiff = b'MM\x00*' + struct.pack('>IHHHIHHI', 8, 1, 0x0112, 3, 1, 6, 0, 0)
    body = b'Exif\x00\x00' + tiff
    return jpeg[:2] + b'\xff\xe1' + struct.pack('>H', len(body) + 2) + body + jpeg[2:]


def test_exif_rotation_does_not_turn_the_image():
    jpeg = with_orientation(encoded('.jpg', photo()))
    turned = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert turned.shape == (64, 48, 3), 'the test file does not ask for a turn'
    assert decode_compressed(compressed(jpeg)).shape == (48, 64, 3)


def huge_png():
    header = b'\x89PNG\r\n\x1a\n' + struct.pack('>I', 13) + b'IHDR'
    return header + struct.pack('>IIBBBBB', 20000, 10001, 8, 2, 0, 0, 0)


def huge_jpeg():
    jpeg = bytearray(encoded('.jpg', photo()))
    place = jpeg.index(b'\xff\xc0')
    jpeg[place + 5 : place + 9] = struct.pack('>HH', 20000, 20000)
    return bytes(jpeg)


@pytest.mark.parametrize(
    ('data', 'words'),
    [
        (b'', ['0 bytes', 'neither JPEG nor PNG']),
        (b'not an image at all', ['neither JPEG nor PNG', '6e 6f']),
        (encoded('.jpg', photo())[:-200], ['truncated', 'network']),
        (encoded('.png', photo())[:-200], ['damaged']),
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
