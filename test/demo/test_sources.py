# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The demo's inputs: what is read, and what is said of what cannot be."""

import cv2
import numpy as np
import pytest
from paths import need_data

from ood_perception.demo.sources import COMPOSED, ROAD, SEA, open_source, spread
from ood_perception.errors import ConfigError, DataError


def coloured(number):
    return np.full((40, 60, 3), (20 * number, 100, 200), np.uint8)


@pytest.fixture
def folder(tmp_path):
    for number in range(12):
        cv2.imwrite(str(tmp_path / f'{number}.png'), coloured(number)[..., ::-1])
    (tmp_path / 'notes.txt').write_text('not an image')
    return tmp_path


def images(text, limit=50):
    return [photo.image for photo in open_source(str(text), limit).images()]


def test_a_folder_is_read_in_the_order_of_its_numbers(folder):
    read = images(folder)
    assert len(read) == 12
    for number, image in enumerate(read):
        np.testing.assert_array_equal(image, coloured(number))


def test_a_limit_spreads_over_the_whole_folder(folder):
    reds = [int(image[0, 0, 0]) // 20 for image in images(folder, 3)]
    assert reds == [0, 6, 11]
    assert spread(5, 9) == [0, 1, 2, 3, 4]


def test_labels_come_with_their_images(tmp_path):
    (tmp_path / 'images').mkdir()
    (tmp_path / 'labels').mkdir()
    cv2.imwrite(str(tmp_path / 'images' / 'a.png'), coloured(1))
    labels = np.full((40, 60), 255, np.uint8)
    labels[20:] = 0
    labels[25:30, 5:10] = labels[30:38, 40:50] = 1
    cv2.imwrite(str(tmp_path / 'labels' / 'a.png'), labels)
    (photo,) = open_source(str(tmp_path), 5).images()
    np.testing.assert_array_equal(photo.truth, labels)


def test_labels_of_another_size_are_refused_by_name(tmp_path):
    (tmp_path / 'images').mkdir()
    (tmp_path / 'labels').mkdir()
    cv2.imwrite(str(tmp_path / 'images' / 'a.png'), coloured(1))
    cv2.imwrite(str(tmp_path / 'labels' / 'a.png'), np.zeros((4, 4), np.uint8))
    with pytest.raises(DataError, match=r'labels/a\.png.*\(40, 60\)'):
        list(open_source(str(tmp_path), 5).images())


def test_a_video_is_read_in_colour(tmp_path):
    path = tmp_path / 'drive.avi'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 10, (60, 40))
    if not writer.isOpened():
        pytest.skip('this OpenCV writes no MJPG video')
    for number in range(10):
        writer.write(coloured(number)[..., ::-1])
    writer.release()
    read = images(path, 5)
    for number, image in zip([0, 2, 4, 7, 9], read, strict=True):  # to the end of it
        wanted = coloured(number)[0, 0].astype(int)
        assert np.abs(image[20, 30].astype(int) - wanted).max() < 12


@pytest.mark.parametrize('compressed', [False, True])
@pytest.mark.parametrize('storage', ['sqlite3', 'mcap'])
def test_a_bag_of_raw_or_compressed_images_is_read(tmp_path, storage, compressed):
    rosbag2 = pytest.importorskip('rosbags.rosbag2')
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    kind = 'sensor_msgs/msg/CompressedImage' if compressed else 'sensor_msgs/msg/Image'
    plugin = getattr(rosbag2.StoragePlugin, storage.upper())
    path = tmp_path / 'bag'
    with rosbag2.Writer(path, version=9, storage_plugin=plugin) as writer:
        connection = writer.add_connection('/camera', kind, typestore=store)
        for number in range(6):
            message = _message(store, kind, coloured(number))
            writer.write(connection, number, store.serialize_cdr(message, kind))
    read = images(path, 3)
    for number, image in zip([0, 2, 5], read, strict=True):
        wanted = coloured(number).astype(int)
        assert np.abs(image.astype(int) - wanted).max() < (8 if compressed else 1)


def _message(store, kind, image):
    time = store.types['builtin_interfaces/msg/Time'](sec=0, nanosec=0)
    header = store.types['std_msgs/msg/Header'](stamp=time, frame_id='camera')
    if 'Compressed' in kind:
        data = cv2.imencode('.jpg', image[..., ::-1])[1].reshape(-1)
        return store.types[kind](header=header, format='jpeg', data=data)
    return store.types[kind](
        header=header, height=40, width=60, encoding='rgb8', is_bigendian=0, step=180,
        data=image.reshape(-1),
    )  # fmt: skip


def test_a_foreign_bag_with_compressed_messages_is_read():
    pytest.importorskip('rosbags')
    read = images(need_data('bags') / 'amber_soccer_goal_12.mcap')
    assert [image.shape for image in read] == [(480, 640, 3)] * 2


@pytest.fixture(scope='module')
def shipped():
    return list(open_source('', 24).images())


def test_nothing_named_takes_the_frames_that_are_shipped(shipped):
    assert open_source('', 24).note == COMPOSED
    assert 'real' in COMPOSED
    assert 'drew' in COMPOSED
    assert len(shipped) == 24
    for photo in shipped:
        assert photo.image.shape == (540, 960, 3)
        assert (photo.truth == 0).mean() > 0.25
        assert (photo.truth == 1).any()


def test_each_shipped_object_stands_on_its_road_and_is_not_of_its_colour(shipped):
    for photo in shipped:
        thing, road = photo.truth == 1, photo.truth == 0
        below = np.roll(thing, 12, axis=0) & ~thing
        assert road[below].mean() > 0.5, photo.name
        pixels = photo.image.astype(float)
        color = np.median(pixels[road], axis=0)
        assert np.abs(np.median(pixels[thing], axis=0) - color).max() > 25, photo.name


def test_each_shipped_object_grows_as_the_car_comes_nearer(shipped):
    areas = {}
    for photo in shipped:
        areas.setdefault(photo.name[3:], []).append((photo.truth == 1).sum())
    assert len(areas) == 4
    for name, sizes in areas.items():
        # at constant speed towards a thing, 1 / sqrt(area) falls by the same in every frame
        falls = -np.diff(1 / np.sqrt(sizes))
        assert (falls > 0).all(), name
        np.testing.assert_allclose(falls, falls.mean(), rtol=0.2, err_msg=name)


def test_what_is_shipped_is_small_and_every_frame_has_a_label():
    files = [path for path in ROAD.parent.rglob('*') if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 3e6
    for place in (ROAD, SEA):
        named = [{path.stem for path in (place / part).iterdir()} for part in ('images', 'labels')]
        assert named[0] == named[1]


def test_the_sea_is_shown_unchecked(caplog):
    images = list(open_source(str(SEA), 5).images())
    assert [photo.truth for photo in images] == [None, None]


@pytest.mark.parametrize(
    ('name', 'words'),
    [
        ('gone', 'does not exist'),
        ('/dev/video_none', 'plugged in'),
        ('empty', 'holds no image'),
        ('text.txt', 'neither a video'),
    ],
)
def test_what_is_missing_is_named_with_a_remedy(tmp_path, name, words):
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'text.txt').write_text('x')
    text = name if name.startswith('/') else str(tmp_path / name)
    with pytest.raises(ConfigError, match=words) as caught:
        list(open_source(text, 3).images())
    assert text in str(caught.value)


@pytest.mark.parametrize('name', ['broken.mp4', 'broken.mcap', 'images/broken.png'])
def test_what_cannot_be_read_is_named(tmp_path, name):
    if name.endswith('mcap'):
        pytest.importorskip('rosbags')
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b'this is nothing of the kind')
    given = path.parent if name.endswith('png') else path
    with pytest.raises(DataError, match='broken'):
        list(open_source(str(given), 3).images())


def test_a_bag_without_images_says_what_it_holds(tmp_path):
    rosbag2 = pytest.importorskip('rosbags.rosbag2')
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    with rosbag2.Writer(tmp_path / 'bag', version=9) as writer:
        connection = writer.add_connection('/chat', 'std_msgs/msg/String', typestore=store)
        text = store.types['std_msgs/msg/String'](data='hello')
        writer.write(connection, 1, store.serialize_cdr(text, 'std_msgs/msg/String'))
    with pytest.raises(DataError, match=r'/chat \(std_msgs/msg/String, 1\)'):
        images(tmp_path / 'bag')
