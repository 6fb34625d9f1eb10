# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""H.264 and H.265: every image with its own stamp, nothing that a lost packet has spoiled."""

import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from videos import encoded, images

from ood_perception.errors import ImageError
from ood_perception.image.decode import FrameDecoder
from ood_perception.image.video import FrameNumbers
from ood_perception.requirements import install_command

CODECS = ('h264', 'hevc')
STAMP = SimpleNamespace(sec=3, nanosec=7)


def stamp(number):
    return SimpleNamespace(sec=number, nanosec=5)


def compressed_image(data, codec, number):
    header = SimpleNamespace(stamp=stamp(number), frame_id='lens')
    return SimpleNamespace(header=header, format=codec, data=np.frombuffer(data, np.uint8))


def compressed_video(data, codec, number):
    name = {'hevc': 'h265'}.get(codec, codec)
    return SimpleNamespace(timestamp=stamp(number), frame_id='lens', format=name, data=data)


def ffmpeg_packet(data, codec, number):
    header = SimpleNamespace(stamp=stamp(number), frame_id='lens')
    name = {'h264': 'libx264;yuv420p;bgr8;bgr8', 'hevc': 'hevc_nvenc'}[codec]
    return SimpleNamespace(
        header=header, width=128, height=96, encoding=name, pts=number, flags=0,
        is_bigendian=False, data=data,
    )  # fmt: skip


MESSAGES = (compressed_image, compressed_video, ffmpeg_packet)


def replay(messages):
    """Return frames by ticket, reasons by ticket, and how many packets gave nothing."""
    decoder, frames, reasons = FrameDecoder('front'), {}, {}
    for number, message in enumerate(messages):
        if message is None:
            continue
        try:
            frames.update(decoder.decode(message, number))
        except ImageError as error:
            reasons[number] = str(error)
    rest, lost = decoder.finish()
    frames.update(rest)
    return frames, reasons, lost


def packets(codec, drop=(), change=None, count=15, **options):
    data = encoded(codec, images(count), **options)
    if change is not None:
        data[change[0]] = change[1](data[change[0]])
    return [
        None if number in drop else compressed_image(packet, codec, number)
        for number, packet in enumerate(data)
    ]


@pytest.mark.parametrize('kind', MESSAGES)
@pytest.mark.parametrize('codec', CODECS)
def test_every_packet_gives_its_image_with_its_stamp(codec, kind):
    drawn = images(12)
    data = encoded(codec, drawn)
    frames, reasons, lost = replay([kind(d, codec, n) for n, d in enumerate(data)])
    assert (reasons, lost) == ({}, 0)
    assert list(frames) == list(range(12))
    for number, frame in frames.items():
        assert np.abs(frame.image.astype(int) - drawn[number]).mean() < 8
        assert (frame.stamp_ns, frame.frame_id) == (number * 10**9 + 5, 'lens')
        assert frame.camera == 'front'
        assert frame.image.flags.c_contiguous


@pytest.mark.parametrize('codec', CODECS)
def test_b_frames_come_late_and_keep_their_stamps(codec):
    drawn = images(12)
    options = {'x265-params': 'log-level=none:repeat-headers=1'} if codec == 'hevc' else {}
    data = encoded(codec, drawn, group=12, late=2, **options)
    shown = [compressed_image(d, codec, n) for n, d in enumerate(data)]
    frames, reasons, lost = replay(shown)
    assert (reasons, lost) == ({}, 0)
    assert sorted(frames) == list(range(12))
    # In the order in which they come they show the drive: each is nearest to its own drawing.
    for place, frame in enumerate(frames.values()):
        errors = [np.abs(frame.image.astype(int) - d).mean() for d in drawn]
        assert int(np.argmin(errors)) == place
    assert list(frames) != sorted(frames), 'the encoder made no B frames'


@pytest.mark.parametrize('codec', CODECS)
def test_a_stream_that_begins_without_a_key_frame_waits_for_one(codec):
    frames, reasons, _ = replay(packets(codec, drop=(0, 1)))
    assert list(frames) == list(range(6, 15))
    assert list(reasons) == [2, 3, 4, 5]
    assert all('waits for a key frame' in text for text in reasons.values())


@pytest.mark.parametrize('codec', CODECS)
@pytest.mark.parametrize('lost', [1, 3, 5])
def test_after_a_lost_packet_nothing_is_shown_until_the_next_key_frame(codec, lost):
    frames, reasons, _ = replay(packets(codec, drop=(lost,)))
    spoiled = list(range(lost + 1, 6))
    assert list(reasons) == spoiled
    assert list(frames) == [*range(lost), *range(6, 15)]


@pytest.mark.parametrize('codec', CODECS)
@pytest.mark.parametrize('drop', [(6,), (5, 6), (4, 5, 6, 7)])
def test_a_lost_key_frame_is_told_until_the_next(codec, drop):
    frames, reasons, _ = replay(packets(codec, drop=drop))
    assert list(reasons) == list(range(drop[-1] + 1, 12))
    assert list(frames) == [*range(drop[0]), 12, 13, 14]


def test_a_cut_packet_spoils_what_follows():
    frames, reasons, _ = replay(packets('h264', change=(2, lambda data: data[: len(data) // 2])))
    assert list(reasons) == [2, 3, 4, 5]
    assert list(frames) == [0, 1, *range(6, 15)]


@pytest.mark.parametrize('codec', CODECS)
@pytest.mark.parametrize('data', [b'', b'\0\0\0\1', b'\0\0\1', b'nonsense', bytes(500)])
def test_what_is_no_packet_is_refused_and_the_stream_goes_on(codec, data):
    messages = packets(codec)
    messages.insert(3, compressed_image(data, codec, 99))
    frames, reasons, _ = replay(messages)
    assert list(reasons) == [3]
    assert 'Annex B' in reasons[3] or 'no image' in reasons[3]
    assert len(frames) == 15


@pytest.mark.parametrize('codec', CODECS)
def test_random_damage_is_never_another_error(codec):
    draw = np.random.default_rng(4)
    messages = packets(codec, count=12)
    for number in range(1, 12):
        data = messages[number].data.copy()
        data[draw.integers(0, data.size, 6)] ^= 0x5A
        messages[number] = compressed_image(data.tobytes(), codec, number)
    frames, reasons, lost = replay(messages)
    assert len(frames) + len(reasons) + lost == 12
    assert reasons or codec == 'hevc', 'H.264 here is coded so that most flips show'


def test_both_codecs_on_one_topic_and_images_between():
    h264, hevc = packets('h264', count=3), packets('hevc', count=3)
    frames, reasons, _ = replay([*h264, *hevc])
    assert (len(frames), reasons) == (6, {})


def test_without_pyav_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, 'av', None)
    message = compressed_image(b'\0\0\0\1\x65', 'h264', 0)
    with pytest.raises(ImageError, match=re.escape(install_command('video'))):
        FrameDecoder('').decode(message, 0)


@pytest.mark.parametrize('profile', ['baseline', 'main', 'high', 'high444'])
def test_frame_numbers_are_read_in_every_profile(profile):
    settings = {'x264-params': 'ref=1'} if profile == 'baseline' else {}
    data = encoded('h264', images(40), group=40, profile=profile, **settings)
    whole, gap = FrameNumbers(), FrameNumbers()
    assert not any(whole.missing(packet) for packet in data)
    # frame_num has at least four bits: 40 images go once around
    missing = [gap.missing(packet) for packet in data[:20] + data[21:]]
    assert missing.index(True) == 20
    assert sum(missing) == 1
