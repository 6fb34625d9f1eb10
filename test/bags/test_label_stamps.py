# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A label belongs to the frame of its stamp, where one label and one frame have it."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('rosbags')

from bag_files import FRONT, RAW, START, Maker, write_bag

from ood_perception.bags.cameras import CameraTopic
from ood_perception.bags.ground_truth import match_indices, match_stamps, open_ground_truth
from ood_perception.bags.problems import BAD_LABEL, Problems
from ood_perception.bags.reading import Bag, Limits
from ood_perception.errors import DataError
from ood_perception.types import Frame

FRAMES = [START + number * 100_000_000 + 123_456 for number in range(4)]
BIG_ENDIAN = np.dtype('>u4')


def open_truth(tmp_path, frames, labels, entry='/labels', on_error='skip'):
    """Return (values of the first label pixel by frame, None without; problems) of a bag."""
    maker, messages = Maker(), []
    photo = np.zeros((8, 8, 3), np.uint8)
    for number, stamp in enumerate(frames):
        messages.append((FRONT, RAW, START + number, maker.raw(photo, 'rgb8', stamp)))
    for number, stamp in enumerate(labels):
        pixels = np.full((8, 8), number, np.uint8)
        pixels[-1] = 1  # labels without an anomaly are refused
        messages.append(('/labels', RAW, START + 100 + number, maker.raw(pixels, 'mono8', stamp)))
    path, problems = write_bag(tmp_path / 'bag', messages), Problems(on_error)
    camera = CameraTopic('', FRONT, RAW, len(frames))
    with Bag(path, problems, Limits(), tmp_path) as bag:
        truth = open_ground_truth([entry], bag, [camera])
        found = [truth[''].label(Frame(photo, '', s), n) for n, s in enumerate(frames)]
    return [None if label is None else int(label[0, 0]) for label in found], problems


@pytest.mark.parametrize('order', [[0, 1, 2, 3], [3, 1, 0, 2]])
def test_labels_match_by_stamp_in_any_order(tmp_path, order):
    found, problems = open_truth(tmp_path, FRAMES, [FRAMES[n] for n in order])
    assert found == [order.index(n) for n in range(4)]
    assert not problems


def test_a_topic_without_its_slash_is_one(tmp_path):
    assert open_truth(tmp_path, FRAMES, FRAMES, 'labels')[0] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ('frames', 'labels', 'words'),
    [
        ([0] * 4, [0] * 4, r'4 of 4 labels .* same stamp \(as 0, 4 labels and 4 frames'),
        (FRAMES, [0] * 4, r'no stamp of a frame.*nearest'),
        ([0] * 4, FRAMES, r'4 of 4 stamps'),
        ([5, 5], [5], r'as 5, 1 labels and 2 frames'),
        (FRAMES[:1], [FRAMES[0]] * 3, r'3 of 3 labels'),
        (FRAMES, [s // 10**6 * 10**6 for s in FRAMES], r'0\.000123456 s .*to milliseconds'),
        (FRAMES, [s // 10**9 * 10**9 for s in FRAMES[:1]], r'to seconds'),
        (FRAMES, [s // 1000 * 1000 for s in FRAMES], r'4\.56e-07 s .*to microseconds'),
        (FRAMES, [s + 5_000_000 for s in FRAMES], r'0\.005 s apart'),
        (FRAMES, [s + 3600 * 10**9 for s in FRAMES], r'3599\.7 s apart'),
    ],
)
def test_labels_that_cannot_be_matched_are_an_error_with_the_reason(
    tmp_path, frames, labels, words
):
    with pytest.raises(DataError, match=words) as caught:
        open_truth(tmp_path, frames, labels)
    assert '000000.png' in str(caught.value)


def test_stamps_that_repeat_match_nothing_and_the_others_do(tmp_path):
    labels = [FRAMES[0], FRAMES[1], FRAMES[1], FRAMES[2]]
    found, problems = open_truth(tmp_path, FRAMES, labels)
    assert found == [0, None, 3, None]
    assert problems.counts == {BAD_LABEL: 1}
    assert '2 of 4 labels cannot be matched' in problems.told[0].text
    assert str(FRAMES[1]) in problems.told[0].text


def test_frames_of_one_stamp_get_no_label(tmp_path):
    frames = [FRAMES[0], FRAMES[1], FRAMES[1], FRAMES[3]]
    found, problems = open_truth(tmp_path, frames, FRAMES[:2])
    assert found == [0, None, None, None]
    assert problems.counts == {BAD_LABEL: 1}


def test_labels_without_a_frame_are_counted_with_the_nearest_distance(tmp_path):
    found, problems = open_truth(tmp_path, FRAMES[:3], [*FRAMES[:3], FRAMES[3], FRAMES[2] + 7000])
    assert found == [0, 1, 2]
    assert problems.counts == {BAD_LABEL: 1}
    assert '2 of 5 stamps' in problems.told[0].text
    assert '7e-06 s apart' in problems.told[0].text


def write_labels(folder, names):
    import cv2

    folder.mkdir()
    for number, name in enumerate(names):
        pixels = np.full((8, 8), number, np.uint8)
        pixels[-1] = 1  # labels without an anomaly are refused
        cv2.imwrite(str(folder / name), pixels)
    return str(folder)


def test_files_named_by_rounded_stamps_are_told(tmp_path):
    names = [f'{stamp // 10**6 * 10**6}.png' for stamp in FRAMES]
    with pytest.raises(DataError, match=r'rounded to milliseconds'):
        open_truth(tmp_path, FRAMES, [], write_labels(tmp_path / 'labels', names))


def test_an_index_that_no_frame_has_is_told(tmp_path):
    folder = write_labels(tmp_path / 'labels', ['000001.png', '000004.png'])
    found, problems = open_truth(tmp_path, FRAMES, [], folder)
    assert found == [None, 0, None, None]
    assert problems.counts == {BAD_LABEL: 1}
    assert '000004.png' in problems.told[0].text
    with pytest.raises(DataError, match=r'1 of 1 labels .*4 frames'):
        match_indices({4: Path('000004.png')}, 4, 'labels')


@pytest.mark.parametrize(
    ('names', 'words'),
    [
        (['1.png', '000001.png'], 'of the same frame'),
        ([f'{START}.png', f'{START // 10**9}_{START % 10**9:09d}.png'], 'of the same frame'),
        ([], 'holds no label'),
    ],
)
def test_a_folder_that_is_ambiguous_or_empty_is_refused(tmp_path, names, words):
    with pytest.raises(DataError, match=words):
        open_truth(tmp_path, FRAMES, [], write_labels(tmp_path / 'labels', names))


def test_what_is_matched_is_what_is_unique_on_both_sides():
    """Against the definition, on random stamps."""
    generator = np.random.default_rng(5)
    for _ in range(50):
        frames = generator.integers(0, 12, 10).tolist()
        stamps = generator.integers(0, 12, 8).tolist()
        labels = {s: [Path(str(n)) for n, t in enumerate(stamps) if t == s] for s in stamps}
        expected = {
            s for s in range(12) if stamps.count(s) == 1 and frames.count(s) == 1
        }  # fmt: skip
        try:
            matched, texts = match_stamps(labels, frames, 'labels')
        except DataError:
            matched, texts = {}, ['error']
        assert set(matched) == expected
        assert bool(texts) == (len(expected) < len(stamps))
