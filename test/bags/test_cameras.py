# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Which topics are cameras: by what their messages hold, once for each camera, and said."""

import cv2
import numpy as np
import pytest

pytest.importorskip('rosbags')
pytest.importorskip('mcap')

from bag_files import COMPRESSED, RAW, START, Maker, write_bag
from bundles import road_image
from mcap_files import write_mcap

from ood_perception.bags.cameras import camera_messages, open_cameras
from ood_perception.bags.problems import Problems
from ood_perception.bags.reading import Bag, Limits
from ood_perception.errors import ConfigError, DataError

MAKER = Maker()
IMAGE = road_image(48, 64)
DEPTH = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) + 500


def raw(topic, encoding='rgb8', count=3):
    """Return messages of an Image topic; the pixels do not matter but for their size."""
    pixels = {'16UC1': DEPTH, '32FC1': DEPTH.astype(np.float32), 'mono16': DEPTH}
    image = pixels.get(encoding, IMAGE[..., 0].copy() if encoding == 'mono8' else IMAGE)
    times = [START + number * 10**8 for number in range(count)]
    return [(topic, RAW, time, MAKER.raw(image, encoding, time)) for time in times]


def packed(topic, form='rgb8; jpeg compressed bgr8', pixels=IMAGE, extension='.jpg', count=3):
    """Return messages of a CompressedImage topic."""
    data = cv2.imencode(extension, pixels)[1].reshape(-1)
    message = MAKER.store.types[COMPRESSED]
    times = [START + number * 10**8 + 1 for number in range(count)]
    return [
        (topic, COMPRESSED, time, bytes(MAKER.store.serialize_cdr(
            message(header=MAKER.header(time, 'camera'), format=form, data=data), COMPRESSED)))
        for time in times
    ]  # fmt: skip


def depth_png(topic, form, count=3):
    return packed(topic, form, DEPTH, '.png', count)


def choose(tmp_path, messages, wanted=(), on_error='fail', path=None):
    """Return ([(camera, topic)], what is said, number of messages)."""
    path = path or write_bag(tmp_path / 'bag', sorted(messages, key=lambda m: m[2]))
    problems = Problems(on_error)
    with Bag(path, problems, Limits(), tmp_path) as bag:
        cameras = open_cameras(bag, wanted)
        frames = list(camera_messages(bag, cameras))
    assert len(frames) == sum(camera.count for camera in cameras)
    return [(camera.camera, camera.topic) for camera in cameras], ' | '.join(bag.notes), problems


COLOUR = '/camera/color/image_raw'
LEFT_OUT = {
    '16UC1': raw('/camera/depth/image_rect_raw', '16UC1'),
    '32FC1': raw('/zed/depth/depth_registered', '32FC1'),
    'confidence': raw('/zed/confidence/confidence_map', '32FC1'),
    'depth as png': depth_png('/camera/depth/image_raw/compressed', '16UC1; png compressed '),
    'depth without a word': depth_png('/camera/depth/image_raw/compressed', 'png'),
    'compressedDepth': depth_png('/camera/depth/image/compressedDepth', '16UC1; compressedDepth'),
    'compressedDepth renamed': depth_png('/depth', '16UC1; compressedDepth png'),
    'compressedDepth of nothing': depth_png('/depth', '; compressedDepth png'),
    'rvl': packed('/depth', '16UC1; compressedDepth rvl'),
    'twin': packed(f'{COLOUR}/compressed'),
    'zstd': packed(f'{COLOUR}/zstd', 'zstd'),
    'zstd of another camera': packed('/rear/image_raw/zstd', 'zstd'),
    'ffmpeg': packed(f'{COLOUR}/ffmpeg', 'h264'),
    'rectified': raw('/camera/color/image_rect'),
    'rectified colour': raw('/camera/color/image_rect_color'),
    'grey': raw('/camera/color/image_mono', 'mono8'),
    'colour': raw('/camera/color/image_color'),
    'rectified and compressed': packed('/camera/color/image_rect/compressed'),
    'our own mask': raw('/road_anomaly/mask', 'mono8'),
    'our own overlay': raw('/robot/road_anomaly/front/overlay'),
    'the most': raw('/camera/color/image_rect', count=5),
}  # fmt: skip


@pytest.mark.parametrize('kind', LEFT_OUT)
def test_beside_a_colour_camera_it_is_left_out_with_a_word(tmp_path, kind):
    other = LEFT_OUT[kind][0][0]
    cameras, words, problems = choose(tmp_path, raw(COLOUR) + LEFT_OUT[kind])
    assert cameras == [('', COLOUR)]
    assert f'{other} is left out' in words
    assert not problems


@pytest.mark.parametrize('kind', ['16UC1', '32FC1', 'depth as png', 'compressedDepth', 'zstd'])
@pytest.mark.parametrize('named', [True, False])
def test_alone_or_named_it_is_refused_with_the_reason(tmp_path, kind, named):
    topic = LEFT_OUT[kind][0][0]
    words = 'republish it raw' if kind == 'zstd' else 'measurements, no images'
    with pytest.raises(DataError, match=f'{topic} .*{words}'):
        choose(tmp_path, LEFT_OUT[kind], [topic] if named else (), 'skip')


@pytest.mark.parametrize('kind', ['twin', 'ffmpeg', 'rectified', 'grey', 'depth without a word'])
def test_what_is_left_out_by_default_can_be_named(tmp_path, kind):
    topic = LEFT_OUT[kind][0][0]
    cameras, words, _ = choose(tmp_path, raw(COLOUR) + LEFT_OUT[kind], [topic])
    assert (cameras, words) == ([('', topic)], '')


@pytest.mark.parametrize('encoding', ['mono8', 'mono16', 'bayer_rggb8', '8UC3', '8UC1'])
def test_grey_and_nameless_encodings_are_images(tmp_path, encoding):
    assert choose(tmp_path, raw('/thermal/image', encoding))[0] == [('', '/thermal/image')]


def test_mono16_as_png_is_an_image(tmp_path):
    topic = '/thermal/image/compressed'
    cameras, _, _ = choose(tmp_path, depth_png(topic, 'mono16; png compressed '))
    assert cameras == [('', topic)]


def test_an_empty_raw_topic_does_not_hide_its_compressed_twin(tmp_path):
    topic = f'{COLOUR}/compressed'
    path = write_bag(tmp_path / 'bag', [*raw(COLOUR, count=1), *packed(topic, count=5)])
    assert choose(tmp_path, (), path=path)[0] == [('', topic)], 'half of the most is needed'
    assert choose(tmp_path, (), [COLOUR], path=path)[0] == [('', COLOUR)], 'named it is taken'


def test_topics_of_one_name_in_a_namespace_get_names_of_their_own(tmp_path):
    messages = raw('/rig/image_left') + raw('/rig/image_right')
    assert choose(tmp_path, messages)[0] == [
        ('rig/image_left', '/rig/image_left'), ('rig/image_right', '/rig/image_right'),
    ]  # fmt: skip


def test_raw_and_rectified_can_both_be_named(tmp_path):
    messages = raw('/camera/image_raw') + raw('/camera/image_rect')
    cameras, _, _ = choose(tmp_path, messages, ['/camera/image_raw', '/camera/image_rect'])
    assert cameras == [
        ('camera/image_raw', '/camera/image_raw'), ('camera/image_rect', '/camera/image_rect'),
    ]  # fmt: skip


@pytest.mark.parametrize('given', ['image_raw', 'color/image_raw', 'camera/color/image_raw'])
def test_a_topic_without_its_slash_is_found_where_one_is_meant(tmp_path, given):
    assert choose(tmp_path, raw(COLOUR), [given])[0] == [('', COLOUR)]
    assert choose(tmp_path, (), [f'eye={given}'], path=tmp_path / 'bag')[0] == [('eye', COLOUR)]
    twin = write_bag(tmp_path / 'twin', packed(f'{COLOUR}/compressed'))
    assert choose(tmp_path, (), [given], path=twin)[0] == [('', f'{COLOUR}/compressed')]


def test_a_topic_without_its_slash_that_two_could_mean_is_refused(tmp_path):
    messages = raw('/left/image_raw') + raw('/right/image_raw')
    with pytest.raises(ConfigError, match='/left/image_raw, /right/image_raw'):
        choose(tmp_path, messages, ['image_raw'])


def test_two_types_on_one_topic(tmp_path):
    texts = [(COLOUR, 'std_msgs/msg/String', START + 7, MAKER.text())]
    cameras, words, problems = choose(tmp_path, raw(COLOUR) + texts)
    assert cameras == [('', COLOUR)]
    assert f'{COLOUR} also holds std_msgs/msg/String (1)' in words
    assert not problems
    path = write_bag(tmp_path / 'both', raw(COLOUR) + packed(COLOUR, count=2))
    assert choose(tmp_path, (), path=path)[0] == [('', COLOUR)], 'the frames of both are read'


# --- other channels ----------------------------------------------------------------------------

OTHERS = {
    'json': ('/log', 'json', 'jsonschema', 'Log', b'{"a":1}'),
    'protobuf': ('/log', 'protobuf', 'protobuf', 'foxglove.Log', b'\n\1a'),
    'flatbuffer': ('/log', 'flatbuffer', 'flatbuffer', 'Log', b'\0\1'),
    'cbor': ('/log', 'cbor', '', 'Log', b'\xa0'),
    'ros1': ('/log', 'ros1', 'ros1msg', 'std_msgs/String', b'\1\0\0\0a'),
    'schemaless': ('/log', 'json', None, None, b'{}'),
    'nothing known': ('/log', '', None, None, b'?'),
    'an image as json': (f'{COLOUR}/json', 'json', 'jsonschema', RAW, b'{"data": ""}'),
    'an image of ros1': (f'{COLOUR}/old', 'ros1', 'ros1msg', 'sensor_msgs/Image', b'\1\0\0\0a'),
}  # fmt: skip


@pytest.mark.parametrize('profile', ['ros2', ''])
@pytest.mark.parametrize('kind', OTHERS)
@pytest.mark.parametrize('on_one_topic', [True, False])
def test_a_channel_of_another_kind_is_no_damage(tmp_path, profile, kind, on_one_topic):
    topic, encoding, schema_encoding, name, data = OTHERS[kind]
    other = (COLOUR if on_one_topic else topic, encoding, schema_encoding, name, START + 5, data)
    path = write_mcap(tmp_path / 'a.mcap', raw(COLOUR), others=[other], profile=profile)
    cameras, _, problems = choose(tmp_path, (), path=path)
    assert cameras == [('', COLOUR)]
    assert not problems


def test_images_of_other_encodings_alone_are_named(tmp_path):
    other = ('/camera', 'protobuf', 'protobuf', 'foxglove.CompressedImage', START, b'\n\1a')
    path = write_mcap(tmp_path / 'a.mcap', [], others=[other])
    with pytest.raises(DataError, match=r'foxglove\.CompressedImage \(protobuf\) are not read'):
        choose(tmp_path, (), path=path)
    path = write_mcap(tmp_path / 'b.mcap', raw(COLOUR), others=[other])
    assert '/camera is left out' in choose(tmp_path, (), path=path)[1]


@pytest.mark.parametrize('profile', ['ros1', ''])
def test_an_mcap_of_ros_1_says_how_to_convert_it(tmp_path, profile):
    other = (COLOUR, 'ros1', 'ros1msg', 'sensor_msgs/Image', START, b'\1\0\0\0a')
    path = write_mcap(tmp_path / 'a.mcap', [], others=[other], profile=profile)
    for on_error in ('skip', 'fail'):
        with pytest.raises(DataError, match=r'ROS 1: convert .*rosbags-convert') as caught:
            choose(tmp_path, (), on_error=on_error, path=path)
        assert 'damaged' not in str(caught.value)


@pytest.mark.parametrize('place', ['drive.bag', 'drive.bag.active', 'folder/drive.bag'])
def test_a_bag_of_ros_1_says_how_to_convert_it(tmp_path, place):
    path = tmp_path / place
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b'#ROSBAG V2.0\nE\0\0\0')
    given = path.parent if '/' in place else path
    with pytest.raises(DataError, match=r'ROS 1 recording: convert .*rosbags-convert --src'):
        choose(tmp_path, (), path=given)


# --- the other readers of bags -------------------------------------------------------------------


def test_the_demo_takes_the_same_camera(tmp_path):
    from ood_perception.demo.sources import bag_frames

    path = write_bag(tmp_path / 'bag', raw('/depth/image', '16UC1', 5) + raw(COLOUR))
    images = list(bag_frames(path, 9))
    assert len(images) == 3
    np.testing.assert_array_equal(images[0], IMAGE)


def test_the_trainer_takes_the_same_camera_and_says_so(tmp_path):
    pytest.importorskip('torch')
    from trainer.evaluation.clean_frames import open_clean

    path = write_bag(tmp_path / 'bag', raw('/depth/image', '16UC1', 5) + raw(COLOUR))
    source = open_clean(str(path), tmp_path, 10.0, None, ())
    assert (source.count, source.cameras) == (3, ('',))
    assert '/depth/image is left out' in source.name
    assert len(list(source.frames())) == 3
    (tmp_path / 'a.bag').write_bytes(b'#ROSBAG V2.0\n')
    with pytest.raises(DataError, match='ROS 1'):
        open_clean(str(tmp_path / 'a.bag'), tmp_path, 10.0, None, ())
