# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""JPEG in a CompressedImage: padding and stray bytes are passed over, damage is refused."""

import array
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from jpegs import jpeg, opencv, restarts, scan_begin, scene, segments, without

from ood_perception.errors import DependencyError, ImageError
from ood_perception.image.decode import decode_compressed

END = b'\xff\xd9'
WHOLE = jpeg(scene())
RESTARTING = jpeg(scene(), cv2.IMWRITE_JPEG_RST_INTERVAL, 4)
PROGRESSIVE = jpeg(scene(), cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
OPTIMISED = jpeg(scene(), cv2.IMWRITE_JPEG_OPTIMIZE, 1)
KINDS = {
    'baseline': WHOLE,
    'restart markers': RESTARTING,
    'progressive': PROGRESSIVE,
    'own tables': OPTIMISED,
    'grey': jpeg(scene()[..., 1]),
    '4:4:4': jpeg(scene(), cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
    '4:2:2': jpeg(scene(), cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422),
    'odd size': jpeg(scene(121, 163)),
}


def decoded(data, name='jpeg'):
    return decode_compressed(SimpleNamespace(format=name, data=array.array('B', data)))


def refused(data, name='jpeg'):
    with pytest.raises(ImageError, match=r'damaged or truncated.*network') as caught:
        decoded(data, name)
    return str(caught.value)


@pytest.mark.parametrize('kind', KINDS)
def test_whole_ones_give_the_pixels_that_opencv_gives(kind):
    np.testing.assert_array_equal(decoded(KINDS[kind]), opencv(KINDS[kind]))


PADDINGS = {
    'zeros to the raw size': bytes(3 * 120 * 160 - len(WHOLE)),
    'one zero': b'\0',
    'fill bytes': b'\xff' * 5000,
    'garbage': np.random.default_rng(3).integers(0, 256, 9000, np.uint8).tobytes(),
    'the same image again': WHOLE,
    'a damaged one': WHOLE[: len(WHOLE) // 2],
    'end markers': 40 * END,
}


@pytest.mark.parametrize('kind', ['baseline', 'restart markers', 'progressive'])
@pytest.mark.parametrize('padding', PADDINGS)
def test_whatever_follows_the_end_marker_does_not_matter(padding, kind):
    data = KINDS[kind]
    np.testing.assert_array_equal(decoded(data + PADDINGS[padding]), opencv(data))


@pytest.mark.parametrize(
    'stray', [b'\0', b'\x12\x34\x56', bytes(64), b'\xff\xff', b'\xff\x00\x07']
)
def test_stray_bytes_before_every_segment_do_not_matter(stray):
    for _, begin, _ in segments(WHOLE):
        np.testing.assert_array_equal(
            decoded(WHOLE[:begin] + stray + WHOLE[begin:]), opencv(WHOLE), str(begin)
        )


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('stray', [b'\0', bytes(3), bytes(500), b'\xff' * 8, b'\0\xff' * 20])
def test_padding_between_the_scan_and_the_end_marker_does_not_matter(stray, kind):
    data = KINDS[kind]
    np.testing.assert_array_equal(decoded(data[:-2] + stray + END), opencv(data))


def test_stray_bytes_at_several_places_at_once():
    _, quantisation, _ = segments(WHOLE)[1]
    data = WHOLE[:quantisation] + bytes(5) + WHOLE[quantisation:-2] + bytes(9) + END + bytes(77)
    np.testing.assert_array_equal(decoded(data), opencv(WHOLE))


def test_a_webcam_leaves_the_standard_tables_out():
    np.testing.assert_array_equal(decoded(without(WHOLE, 0xC4)), opencv(WHOLE))


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('part', [0.2, 0.5, 0.9])
def test_half_a_scan_with_an_end_marker_is_damaged(kind, part):
    data = KINDS[kind]
    begin = scan_begin(data)
    cut = begin + int(part * (len(data) - begin))
    refused(data[:cut] + END)
    refused(data[:cut] + bytes(2 * len(data)) + END)
    refused(data[:cut] + END + data[cut:])


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('lost', [512, 1024])
@pytest.mark.parametrize('part', [0.3, 0.6])
def test_a_lost_packet_is_damage(kind, part, lost):
    data = KINDS[kind]
    cut = scan_begin(data) + int(part * len(data))
    if cut + lost < len(data):
        refused(data[:cut] + data[cut + lost :])


def test_no_end_marker_is_damage():
    refused(WHOLE[:-2])
    refused(WHOLE[:-2] + bytes(4000))
    refused(WHOLE[:-200])


def test_a_lost_restart_interval_is_damage():
    places = restarts(RESTARTING)
    refused(RESTARTING[: places[3]] + RESTARTING[places[4] :])
    # eight in a row leave the numbers in order, and the data too short
    refused(RESTARTING[: places[1]] + RESTARTING[places[9] :])


def test_a_flipped_byte_is_refused_wherever_libjpeg_notices_and_never_ends_in_another_error():
    begin, places = scan_begin(WHOLE), np.random.default_rng(5)
    outcomes = []
    for place in places.integers(begin, len(WHOLE) - 2, 200):
        data = bytearray(WHOLE)
        data[place] ^= 0x55
        try:
            decoded(bytes(data))
            outcomes.append(True)
        except ImageError:
            outcomes.append(False)
    # Most flips give another valid image: the format has no checksum.
    assert 10 <= outcomes.count(False) <= 190


@pytest.mark.parametrize('marker', [0xDB, 0xC0])
def test_a_missing_table_or_frame_header_is_damage(marker):
    refused(without(WHOLE, marker))


def cmyk(inks):
    """Return a JPEG of four equal components of one flat 8 x 8 block, by Adobe's convention."""
    grey = [jpeg(np.full((8, 8), value, np.uint8)) for value in inks]
    parts = {kind: grey[0][begin:end] for kind, begin, end in segments(grey[0])}
    tables = b''.join(
        grey[0][begin:end] for kind, begin, end in segments(grey[0]) if kind in (0xC4, 0xDB)
    )
    adobe = b'\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00'
    frame = bytes([0xFF, 0xC0, 0, 20, 8, 0, 8, 0, 8, 4])
    frame += b''.join(bytes([number, 0x11, 0]) for number in (1, 2, 3, 4))
    scans = b''.join(
        bytes([0xFF, 0xDA, 0, 8, 1, number, 0, 0, 63, 0]) + data[scan_begin(data) : -2]
        for number, data in zip((1, 2, 3, 4), grey, strict=True)
    )
    assert 0xDA in parts
    return b'\xff\xd8' + adobe + tables + frame + scans + END


def test_four_inks_become_rgb_as_everybody_reads_them():
    data = cmyk((200, 100, 60, 180))
    expected = np.array([200, 100, 60]) * 180 / 255
    assert np.abs(decoded(data).astype(float) - expected).max() <= 2


def test_without_simplejpeg_the_error_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, 'simplejpeg', None)
    with pytest.raises(DependencyError, match='pip install simplejpeg'):
        decoded(WHOLE)
