# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""evaluate_bag on what cameras record: every form of an image gives what rgb8 gives."""

import csv
import json

import cv2
import numpy as np
import pytest

pytest.importorskip('rosbags')

from bag_files import COMPRESSED, RAW, START, Maker, write_bag
from bundles import road_image, write_tiny_bundle
from jpegs import jpeg
from videos import encoded, images

from ood_perception.cli.evaluate_bag import FAILED, FINE, WITH_SKIPPED, evaluate_bag
from ood_perception.demo.sources import bag_frames as demo_images
from ood_perception.image.encodings import COMPRESSED_VIDEO, FFMPEG_PACKET

TOPIC = '/camera/image_raw'


@pytest.fixture(scope='module')
def bundle(tmp_path_factory):
    return write_tiny_bundle(tmp_path_factory.mktemp('bundles') / 'tiny', height=98, width=126)


@pytest.fixture
def run(bundle, tmp_path, capsys):
    """Evaluate one topic's messages; return the status, the rows of frames.csv, the words."""

    def call(name, kind, messages):
        rows = [(TOPIC, kind, START + 10**8 * n, data) for n, data in enumerate(messages)]
        bag = write_bag(tmp_path / name, rows)
        folder = tmp_path / f'{name}_out'
        options = ['--bundle', bundle, '--threads', 1, '--roi-mode', 'none', '--out', folder]
        status = evaluate_bag([str(word) for word in (bag, *options)])
        printed = capsys.readouterr()
        if status == FAILED:
            return status, [], printed.err
        with (folder / 'frames.csv').open() as file:
            return status, list(csv.DictReader(file)), printed.out + printed.err

    return call


DRAWN = [road_image(96, 128, (60, 70, 24, 20), seed=number) for number in range(2)]


def stamps():
    return [START + 10**8 * number for number in range(2)]


def wide(pixels):
    return pixels.astype(np.uint16) * 257


def alpha(pixels):
    return np.dstack([pixels, np.full(pixels.shape[:2], pixels.dtype.type(3))])


RAW_FORMS = {
    'bgr8': lambda p: p[..., ::-1],
    '8UC3': lambda p: p[..., ::-1],
    '8UC4': lambda p: alpha(p[..., ::-1]),
    'rgb16': wide,
    'bgr16': lambda p: wide(p[..., ::-1]),
    'rgba16': lambda p: alpha(wide(p)),
    'bgra16': lambda p: alpha(wide(p[..., ::-1])),
}


@pytest.mark.parametrize('big', [0, 1])
@pytest.mark.parametrize('encoding', RAW_FORMS)
def test_raw_encodings_give_the_figures_of_rgb8(run, encoding, big):
    maker = Maker()
    plain = [maker.raw(p, 'rgb8', s) for p, s in zip(DRAWN, stamps(), strict=True)]
    forms = [RAW_FORMS[encoding](pixels) for pixels in DRAWN]
    if big and forms[0].dtype == np.uint16:
        forms = [form.astype('>u2') for form in forms]
    packed = [
        maker.raw(form, encoding, stamp, is_bigendian=big)
        for form, stamp in zip(forms, stamps(), strict=True)
    ]
    expected, found = run('plain', RAW, plain), run('packed', RAW, packed)
    assert found[:2] == expected[:2]
    assert found[0] == FINE
    assert len(found[1]) == 2


def test_padded_jpegs_give_the_figures_of_plain_ones_and_cut_ones_are_refused(run):
    maker, data = Maker(), [jpeg(pixels) for pixels in DRAWN]

    def messages(change):
        pairs = zip(data, stamps(), strict=True)
        return [maker.compressed(change(d), '.jpg', stamp) for d, stamp in pairs]

    status, expected, _ = run('whole', COMPRESSED, messages(lambda d: d))
    assert (status, len(expected)) == (FINE, 2)
    padded = messages(lambda d: d + bytes(3 * 96 * 128 - len(d)))
    assert run('padded', COMPRESSED, padded)[:2] == (FINE, expected)
    cut = messages(lambda d: d[: len(d) // 2] + b'\xff\xd9')
    status, _, words = run('cut', COMPRESSED, cut)
    assert status == FAILED
    assert 'premature end' in words
    status, rows, _ = run('half', COMPRESSED, [padded[0], cut[1]])
    assert (status, rows) == (WITH_SKIPPED, expected[:1])


def test_a_mosaic_in_a_png_gives_the_figures_of_the_raw_mosaic(run):
    maker, mosaics = Maker(), [np.ascontiguousarray(pixels[..., 1]) for pixels in DRAWN]
    raw = [maker.raw(m, 'bayer_grbg8', s) for m, s in zip(mosaics, stamps(), strict=True)]
    packed = []
    for mosaic, stamp in zip(mosaics, stamps(), strict=True):
        message = maker.store.types[COMPRESSED](
            header=maker.header(stamp, 'front_optical'),
            format='bayer_grbg8; png compressed ',
            data=cv2.imencode('.png', mosaic)[1].reshape(-1),
        )
        packed.append(bytes(maker.store.serialize_cdr(message, COMPRESSED)))
    assert run('png', COMPRESSED, packed)[:2] == run('raw', RAW, raw)[:2]


VIDEO_TYPES = (COMPRESSED, COMPRESSED_VIDEO, FFMPEG_PACKET)


def video(kind, codec, drop=(), count=8, **options):
    data = encoded(codec, images(count), group=4, **options)
    maker = Maker()
    return [
        maker.video(kind, packet, codec, START + 10**8 * number)
        for number, packet in enumerate(data)
        if number not in drop
    ]


@pytest.mark.parametrize('codec', ['h264', 'hevc'])
@pytest.mark.parametrize('kind', VIDEO_TYPES)
def test_every_packet_of_a_video_is_a_frame(run, kind, codec):
    status, rows, _ = run('video', kind, video(kind, codec))
    assert status == FINE
    assert [int(row['stamp_ns']) for row in rows] == [START + 10**8 * n for n in range(8)]
    assert {row['frame_id'] for row in rows} == {'lens'}


@pytest.mark.parametrize('kind', VIDEO_TYPES)
def test_a_lost_packet_of_a_video_is_told_and_counted(run, kind, tmp_path):
    status, rows, words = run('lossy', kind, video(kind, 'h264', drop=(1,)))
    assert status == WITH_SKIPPED
    assert [int(row['stamp_ns']) for row in rows] == [START + 10**8 * n for n in (0, 4, 5, 6, 7)]
    report = json.loads((tmp_path / 'lossy_out' / 'report.json').read_text())
    (camera,) = report['cameras']
    assert (camera['messages'], camera['evaluated'], camera['skipped']) == (7, 5, 2)
    assert report['problems']['counts'] == {'frame does not decode': 2}
    assert 'key frame' in report['problems']['first'][0]['text']
    assert 'skipped' in words


def test_b_frames_at_the_end_of_a_bag_are_not_lost(run):
    packets = encoded('h264', images(8), group=100, late=2)
    maker = Maker()
    messages = [
        maker.video(COMPRESSED, packet, 'h264', START + 10**8 * number)
        for number, packet in enumerate(packets)
    ]
    status, rows, _ = run('late', COMPRESSED, messages)
    assert status == FINE
    assert sorted(int(row['index']) for row in rows) == list(range(8))
    assert all(int(r['stamp_ns']) == START + 10**8 * int(r['index']) for r in rows)


def test_the_demo_takes_images_spread_over_a_video(tmp_path):
    drawn = images(8)
    maker, packets = Maker(), encoded('h264', drawn, group=100)
    rows = [
        (TOPIC, COMPRESSED, START + n, maker.video(COMPRESSED, packet, 'h264', START + n))
        for n, packet in enumerate(packets)
    ]
    shown = list(demo_images(write_bag(tmp_path / 'bag', rows), 4))
    nearest = [int(np.argmin([np.abs(s.astype(int) - d).mean() for d in drawn])) for s in shown]
    assert nearest == [0, 2, 5, 7]
