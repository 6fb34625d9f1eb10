# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The node in a real graph on what cameras publish: padding, damage, planes, mosaics, videos."""

import cv2
import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy')

from jpegs import jpeg  # noqa: E402
from ros_rig import photo  # noqa: E402
from sensor_msgs.msg import CompressedImage, Image  # noqa: E402
from videos import encoded  # noqa: E402

from ood_perception.ros.diagnostics import ERROR  # noqa: E402

pytestmark = pytest.mark.ros


def packed(data, name):
    message = CompressedImage(format=name)
    message.data.frombytes(data)
    return message


def raw(pixels, encoding, height, width, big=0):
    message = Image(encoding=encoding, height=height, width=width, is_bigendian=big)
    message.step = pixels[0].nbytes
    message.data.frombytes(np.ascontiguousarray(pixels).tobytes())
    return message


def has_obstacle(message):
    return (np.frombuffer(message.data, np.uint8) == 1).any()


def test_a_padded_jpeg_is_judged_and_a_cut_one_is_told(rig):
    rig = rig(transport='compressed')
    mask = rig.listen('mask', Image)
    camera = rig.camera('image/compressed', CompressedImage)
    data = jpeg(photo())
    rig.send(camera, message=packed(data[:-60] + b'\xff\xd9', 'jpeg'))
    level, text, _ = rig.status('camera', lambda s: 'rejected' in s[1])
    assert level == ERROR
    assert 'premature end' in text
    rig.send(camera, message=packed(data + bytes(30000), 'jpeg'))
    rig.wait(lambda: mask, 'a mask')
    assert has_obstacle(mask[0])


def test_raw_encodings_without_cv_bridge(rig):
    rig = rig(frame_queue=10)
    mask = rig.listen('mask', Image)
    camera = rig.camera()
    pixels = photo()
    height, width = pixels.shape[:2]
    i420 = cv2.cvtColor(pixels, cv2.COLOR_RGB2YUV_I420)
    u, v = np.split(i420[height:].reshape(2, -1), 2)
    nv21 = np.vstack([i420[:height], np.stack([v, u], -1).reshape(height // 2, width)])
    forms = {
        'bgr16': (pixels[..., ::-1].astype('>u2') * 257, 1),
        '8UC3': (pixels[..., ::-1], 0),
        'nv21': (nv21, 0),
    }
    for number, (encoding, (values, big)) in enumerate(forms.items()):
        rig.send(camera, message=raw(values, encoding, height, width, big))
        rig.wait(lambda n=number: len(mask) > n, f'the mask of {encoding}')
    assert all(has_obstacle(message) for message in mask)
    assert rig.counters().bad == 0


@pytest.mark.parametrize('codec', ['h264', 'hevc'])
def test_a_video_whose_frames_were_dropped_is_judged(rig, codec):
    rig = rig(transport='compressed')
    mask = rig.listen('mask', Image)
    camera = rig.camera('image/compressed', CompressedImage)
    plain = np.full_like(photo(), 90)
    rig.engine.gate.clear()
    packets = encoded(codec, [plain, plain, plain, photo()], group=100)
    rig.send(camera, message=packed(packets[0], codec))
    rig.wait(lambda: rig.engine.batches, 'the first frame in the engine')
    for number, packet in enumerate(packets[1:]):
        stamp = rig.send(camera, message=packed(packet, codec))
        rig.wait_counter('callbacks', number + 2)
    rig.engine.gate.set()
    rig.wait(lambda: len(mask) == 2, 'two masks')
    assert (mask[1].header.stamp.sec, mask[1].header.stamp.nanosec) == stamp
    assert has_obstacle(mask[1])
    counted = rig.counters()
    assert (counted.processed, counted.dropped, counted.bad) == (2, 2, 0)


def test_a_video_without_its_key_frame_is_told_in_diagnostics(rig):
    rig = rig(transport='compressed')
    rig.listen('mask', Image)
    camera = rig.camera('image/compressed', CompressedImage)
    packets = encoded('h264', [photo()] * 3, group=100)
    rig.send(camera, message=packed(packets[1], 'h264'))
    _, text, _ = rig.status('camera', lambda s: 'rejected' in s[1])
    assert 'waits for a key frame' in text
