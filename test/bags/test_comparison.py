# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Counting what equals, differs, was dropped or is foreign; and the small parts of a replay."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from ood_perception.bags.comparison import (
    all_equal,
    compare_masks,
    mask_digest,
    offline_cameras,
    summary,
    write_comparison,
)
from ood_perception.bags.ground_truth import read_folder
from ood_perception.bags.problems import BAD_FRAME, DAMAGED_FILE, FAIL, SKIP, Problems
from ood_perception.errors import ConfigError, DataError

OFFLINE = [(1, b'a'), (2, b'b'), (3, b'a'), (4, b'c')]


@pytest.mark.parametrize(
    ('live', 'counts', 'fine'),
    [
        (OFFLINE, (4, 4, 0, 0, 0), True),
        (OFFLINE[::-1], (4, 4, 0, 0, 0), True),
        ([(2, b'b'), (4, b'c')], (2, 2, 0, 2, 0), True),
        ([(1, b'a'), (2, b'a')], (2, 1, 1, 2, 0), False),
        ([(1, b'a'), (9, b'a')], (1, 1, 0, 3, 1), False),
        ([], (0, 0, 0, 4, 0), False),
    ],
)
def test_masks_are_compared_by_their_stamps(live, counts, fine):
    row = compare_masks('front', OFFLINE, live)
    assert (row.live, row.equal, row.different, row.dropped, row.foreign) == counts
    assert row.offline == 4
    assert all_equal([row]) == fine
    assert ('all equal' in summary([row])) == fine


def test_a_camera_that_is_silent_is_no_success():
    rows = [compare_masks('front', OFFLINE, OFFLINE), compare_masks('left', OFFLINE, [])]
    assert not all_equal(rows)
    assert 'no mask came of left' in summary(rows)


def test_two_frames_of_one_stamp_may_each_be_meant():
    offline = [(0, b'a'), (0, b'b')]
    assert compare_masks('', offline, [(0, b'b'), (0, b'a')]).equal == 2
    assert compare_masks('', offline, [(0, b'c')]).stamps_that_differ == (0,)


def message(pixels):
    height, width = pixels.shape
    return SimpleNamespace(width=width, height=height, encoding='mono8', data=pixels.tobytes())


def test_a_digest_is_of_every_pixel_and_the_size():
    mask = np.zeros((4, 6), np.uint8)
    other = mask.copy()
    other[3, 5] = 1
    digests = {mask_digest(message(m)) for m in (mask, other, mask.T.copy(), mask.reshape(2, 12))}
    assert len(digests) == 4
    assert mask_digest(message(mask.copy())) == mask_digest(message(mask))


def test_the_comparison_is_written_for_people_and_programs(tmp_path):
    rows = [compare_masks('front', OFFLINE, OFFLINE[:3])]
    write_comparison(tmp_path / 'live', rows, {'Bag': '<b>'}, {'camera front': {'dropped': '1'}})
    record = json.loads((tmp_path / 'live' / 'live.json').read_text())
    assert record['equal'] is True
    assert record['cameras'][0]['dropped'] == 1
    page = (tmp_path / 'live' / 'live.html').read_text()
    assert '1 (25%)' in page
    assert '&lt;b&gt;' in page


def test_a_folder_that_is_no_result_is_named(tmp_path):
    with pytest.raises(DataError, match='evaluate_bag --out'):
        offline_cameras(tmp_path)


def test_problems_are_refused_or_counted_once_for_the_whole_bag():
    frame, file = (BAD_FRAME, 'a', 'text'), (DAMAGED_FILE, 'b', 'cut off')
    with pytest.raises(DataError, match=r'text .*--on-error skip'):
        Problems(FAIL).add(*frame)
    problems = Problems(SKIP)
    assert not problems
    for problem in (frame, frame, file, file):
        problems.add(*problem)
    assert problems.counts == {BAD_FRAME: 2, DAMAGED_FILE: 1}
    for _ in range(100):
        problems.add(*frame)
    assert len(problems.told) < 30, 'a report holds the first texts, memory stays flat'
    with pytest.raises(ConfigError, match="'ignore'"):
        Problems('ignore')


def test_labels_are_named_by_stamp_or_index(tmp_path):
    for name in ('1700000000000000005', '1700000001_000000007', '1700000002.000000009', '000012'):
        (tmp_path / f'{name}.png').write_bytes(b'')
    (tmp_path / 'notes.txt').write_text('not a label')
    folder = read_folder(tmp_path)
    assert set(folder.by_stamp) == {
        1700000000000000005, 1700000001000000007, 1700000002000000009,
    }  # fmt: skip
    assert set(folder.by_index) == {12}
    (tmp_path / 'left_turn.png').write_bytes(b'')
    with pytest.raises(DataError, match='left_turn'):
        read_folder(tmp_path)
