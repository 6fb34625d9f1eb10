# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Messages of any content to the node: a frame, or one of the package's own errors."""

import io
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
from fuzzing import changed, fuzzed, hypothesis, own_error_or_none, seldom, st
from PIL import Image
from videos import encoded, images

from ood_perception.errors import ConfigError
from ood_perception.image.decode import FrameDecoder
from ood_perception.image.encodings import DEPTH, ENCODINGS, SEMIPLANAR
from ood_perception.parameters.settings import settings_from
from ood_perception.parameters.table import BY_NAME, check_change, typed
from ood_perception.ranging.camera_model import calibration_of, camera_model

HEADER = SimpleNamespace(stamp=SimpleNamespace(sec=1, nanosec=2), frame_id='lens')
SMALL, WORD = st.integers(0, 40), st.integers(0, 2**32 - 1)
ANY_FLOAT = st.one_of(st.floats(), st.sampled_from([0.0, 1.0, 500.0, 1e308, 5e-324]))
FORMATS = [
    '',
    'jpeg',
    'png',
    'rgb8; jpeg compressed bgr8',
    'bayer_rggb8; png compressed',
    '16UC1; ',
]


def decoded(message):
    for _, frame in FrameDecoder('front').decode(message, None):
        pixels = frame.image
        assert (pixels.dtype, pixels.ndim, pixels.shape[2]) == (np.uint8, 3, 3)
        assert pixels.flags.c_contiguous


@fuzzed
@hypothesis.given(data=st.data())
def test_raw_images(data):
    names = st.sampled_from([*ENCODINGS, *SEMIPLANAR, *sorted(DEPTH)])
    width, height = (data.draw(st.one_of(SMALL, SMALL, WORD)) for _ in range(2))
    message = SimpleNamespace(
        header=HEADER,
        width=width,
        height=height,
        encoding=data.draw(st.one_of(names, names, names, st.text(max_size=20))),
        step=data.draw(st.sampled_from([width, 2 * width, 3 * width, 3 * width + 5, 2**31])),
        is_bigendian=data.draw(st.integers(0, 255)),
    )
    rows = data.draw(st.sampled_from([height, 3 * height // 2, 3 * height, height + 1]))
    whole = bytes(min(rows * message.step, 20_000))
    message.data = data.draw(st.one_of(st.just(whole), st.binary(max_size=200)))
    own_error_or_none(lambda: decoded(message))


@cache
def image(form, mode):
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(file, form)
    return file.getvalue()


@fuzzed
@hypothesis.given(
    data=st.data(), form=st.sampled_from(['JPEG', 'PNG']), mode=st.sampled_from(['RGB', 'L'])
)
def test_compressed_images(data, form, mode):
    content = data.draw(changed(image(form, mode)))
    name = data.draw(st.one_of(st.sampled_from(FORMATS), st.text(max_size=30)))
    message = SimpleNamespace(header=HEADER, format=name, data=content)
    own_error_or_none(lambda: decoded(message))


@cache
def packets(codec):
    return encoded(codec, images(6, height=32, width=48), group=3)


@seldom
@hypothesis.given(data=st.data(), codec=st.sampled_from(['h264', 'hevc']))
def test_videos(data, codec):
    """Packets in any order, each whole or changed, and the end at any place."""
    decoder = FrameDecoder('front')
    for _ in range(data.draw(st.integers(1, 5))):
        packet = data.draw(st.sampled_from(packets(codec)))
        content = data.draw(st.one_of(st.just(packet), changed(packet)))
        message = SimpleNamespace(header=HEADER, format=codec, data=content)
        own_error_or_none(lambda message=message: decoder.decode(message, None))
    own_error_or_none(decoder.finish)


@seldom
@hypothesis.given(data=st.data(), rectified=st.booleans())
def test_camera_infos(data, rectified):
    def numbers(most):
        return data.draw(st.lists(ANY_FLOAT, min_size=most, max_size=most))

    models = ['plumb_bob', 'rational_polynomial', 'equidistant', '']
    info = SimpleNamespace(
        width=data.draw(st.one_of(st.just(640), WORD)),
        height=data.draw(st.one_of(st.just(480), WORD)),
        distortion_model=data.draw(st.one_of(st.sampled_from(models), st.text(max_size=9))),
        d=numbers(data.draw(st.sampled_from([0, 4, 5, 8, 13]))),
        k=numbers(9),
        p=numbers(12),
        binning_x=data.draw(st.one_of(st.just(0), WORD)),
        binning_y=data.draw(st.one_of(st.just(0), WORD)),
        roi=SimpleNamespace(
            **{
                name: data.draw(st.one_of(st.just(0), WORD))
                for name in ('x_offset', 'y_offset', 'width', 'height')
            }
        ),
    )
    points = np.array([[0.0, 0.0], [320.0, 240.0], [640.0, 480.0]])

    def use():
        found = calibration_of(info)
        assert len(found.resized(found.k, (240, 320))) == 9
        camera = camera_model(found, (480, 640), rectified)
        assert camera.project(camera.rays(points)).shape == (3, 2)

    with np.errstate(all='ignore'):
        own_error_or_none(use)


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20),
    st.lists(st.text(max_size=12), max_size=3), st.lists(st.floats(), max_size=3),
)  # fmt: skip


@fuzzed
@hypothesis.given(data=st.data(), names=st.lists(st.sampled_from(sorted(BY_NAME)), max_size=4))
def test_values_of_parameters(data, names):
    """What passes the node's table makes settings; masks are files, tried elsewhere."""
    current = {name: spec.default for name, spec in BY_NAME.items()}

    def use():
        changes = {n: typed(BY_NAME[n], data.draw(VALUES)) for n in names if n != 'roi.masks'}
        check_change(
            current, changes, configured=data.draw(st.booleans()), known_classes=('Road',)
        )
        settings_from({**current, **changes})

    own_error_or_none(use, ConfigError)


@pytest.mark.parametrize('codec', ['h264', 'hevc'])
def test_the_whole_video_is_read(codec):
    """The inputs above begin from one that gives frames."""
    decoder = FrameDecoder('front')
    messages = [SimpleNamespace(header=HEADER, format=codec, data=p) for p in packets(codec)]
    done = [frame for message in messages for frame in decoder.decode(message, None)]
    assert len(done) + len(decoder.finish()[0]) == 6
