# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Recordings in an object store: found, read by range, evaluated as if they lay on the disk."""

import json

import pytest

pytest.importorskip('rosbags')

from bag_files import LEFT, write_bag
from bundles import write_tiny_bundle
from recordings import messages
from s3_server import s3_server

from ood_perception.bags.problems import Problems
from ood_perception.bags.reading import Bag
from ood_perception.bags.remote import recording_path
from ood_perception.cli.evaluate_bag import FINE, WITH_SKIPPED, evaluate_bag


@pytest.fixture(scope='module')
def answers():
    with s3_server() as answers:
        recording_path('s3://drives').mkdir()
        yield answers


def put(folder, url):
    """Copy a bag's files below a URL."""
    for file in folder.iterdir():
        target = recording_path(f'{url}/{file.name}')
        target.write_bytes(file.read_bytes())


def test_a_fleet_in_a_store_gives_what_it_gives_on_the_disk(answers, tmp_path):
    bundle = write_tiny_bundle(tmp_path / 'tiny', height=98, width=126)
    for seed in range(3):
        put(
            write_bag(tmp_path / 'fleet' / f'd{seed}', messages(seed, 3)),
            f's3://drives/all/d{seed}',
        )
    put(write_bag(tmp_path / 'rows', messages(4, 2), storage='sqlite3'), 's3://drives/rows')
    words = ['--bundle', str(bundle), '--threads', '1', '--precision', 'f32', '--out']
    status = evaluate_bag([str(tmp_path / 'fleet'), *words, str(tmp_path / 'disk')])
    assert status == FINE
    place = ['s3://drives/all', 's3://drives/rows']
    assert evaluate_bag([*place, *words, str(tmp_path / 'store')]) == WITH_SKIPPED
    disk, store = (
        json.loads((tmp_path / name / 'report.json').read_text()) for name in ('disk', 'store')
    )
    assert store['cameras'] == disk['cameras']
    (failed,) = store['failed']
    assert failed['recording'] == 's3://drives/rows'
    assert 'convert it to a plain .mcap' in failed['reason']
    assert evaluate_bag(['s3://drives/*/d[02]', *words, str(tmp_path / 'some')]) == FINE
    assert json.loads((tmp_path / 'some' / 'report.json').read_text())['done'] == 2


def test_only_the_ranges_of_the_chosen_topic_are_read(answers, tmp_path):
    pytest.importorskip('mcap')
    file = long_recording(tmp_path / 'long.mcap')
    recording_path('s3://drives/long.mcap').write_bytes(file.read_bytes())
    answers.clear()
    with Bag(recording_path('s3://drives/long.mcap'), Problems()) as bag:
        opened = sum(size for _, _, size in answers)
        count = sum(1 for _ in bag.messages([LEFT]))
    assert count == 4
    assert opened < file.stat().st_size / 4
    assert sum(size for _, _, size in answers) < file.stat().st_size / 2


def long_recording(path):
    """Write 16 MB of another topic in chunks of 1 MB, and four messages of LEFT in one chunk."""
    from mcap.writer import CompressionType, Writer

    with path.open('wb') as stream:
        writer = Writer(stream, chunk_size=1 << 20, compression=CompressionType.NONE)
        writer.start(profile='ros2')
        schema = writer.register_schema('sensor_msgs/msg/CompressedImage', 'ros2msg', b'')
        channels = [writer.register_channel(t, 'cdr', schema) for t in ('/lidar', LEFT)]
        for number in range(16):
            writer.add_message(channels[0], number, bytes(1 << 20), number)
        for number in range(16, 20):
            writer.add_message(channels[1], number, bytes(1000), number)
        writer.finish()
    return path
