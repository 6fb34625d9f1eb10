# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What a CompressedImage's format says: Bayer mosaics, 16 bits, depth, codecs; and PNGs."""

import struct
import zlib
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from jpegs import jpeg, scene

from ood_perception.errors import ImageError
from ood_perception.image.decode import decode_compressed, decode_image
from ood_perception.image.encodings import split_format, video_codec

PATTERNS = ('rggb', 'bggr', 'gbrg', 'grbg')


def message(data, name):
    return SimpleNamespace(format=name, data=np.frombuffer(data, np.uint8))


def png(pixels):
    """Return grey, RGB or RGBA pixels as PNG, 8 or 16 bits."""
    stored = pixels if pixels.ndim == 2 else np.dstack([pixels[..., 2::-1], pixels[..., 3:]])
    done, data = cv2.imencode('.png', stored)
    assert done
    return data.tobytes()


def written_png(rows, bits, colour, extra=()):
    """Write a PNG of packed rows by hand: bit depth, colour type, chunks before the pixels."""
    chunks = [(b'IHDR', struct.pack('>IIBBBBB', 8, len(rows), bits, colour, 0, 0, 0)), *extra]
    chunks.append((b'IDAT', zlib.compress(b''.join(b'\0' + row for row in rows))))
    parts = [b'\x89PNG\r\n\x1a\n']
    for name, body in [*chunks, (b'IEND', b'')]:
        check = struct.pack('>I', zlib.crc32(name + body))
        parts.append(struct.pack('>I', len(body)) + name + body + check)
    return b''.join(parts)


def mosaic(rgb, pattern):
    values = np.empty(rgb.shape[:2], rgb.dtype)
    for place, colour in enumerate(pattern):
        row, column = divmod(place, 2)
        values[row::2, column::2] = rgb[row::2, column::2, 'rgb'.index(colour)]
    return values


def raw(pixels, encoding):
    height, width = pixels.shape[:2]
    return SimpleNamespace(
        height=height, width=width, step=pixels[0].nbytes, encoding=encoding, is_bigendian=0,
        data=pixels.tobytes(),
    )  # fmt: skip


@pytest.mark.parametrize('pattern', PATTERNS)
def test_a_mosaic_in_a_png_is_demosaiced_as_the_raw_one(pattern):
    values, encoding = mosaic(scene(), pattern), f'bayer_{pattern}8'
    expected = decode_image(raw(values, encoding))
    for name in (f'{encoding}; png compressed ', f'{encoding};png', f'{encoding}; png compressed'):
        np.testing.assert_array_equal(decode_compressed(message(png(values), name)), expected)
    assert not (expected[..., 0] == expected[..., 2]).all()


@pytest.mark.parametrize('pattern', PATTERNS)
def test_a_mosaic_of_16_bits_in_a_png(pattern):
    values = mosaic(scene(), pattern)
    wide = values.astype(np.uint16) * 256 + 77
    decoded = decode_compressed(message(png(wide), f'bayer_{pattern}16; png compressed '))
    np.testing.assert_array_equal(decoded, decode_image(raw(values, f'bayer_{pattern}8')))


def test_a_mosaic_in_a_grey_jpeg_is_demosaiced():
    flat = np.full((48, 64, 3), (180, 90, 40), np.uint8)
    data = jpeg(mosaic(flat, 'rggb'), cv2.IMWRITE_JPEG_QUALITY, 100)
    decoded = decode_compressed(message(data, 'bayer_rggb8; jpeg compressed '))
    assert np.abs(decoded[4:-4, 4:-4].astype(int) - flat[4:-4, 4:-4]).max() <= 6


@pytest.mark.parametrize('encode', [jpeg, png])
def test_a_colour_image_is_not_demosaiced_again(encode):
    pixels = cv2.GaussianBlur(scene(), (0, 0), 3)
    decoded = decode_compressed(message(encode(pixels), 'bayer_rggb8; jpeg compressed bgr8'))
    assert np.abs(decoded.astype(int) - pixels).mean() < 4


@pytest.mark.parametrize(
    'name', ['', 'jpeg', 'jpg', 'JPEG', 'bgr8; jpeg compressed bgr8', 'rgb8;jpeg', 'png']
)
def test_the_bytes_say_what_a_plain_image_is(name):
    data = jpeg(scene())
    np.testing.assert_array_equal(
        decode_compressed(message(data, name)), decode_compressed(message(data, 'jpeg'))
    )


@pytest.mark.parametrize('name', ['rgb8; png compressed ', 'png', '', 'rgb16; png compressed '])
def test_colour_pngs_are_exact_and_16_bits_give_the_upper_eight(name):
    pixels = scene()
    for stored in (pixels, pixels.astype(np.uint16) * 256 + 99):
        np.testing.assert_array_equal(decode_compressed(message(png(stored), name)), pixels)
    alpha = np.dstack([pixels, np.full(pixels.shape[:2], 9, np.uint8)])
    np.testing.assert_array_equal(decode_compressed(message(png(alpha), name)), pixels)


def test_a_palette_becomes_its_colours():
    palette = (b'PLTE', bytes([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9]))
    data = written_png([bytes([0b00011011, 0b00011011])] * 4, 2, 3, [palette])
    decoded = decode_compressed(message(data, 'png'))
    assert decoded[0, :4].tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]]


def test_mono16_in_a_png_is_an_image():
    grey = scene()[..., 1]
    data = png(grey.astype(np.uint16) * 256 + 200)
    decoded = decode_compressed(message(data, 'mono16; png compressed '))
    np.testing.assert_array_equal(decoded, np.dstack([grey] * 3))


DEPTH = png(np.arange(48 * 64, dtype=np.uint16).reshape(48, 64))
DEPTHS = {
    '16UC1; png compressed ': DEPTH,
    '16UC1;png': DEPTH,
    'mono8; png compressed ': DEPTH,
    '16UC1; compressedDepth png': bytes(12) + DEPTH,
    '16UC1; compressedDepth': bytes(12) + DEPTH,
    '16UC1; compressedDepth rvl': bytes(40),
    '32FC1; compressedDepth png': bytes(12) + DEPTH,
    '32FC1; png compressed ': png(scene()),
}


@pytest.mark.parametrize('name', DEPTHS)
def test_depth_is_refused(name):
    with pytest.raises(ImageError, match=r'depth.*no image.*mono16'):
        decode_compressed(message(DEPTHS[name], name))


@pytest.mark.parametrize('name', ['png', ''])
def test_16_grey_bits_without_an_encoding_are_most_likely_depth_and_read_when_chosen(name):
    expected = np.arange(48 * 64).reshape(48, 64) >> 8
    np.testing.assert_array_equal(decode_compressed(message(DEPTH, name))[..., 0], expected)


@pytest.mark.parametrize(('name', 'data'), [('tiff', b'II*\0' + bytes(60)), ('webp', b'RIFF1234')])
def test_other_codecs_are_refused_with_a_remedy(name, data):
    with pytest.raises(ImageError, match=r'neither JPEG nor PNG.*publish jpeg or png'):
        decode_compressed(message(data, name))


@pytest.mark.parametrize('name', ['h264', 'H265', 'hevc'])
def test_a_packet_of_a_video_is_no_image_by_itself(name):
    with pytest.raises(ImageError, match='video'):
        decode_compressed(message(b'\0\0\0\1\x65', name))


def test_every_flipped_byte_of_a_png_is_noticed():
    data, places = png(scene(40, 50)), np.random.default_rng(2)
    for place in places.integers(41, len(data) - 16, 60):
        damaged = bytearray(data)
        damaged[place] ^= 0x11
        with pytest.raises(ImageError, match='damaged or truncated'):
            decode_compressed(message(bytes(damaged), 'png'))


@pytest.mark.parametrize('lost', [20, 100, 2000])
def test_a_truncated_png_is_damaged(lost):
    with pytest.raises(ImageError, match='damaged or truncated'):
        decode_compressed(message(png(scene())[:-lost], 'rgb8; png compressed '))


def test_padding_behind_a_png_does_not_matter():
    data = png(scene()) + bytes(5000)
    np.testing.assert_array_equal(decode_compressed(message(data, 'png')), scene())


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('bayer_rggb8; png compressed ', ('bayer_rggb8', 'png')),
        ('rgb8; jpeg compressed bgr8', ('rgb8', 'jpeg')),
        ('16UC1; compressedDepth rvl', ('16UC1', 'compresseddepth')),
        ('JPEG', ('', 'jpeg')),
        ('', ('', '')),
        (';', ('', '')),
    ],
)
def test_formats_are_split(name, expected):
    assert split_format(name) == expected


@pytest.mark.parametrize(
    ('name', 'codec'),
    [
        ('h264', 'h264'), ('libx264;yuv420p;bgr8;bgr8', 'h264'), ('h264_nvenc', 'h264'),
        ('H.264', 'h264'), ('hevc', 'hevc'), ('h265', 'hevc'), ('hevc_vaapi;nv12', 'hevc'),
        ('libx265', 'hevc'), ('jpeg', ''), ('rgb8; jpeg compressed bgr8', ''), ('vp9', ''),
    ],
)  # fmt: skip
def test_video_codecs_by_format_or_encoder(name, codec):
    assert video_codec(name) == codec
