"""Video streams for tests, encoded by PyAV; a test that needs a missing encoder skips."""

from fractions import Fraction

import pytest
from jpegs import scene

ENCODERS = {
    'h264': ('libx264', {'preset': 'ultrafast', 'tune': 'zerolatency'}),
    'hevc': (
        'libx265',
        {
            'preset': 'ultrafast',
            'tune': 'zerolatency',
            'x265-params': 'log-level=none:repeat-headers=1',
        },
    ),
}


def images(count, height=96, width=128):
    """Return images in which a box moves, uint8 (H, W, 3) RGB each."""
    drawn = []
    for number in range(count):
        pixels = scene(height, width) // 2 + 40
        pixels[20:50, 8 + 3 * number : 38 + 3 * number] = (230, 40, 40)
        drawn.append(pixels)
    return drawn


def encoded(codec, frames, group=6, late=0, **options):
    """
    Return one Annex B packet per image, in the order of decoding.

    group: images from one key frame to the next. late: B frames in a row.
    """
    av = pytest.importorskip('av', reason='PyAV is not installed (extra video)')
    name, settings = ENCODERS[codec]
    if name not in av.codecs_available:
        pytest.skip(f'this PyAV has no encoder {name}')
    context = av.CodecContext.create(name, 'w')
    context.height, context.width = frames[0].shape[:2]
    context.pix_fmt, context.time_base, context.framerate = 'yuv420p', Fraction(1, 10), 10
    context.gop_size, context.max_b_frames = group, late
    context.options = {**({} if late else settings), 'crf': '8', **options}
    packets = []
    for number, pixels in enumerate(frames):
        frame = av.VideoFrame.from_ndarray(pixels, 'rgb24').reformat(format='yuv420p')
        frame.pts = number
        packets += context.encode(frame)
    packets += context.encode(None)
    return [bytes(packet) for packet in packets]
