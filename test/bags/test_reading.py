# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Bags as people have them: every storage and compression, and every kind of damage, named."""

import shutil

import pytest

pytest.importorskip('rosbags')

from bag_files import (
    COMPRESSED,
    FRONT,
    LEFT,
    RAW,
    Maker,
    storage_file,
    two_cameras,
    write_bag,
    zstd,
)
from paths import need_data

from ood_perception.bags.cameras import BagTopics, camera_name, choose_cameras
from ood_perception.bags.compression import SizeCapError, is_zstd, unpack_file, unpack_message
from ood_perception.bags.metadata import find_files, is_bag
from ood_perception.bags.problems import (
    CORRUPT_MESSAGE,
    DAMAGED_FILE,
    MESSAGE_TYPE,
    MISSING_FILE,
    SIZE_CAP,
    Problems,
)
from ood_perception.bags.reading import Bag, Limits
from ood_perception.errors import ConfigError, DataError


def read(path, tmp_path, on_error='fail', topics=(FRONT, LEFT), limits=None):
    """Return (messages as tuples, the closed bag, its problems)."""
    problems = Problems(on_error)
    with Bag(path, problems, limits or Limits(), tmp_path) as bag:
        found = [(m.topic, m.msgtype, m.time_ns, m.data) for m in bag.messages(topics)]
    return found, bag, problems


WAYS = [
    ('mcap', 'none'), ('mcap', 'storage'), ('mcap', 'message'), ('mcap', 'file'),
    ('sqlite3', 'none'), ('sqlite3', 'message'), ('sqlite3', 'file'),
]  # fmt: skip


@pytest.mark.parametrize(('storage', 'compression'), WAYS)
def test_every_storage_and_compression_gives_the_same_bytes_in_order(
    tmp_path, storage, compression
):
    messages = two_cameras()
    path = write_bag(tmp_path / 'bag', messages, storage, compression)
    found, bag, _ = read(path, tmp_path)
    assert found == messages
    assert bag.files.storage == storage
    assert bag.files.messages == len(messages)
    assert bag.message_compression.startswith('zstd' if compression == 'message' else 'none')
    assert not list(tmp_path.glob('.bag.*')), 'unpacked files were left behind'


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
@pytest.mark.parametrize('as_file', [True, False])
def test_message_compression_without_metadata_is_told_by_the_first_bytes(
    tmp_path, storage, as_file
):
    messages = two_cameras()
    path = write_bag(tmp_path / 'bag', messages, storage, 'message')
    (path / 'metadata.yaml').unlink()
    found, bag, _ = read(storage_file(path) if as_file else path, tmp_path)
    assert found == messages
    assert bag.message_compression == (
        f'zstd, {len(messages)} of {len(messages)} messages '
        '(reported by the first bytes; no metadata.yaml says so)'
    )


def test_a_lone_compressed_file_is_unpacked(tmp_path):
    messages = two_cameras()
    path = storage_file(write_bag(tmp_path / 'bag', messages, 'mcap', 'file'))
    assert path.name.endswith('.mcap.zstd')
    assert read(path, tmp_path)[0] == messages


def test_the_foreign_bag_is_read(tmp_path):
    path = need_data('bags') / 'amber_soccer_goal_12.mcap'
    found, bag, _ = read(path, tmp_path, topics=['/camera/image_raw'])
    assert [(kind, time) for _, kind, time, _ in found] == [(RAW, 8297777777), (RAW, 8331088888)]
    assert 'reported by the first bytes' in bag.message_compression
    message = Maker().store.deserialize_cdr(found[0][3], RAW)
    assert (message.width, message.height, message.encoding) == (640, 480, 'rgb8')


def test_split_bags_are_read_in_the_order_of_their_numbers(tmp_path):
    messages = two_cameras(12)
    folder = tmp_path / 'split'
    folder.mkdir()
    for number in range(12):
        part = write_bag(tmp_path / f'part_{number}', messages[2 * number : 2 * number + 2])
        shutil.copy(storage_file(part), folder / f'split_{number}.mcap')
    assert read(folder, tmp_path)[0] == messages


def cut(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


@pytest.mark.parametrize('compression', ['none', 'storage'])
def test_a_truncated_mcap_gives_what_it_holds_and_is_named(tmp_path, compression):
    messages = two_cameras(40)
    path = write_bag(tmp_path / 'bag', messages, 'mcap', compression)
    cut(storage_file(path), 0.7)
    with pytest.raises(DataError, match=r'bag\.mcap is damaged or cut off .*--on-error skip'):
        read(path, tmp_path)
    found, _, problems = read(path, tmp_path, 'skip')
    assert 0 < len(found) < len(messages)
    assert found == messages[: len(found)]
    assert problems.counts == {DAMAGED_FILE: 1}
    assert f'{len(found)} messages can be read' in problems.told[0].text


def test_a_truncated_database_gives_what_it_holds_and_is_named(tmp_path):
    messages = two_cameras(40)
    path = write_bag(tmp_path / 'bag', messages, 'sqlite3')
    cut(storage_file(path), 0.7)
    with pytest.raises(DataError, match=r'bag\.db3'):
        read(path, tmp_path)
    found, _, problems = read(path, tmp_path, 'skip')
    assert 0 < len(found) < len(messages)
    assert found == messages[: len(found)]
    assert problems.counts == {DAMAGED_FILE: 1}


def test_a_truncated_compressed_file_gives_what_it_holds(tmp_path):
    messages = two_cameras(80)
    path = write_bag(tmp_path / 'bag', messages, 'mcap', 'file')
    cut(storage_file(path), 0.7)
    found, _, problems = read(path, tmp_path, 'skip')
    assert 0 < len(found) < len(messages)
    assert found == messages[: len(found)]
    assert set(problems.counts) == {DAMAGED_FILE}


@pytest.mark.parametrize('name', ['b', 'b' + 300 * '9'], ids=['short', 'no file can have it'])
def test_a_missing_part_is_named(tmp_path, name):
    path = write_bag(tmp_path / 'bag', two_cameras())
    text = (path / 'metadata.yaml').read_text()
    named = '  relative_file_paths:\n  - bag.mcap'
    (path / 'metadata.yaml').write_text(text.replace(named, f'{named}\n  - {name}.mcap'))
    with pytest.raises(DataError, match=rf'names {name}\.mcap, which is not there'):
        read(path, tmp_path)
    found, _, problems = read(path, tmp_path, 'skip')
    assert len(found) == 8
    assert problems.counts == {MISSING_FILE: 1}


def test_a_message_above_the_cap_is_not_unpacked(tmp_path):
    messages = two_cameras()
    path = write_bag(tmp_path / 'bag', messages, 'mcap', 'message')
    limits = Limits(message=20_000)  # the JPEGs are smaller, the raw images are not
    with pytest.raises(DataError, match=r'more than .* MiB; --max-message-mib raises'):
        read(path, tmp_path, limits=limits)
    found, _, problems = read(path, tmp_path, 'skip', limits=limits)
    assert found == [m for m in messages if m[0] == LEFT]
    assert problems.counts == {SIZE_CAP: 4}


def test_a_file_above_the_cap_is_refused(tmp_path):
    path = write_bag(tmp_path / 'bag', two_cameras(), 'mcap', 'file')
    with pytest.raises(SizeCapError, match='--max-file-gib'):
        read(path, tmp_path, 'skip', limits=Limits(file=1000))
    assert not list(tmp_path.glob('.bag.*'))


def test_a_small_frame_that_unpacks_to_gigabytes_costs_no_memory():
    bomb = zstd().compress(bytes(1 << 28))
    assert len(bomb) < 1 << 16
    with pytest.raises(SizeCapError):
        unpack_message(bomb, 1 << 20)
    assert unpack_message(bomb, 1 << 28) == bytes(1 << 28)


@pytest.mark.parametrize('damage', ['cut', 'flipped'])
def test_a_damaged_compressed_message_is_skipped_and_named(tmp_path, damage):
    messages = two_cameras()
    packed = bytearray(zstd().compress(messages[2][3], options={
        zstd().CompressionParameter.checksum_flag: 1}))  # fmt: skip
    if damage == 'cut':
        del packed[-50:]
    else:
        packed[len(packed) // 2] ^= 0xFF
    stored = [*messages[:2], (FRONT, RAW, messages[2][2], bytes(packed)), *messages[3:]]
    path = write_bag(tmp_path / 'bag', stored)
    found, _, problems = read(path, tmp_path, 'skip')
    assert found == [*messages[:2], *messages[3:]]
    assert problems.counts == {CORRUPT_MESSAGE: 1}
    assert f'{FRONT} at {messages[2][2]}' in problems.told[0].text


def test_plain_messages_are_never_taken_for_compressed():
    assert not any(is_zstd(data) for *_, data in two_cameras())


def test_unpacking_a_damaged_file_says_so(tmp_path):
    packed, target = tmp_path / 'a.mcap.zstd', tmp_path / 'a.mcap'
    packed.write_bytes(zstd().compress(bytes(range(256)) * 10_000)[:-3])
    assert 'cut off' in unpack_file(packed, target)


@pytest.mark.parametrize(
    ('make', 'words'),
    [
        (lambda p: None, 'does not exist'),
        (lambda p: p.mkdir(), 'neither metadata.yaml nor'),
        (lambda p: p.write_bytes(b'x'), 'is no bag'),
        (lambda p: (p.mkdir(), (p / 'metadata.yaml').write_text('a: [')), 'ros2 bag reindex'),
        (lambda p: (p.mkdir(), (p / 'metadata.yaml').write_text('text')), 'ros2 bag reindex'),
        (lambda p: (p.mkdir(), (p / 'a.mcap').write_bytes(b'no')), 'no readable storage file'),
        (lambda p: (p.mkdir(), (p / 'a.db3').write_bytes(b'no')), 'no readable storage file'),
        (lambda p: (p.mkdir(), (p / 'a.mcap').write_bytes(b'')), 'no readable storage file'),
    ],
)
def test_what_is_no_bag_is_refused_with_the_reason(tmp_path, make, words):
    path = tmp_path / 'bag'
    make(path)
    with pytest.raises(DataError, match=words) as caught:
        read(path, tmp_path, 'skip')
    assert str(path) in str(caught.value)


def test_unknown_compression_is_refused(tmp_path):
    path = write_bag(tmp_path / 'bag', two_cameras(), 'mcap', 'message')
    text = (path / 'metadata.yaml').read_text().replace('zstd', 'lz5')
    (path / 'metadata.yaml').write_text(text)
    with pytest.raises(DataError, match='lz5'):
        find_files(path)


def test_bags_are_told_from_other_paths(tmp_path):
    assert is_bag(write_bag(tmp_path / 'bag', two_cameras(1)))
    assert is_bag(tmp_path / 'bag' / 'bag.mcap')
    assert not is_bag(tmp_path)
    assert not is_bag(tmp_path / 'film.mp4')


TOPICS = {
    (FRONT, RAW): 3, (LEFT, COMPRESSED): 2, ('/front/image_raw/compressed', COMPRESSED): 3,
    ('/depth/image_raw/compressedDepth', COMPRESSED): 3, ('/labels', RAW): 3,
    ('/chat', 'std_msgs/msg/String'): 9,
}  # fmt: skip


def chosen(topics=TOPICS, wanted=(), without=(), on_error='fail'):
    return [
        (camera.camera, camera.topic)
        for camera in choose_cameras(BagTopics(topics, without), wanted, Problems(on_error))
    ]


def test_all_cameras_are_taken_once_and_named_by_their_topics():
    assert chosen(without=['/labels']) == [('front', FRONT), ('left', LEFT)]


def test_chosen_topics_can_be_named():
    assert chosen(wanted=['bow=' + FRONT, LEFT]) == [('bow', FRONT), ('left', LEFT)]
    assert chosen(wanted=[FRONT]) == [('', FRONT)]
    assert chosen(wanted=['/left/image_raw']) == [('', LEFT)], 'recorded compressed alone'


@pytest.mark.parametrize(
    ('topic', 'name'),
    [
        ('/front/image_raw', 'front'), ('/front/image_raw/compressed', 'front'),
        ('/a/b/image', 'a/b'), ('/image', 'image'), ('/cam0', 'cam0'),
    ],
)  # fmt: skip
def test_camera_names_follow_from_topics(topic, name):
    assert camera_name(topic) == name


def test_a_topic_of_another_type_is_named_and_skipped():
    with pytest.raises(DataError, match=r'/chat holds std_msgs/msg/String, which is no image'):
        chosen(wanted=['/chat', FRONT])
    problems = Problems('skip')
    cameras = choose_cameras(BagTopics(TOPICS), ['/chat', FRONT], problems)
    assert [camera.topic for camera in cameras] == [FRONT]
    assert problems.counts == {MESSAGE_TYPE: 1}


@pytest.mark.parametrize(
    ('topics', 'wanted', 'error', 'words'),
    [
        ({('/chat', 'std_msgs/msg/String'): 9}, (), DataError, r'/chat \(std_msgs/msg/String, 9'),
        ({}, (), DataError, 'nothing'),
        (TOPICS, ['/nowhere'], ConfigError, r'no topic /nowhere; it holds /chat'),
        (TOPICS, ['front'], ConfigError, 'from the root'),
        (TOPICS, [FRONT, FRONT], ConfigError, 'once'),
        (TOPICS, [FRONT, FRONT + '/compressed'], ConfigError, 'same name'),
    ],
)
def test_topics_that_do_not_fit_are_refused(topics, wanted, error, words):
    with pytest.raises(error, match=words):
        chosen(topics, wanted, on_error='skip')
