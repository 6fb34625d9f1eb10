# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Which images calibrate: of one moment one, from several stretches of a drive."""

from itertools import pairwise
from pathlib import Path

import pytest

from ood_perception.errors import DataError
from trainer.data.images import ClassMap, ImageList
from trainer.data.splits import spaced_places, split_contiguous
from trainer.datasets import SETS


def test_images_of_one_moment_count_once_in_each_sequence():
    names = ['a_0030', 'a_0000', 'a_0014', 'b_0010', 'a_0016', 'a_0060', 'b_0039', 'b_0040']
    sequences = [name[0] for name in names]
    # a: 0, 30, 60 (14 and 16 are near 0); b: 10, 40 (39 is 29 frames from 10)
    assert spaced_places(names, sequences, 30) == [0, 1, 3, 5, 7]
    assert spaced_places(names, sequences, 0) == list(range(len(names)))
    assert spaced_places(names, sequences, 1) == list(range(len(names)))


def test_every_image_left_out_has_a_kept_neighbour():
    names = [f'x_{value:05d}' for value in (5, 6, 7, 40, 41, 90, 119, 120, 121)]
    kept = spaced_places(names, ['x'] * len(names), 30)
    frames = [int(names[i][2:]) for i in kept]
    assert all(later - first >= 30 for first, later in pairwise(frames))
    for name in names:
        assert min(abs(int(name[2:]) - frame) for frame in frames) < 30


def test_a_name_without_a_number_is_refused():
    with pytest.raises(DataError, match='calibration_spacing'):
        spaced_places(['street'], [''], 30)


def drives(**images):
    names = [f'{drive}_{i:03d}' for drive, count in images.items() for i in range(count)]
    paths = tuple(Path(name) for name in names)
    classes = ClassMap(('any',), ((0, 0, 0),), {0: 0})
    return ImageList(tuple(names), paths, (), tuple(name[0] for name in names), classes)


def test_every_stretch_of_a_drive_gives_its_end():
    fit, held_out = split_contiguous(drives(a=40, b=3), 0.2, blocks=4)
    ends = [f'a_{i:03d}' for first in (8, 18, 28, 38) for i in (first, first + 1)]
    # b is too short for two stretches of two
    assert list(held_out.names) == [*ends, 'b_002']
    assert sorted((*fit.names, *held_out.names)) == sorted(drives(a=40, b=3).names)


@pytest.mark.parametrize('count', [2, 5, 17, 40])
def test_one_stretch_is_the_end_of_the_drive(count):
    fit, held_out = split_contiguous(drives(a=count), 0.25)
    number = max(1, round(0.25 * count))
    assert held_out.names == drives(a=count).names[-number:]
    assert fit.names == drives(a=count).names[:-number]


def names_only(sequences: list[str]) -> ImageList:
    names = tuple(f'{s}_{i}' for i, s in enumerate(sequences))
    paths = tuple(Path(name) for name in names)
    return ImageList(names, paths, paths, tuple(sequences), SETS['camvid'].class_map)


def test_the_split_takes_the_end_of_every_sequence():
    counts = {'0001TP': 62, '0006R0': 101, '0016E5': 204}
    images = names_only([s for s, n in counts.items() for _ in range(n)])
    fit, held_out = split_contiguous(images, 0.25)
    assert len(fit) + len(held_out) == 367
    for sequence, count in counts.items():
        members = [n for n in images.names if n.startswith(sequence)]
        kept = [n for n in fit.names if n.startswith(sequence)]
        last = [n for n in held_out.names if n.startswith(sequence)]
        assert kept + last == members
        assert len(last) == round(count * 0.25)


def test_the_split_handles_interleaved_and_refuses_single_images():
    fit, held_out = split_contiguous(names_only(['a', 'b', 'a', 'b']), 0.5)
    assert (fit.names, held_out.names) == (('a_0', 'b_1'), ('a_2', 'b_3'))
    with pytest.raises(DataError, match="'b' has one image"):
        split_contiguous(names_only(['a', 'a', 'b']), 0.5)
    with pytest.raises(DataError, match='between 0 and 1'):
        split_contiguous(names_only(['a', 'a']), 1.0)


def test_single_images_may_be_kept_and_nothing_may_be_held_out():
    images = names_only(['a', 'a', 'b', 'c', 'c', 'c'])
    fit, held_out = split_contiguous(images, 0.34, keep_single=True)
    assert (fit.sequences, held_out.sequences) == (('a', 'b', 'c', 'c'), ('a', 'c'))
    whole, nothing = split_contiguous(images, 0.0)
    assert (len(whole), len(nothing)) == (6, 0)
    with pytest.raises(DataError, match='no sequence has two images'):
        split_contiguous(names_only(['a', 'b']), 0.5, keep_single=True)
