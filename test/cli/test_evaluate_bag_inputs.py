# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The program on recordings as people have them: what it evaluates, says and exits with."""

import json

import numpy as np
import pytest

pytest.importorskip('rosbags')
pytest.importorskip('mcap')

from bag_files import FRONT, RAW, START, Maker, two_cameras, write_bag
from bundles import road_image, write_tiny_bundle
from mcap_files import MESSAGE_INDEX, chunk_places, flip, rewrite, write_mcap

from ood_perception.cli.evaluate_bag import FAILED, FINE, WITH_SKIPPED, evaluate_bag


@pytest.fixture(scope='module')
def bundle(tmp_path_factory):
    return write_tiny_bundle(tmp_path_factory.mktemp('bundles') / 'tiny', height=98, width=126)


@pytest.fixture
def run(bundle, tmp_path, capsys):
    """Run the program; return (exit status, the folder of results, what it printed)."""

    def call(bag, *options):
        folder = tmp_path / 'out'
        status = evaluate_bag(
            [str(bag), '--bundle', str(bundle), '--threads', '1', '--out', str(folder), *options]
        )
        printed = capsys.readouterr()
        return status, folder, printed.out + printed.err

    return call


def report_of(folder):
    return json.loads((folder / 'report.json').read_text())


def test_a_chunk_without_its_index_is_evaluated(run, tmp_path):
    messages = two_cameras()
    path = write_mcap(tmp_path / 'bag.mcap', messages)
    number = iter(range(100))
    rewrite(path, lambda opcode, n, summary, body: (
        None if opcode == MESSAGE_INDEX and next(number) > 1 else body))  # fmt: skip
    status, folder, _ = run(path, '--on-error', 'fail')
    assert status == FINE
    assert [camera['evaluated'] for camera in report_of(folder)['cameras']] == [4, 4]


def test_a_damaged_chunk_is_counted_and_the_later_ones_are_evaluated(run, tmp_path):
    path = write_mcap(tmp_path / 'bag.mcap', two_cameras(), 'zstd')
    start, length = chunk_places(path)[1]
    flip(path, start + length // 2)
    status, folder, printed = run(path)
    assert status == WITH_SKIPPED
    report = report_of(folder)
    assert [camera['evaluated'] for camera in report['cameras']] == [3, 3]
    assert report['bag']['messages_lost'] == 2
    assert 'lost: 2 recorded messages' in printed
    assert '2 lost' in (folder / 'index.html').read_text()


def test_fewer_messages_than_metadata_rates_is_told_by_the_status(run, tmp_path):
    bag = write_bag(tmp_path / 'bag', two_cameras(2))
    text = (bag / 'metadata.yaml').read_text()
    (bag / 'metadata.yaml').write_text(text.replace('message_count: 4', 'message_count: 40'))
    status, folder, printed = run(bag)
    assert status == WITH_SKIPPED
    assert report_of(folder)['problems']['counts'] == {'fewer messages than declared': 1}
    assert 'declares 40' in printed
    assert 'lost: 36' in printed


def test_depth_and_json_beside_a_camera_are_left_out_without_damage(run, tmp_path):
    messages, maker = [m for m in two_cameras() if m[0] == FRONT], Maker()
    depth = np.full((96, 128), 900, np.uint16)
    messages.append(('/depth/image_raw', RAW, START, maker.raw(depth, '16UC1', START)))
    others = [('/log', 'json', 'jsonschema', 'Log', START + 1, b'{}')]
    path = write_mcap(tmp_path / 'bag.mcap', messages, others=others)
    status, folder, printed = run(path, '--on-error', 'fail')
    assert status == FINE
    report = report_of(folder)
    assert [(row['camera'], row['topic']) for row in report['cameras']] == [('', FRONT)]
    (note,) = report['bag']['notes']
    assert '/depth/image_raw' in note
    assert note in printed
    assert '/depth/image_raw is left out' in (folder / 'index.html').read_text()


def test_labels_of_one_stamp_are_never_compared(run, tmp_path):
    maker, messages = Maker(), []
    for number in range(3):
        image, label = road_image(96, 128, seed=number), np.full((96, 128), number, np.uint8)
        messages.append((FRONT, RAW, START + number, maker.raw(image, 'rgb8', 0)))
        messages.append(('/labels', RAW, START + number, maker.raw(label, 'mono8', 0)))
    status, folder, printed = run(
        write_bag(tmp_path / 'bag', messages), '--ground-truth', '/labels'
    )
    assert status == FAILED
    assert 'same stamp' in printed
    assert not folder.exists()
