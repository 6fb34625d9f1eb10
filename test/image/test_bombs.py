# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Images whose headers declare more than there is, or more than anybody should decode."""

import io
import os
import resource
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from videos import encoded as film
from videos import images

from ood_perception.errors import DataError, ImageError, OodPerceptionError
from ood_perception.image import encoded as stored
from ood_perception.image.decode import FrameDecoder, decode_compressed
from ood_perception.image.image_files import decode_image, decode_label, read_image
from ood_perception.image.video import FrameNumbers, VideoStream

START = b'\x89PNG\r\n\x1a\n'


def chunk(kind, data=b'', length=None):
    head = struct.pack('>I', len(data) if length is None else length) + kind
    return head + data + struct.pack('>I', zlib.crc32(kind + data))


def png(width=8, height=8, *chunks, colour=2):
    header = struct.pack('>IIBBBBB', width, height, 8, colour, 0, 0, 0)
    pixels = zlib.compress(bytes((1 + width * (3 if colour == 2 else 1)) * height))
    rest = chunks or (chunk(b'IDAT', pixels), chunk(b'IEND'))
    return START + chunk(b'IHDR', header) + b''.join(rest)


def message(content):
    return decode_compressed(SimpleNamespace(format='png', data=content))


READERS = {
    'message': message,
    'file': lambda content: decode_image(content, 'image p'),
    'label': lambda content: decode_label(content, 'label l'),
}
reader = pytest.mark.parametrize('read', READERS.values(), ids=READERS)


@reader
def test_a_sound_png_is_read(read):
    assert read(png(colour=0)).shape[:2] == (8, 8)


LONG = [0xFFFFFFFF, 0x7FFFFFFF, 1 << 20]
BOMB = """
import resource, sys
from pathlib import Path
from types import SimpleNamespace
from ood_perception.image.decode import decode_compressed
from ood_perception.errors import OodPerceptionError
from ood_perception.image.image_files import decode_label
from ood_perception.image.image_files import decode_image, read_image
from ood_perception.image.video import VideoStream
content = bytes.fromhex(sys.argv[1])
resource.setrlimit(resource.RLIMIT_DATA, (2 << 30, 2 << 30))
for read in (
    lambda: decode_compressed(SimpleNamespace(format='png', data=content)),
    lambda: decode_image(content, 'file'),
    lambda: decode_label(content, 'label'),
):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        read()
    except OodPerceptionError as error:
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        print(grown // 1024, str(error))
"""


@pytest.mark.parametrize('length', LONG)
@pytest.mark.parametrize('kind', [b'IDAT', b'tEXt', b'eXIf'])
def test_a_chunk_length_beyond_the_data_is_not_allocated(kind, length):
    """In a process of its own: the memory of decoders is not Python's to count."""
    content = START + png()[8:33] + struct.pack('>I', length) + kind
    done = subprocess.run(
        [sys.executable, '-c', BOMB, content.hex()], capture_output=True, text=True, timeout=60
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 3, done.stderr
    assert all(int(line.split()[0]) < 128 for line in lines)
    assert all(f'chunk of {length} bytes' in line for line in lines)


@reader
@pytest.mark.parametrize(
    'content',
    [
        START,
        START + b'\0\0\0\x0dIHDR',
        START + chunk(b'tEXt', b'a\0' + b'b' * 11) + png(20000, 20000)[8:],
        START + chunk(b'IHDR', b'\0' * 13, length=5),
        png(0, 8),
        png(8, 0),
    ],
    ids=range(6),
)
def test_a_png_without_a_usable_header_is_one_error(read, content):
    with pytest.raises((ImageError, DataError)):
        read(content)


def encoded(form, width=64, height=48, **options):
    file = io.BytesIO()
    Image.fromarray(np.zeros((height, width), np.uint8)).save(file, form, **options)
    return file.getvalue()


@pytest.mark.parametrize('form', ['PNG', 'JPEG', 'BMP', 'WEBP', 'TIFF', 'PPM', 'GIF'])
def test_every_kind_of_file_keeps_to_one_limit(form, monkeypatch):
    content = encoded(form)
    assert decode_image(content, 'image p').shape == (48, 64, 3)

    monkeypatch.setattr(stored, 'MAX_PIXELS', 64 * 48 - 1)

    with pytest.raises(DataError, match=r'image p of size 64x48 has .* megapixels'):
        decode_image(content, 'image p')


@pytest.mark.parametrize('form', ['PNG', 'BMP', 'TIFF', 'GIF'])
def test_labels_and_messages_keep_to_it_too(form, monkeypatch):
    monkeypatch.setattr(stored, 'MAX_PIXELS', 64 * 48 - 1)
    with pytest.raises(DataError, match=r'label l of size 64x48 has .* megapixels'):
        decode_label(encoded(form), 'label l')
    with pytest.raises(ImageError, match=r'64x48 has .* megapixels'):
        message(encoded('PNG'))


def header_only(form, width, height):
    """Return a file of a few bytes that says it is large."""
    if form == 'BMP':
        return b'BM' + struct.pack('<IHHIIiiHHIIiiII', 54, 0, 0, 54, 40, width, height, 1, 24,
                                   0, 0, 0, 0, 0, 0)  # fmt: skip
    if form == 'GIF':
        screen = struct.pack('<HHBBB', width, height, 0, 0, 0)
        return (
            b'GIF89a'
            + screen
            + struct.pack('<cHHHHBBB', b',', 0, 0, width, height, 0, 2, 0)
            + b';'
        )
    if form == 'PPM':
        return f'P6 {width} {height} 255\n'.encode()
    return png(width, height, chunk(b'IDAT', zlib.compress(b'')), chunk(b'IEND'))


@pytest.mark.parametrize('form', ['PNG', 'BMP', 'GIF', 'PPM'])
def test_a_header_of_more_than_the_limit_is_refused_unseen(form):
    content = header_only(form, 20000, 20000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match='20000x20000 has 400 megapixels'):
        decode_image(content, 'image')
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10


def test_between_the_limits_of_pillow_and_ours_nothing_is_said():
    """Pillow warns from 89 megapixels on, and refuses from 179."""
    content = header_only('PPM', 19000, 10000)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        with pytest.raises(OodPerceptionError, match='broken'):  # it holds no pixels
            decode_image(content, 'image')
    assert Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize('codec', ['h264', 'hevc'])
def test_a_video_keeps_to_the_limit_of_images(codec, monkeypatch):
    packet = film(codec, images(1, 96, 128))[0]
    assert len(VideoStream(codec).decode(packet, 1)) <= 1

    monkeypatch.setattr(stored, 'MAX_PIXELS', 64 * 48)
    with pytest.raises(ImageError):
        VideoStream(codec).decode(packet, 1)


def test_the_limit_of_messages_is_the_decoders():
    pixels = np.zeros((8, 8, 3), np.uint8)
    sent = SimpleNamespace(
        header=SimpleNamespace(stamp=SimpleNamespace(sec=0, nanosec=0), frame_id='')
    )
    raw = {'width': 8, 'height': 8, 'step': 24, 'encoding': 'rgb8', 'is_bigendian': 0}
    for form in ({'format': 'png', 'data': png()}, {**raw, 'data': pixels.tobytes()}):
        frame = SimpleNamespace(**vars(sent), **form)
        assert len(FrameDecoder('', most_pixels=64).decode(frame, 1)) == 1
        with pytest.raises(ImageError, match=r'8x8 has .* raise max_megapixels'):
            FrameDecoder('', most_pixels=63).decode(frame, 1)
    packet = film('h264', images(1, 96, 128))[0]
    with pytest.raises(ImageError):
        VideoStream('h264', most_pixels=64 * 48).decode(packet, 1)


def test_a_header_of_zeros_without_end_is_not_read_bit_by_bit():
    """Exp-Golomb numbers are as long as their zeros: 8 million bits took seconds."""
    numbers = FrameNumbers()
    with pytest.raises(IndexError):
        numbers.missing(b'\0\0\1\x67\x64\0\x1e' + b'\0' * 1_000_000 + b'\x80' * 1_000_000)


def test_what_is_no_regular_file_is_refused_unread(tmp_path):
    """A pipe is never done, a device never ends."""
    os.mkfifo(tmp_path / 'pipe.png')
    for place in (tmp_path / 'pipe.png', Path('/dev/zero')):
        with pytest.raises(DataError, match='is no regular file'):
            read_image(place)


@pytest.mark.parametrize('name', ['a\0b.png', 'x' * 300 + '.png'])
def test_a_name_that_no_file_can_have_is_one_error(name):
    with pytest.raises(DataError, match='is missing or cannot be read'):
        read_image(Path(name))


def test_a_sparse_file_of_terabytes_is_refused_unread(tmp_path):
    with (tmp_path / 'large.png').open('wb') as file:
        file.truncate(1 << 42)
    with pytest.raises(DataError, match='has more than 1024 MiB'):
        read_image(tmp_path / 'large.png')
