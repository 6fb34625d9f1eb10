# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Pictures of one moment count once."""

from itertools import pairwise

import pytest

from ood_perception.errors import DataError
from trainer.spacing import spaced_places


def test_pictures_of_one_moment_count_once_in_each_sequence():
    names = ['a_0030', 'a_0000', 'a_0014', 'b_0010', 'a_0016', 'a_0060', 'b_0039', 'b_0040']
    sequences = [name[0] for name in names]
    # a: 0, 30, 60 (14 and 16 are near 0); b: 10, 40 (39 is 29 frames from 10)
    assert spaced_places(names, sequences, 30) == [0, 1, 3, 5, 7]
    assert spaced_places(names, sequences, 0) == list(range(len(names)))
    assert spaced_places(names, sequences, 1) == list(range(len(names)))


def test_every_picture_left_out_has_a_kept_neighbour():
    names = [f'x_{value:05d}' for value in (5, 6, 7, 40, 41, 90, 119, 120, 121)]
    kept = spaced_places(names, ['x'] * len(names), 30)
    frames = [int(names[i][2:]) for i in kept]
    assert all(later - first >= 30 for first, later in pairwise(frames))
    for name in names:
        assert min(abs(int(name[2:]) - frame) for frame in frames) < 30


def test_a_name_without_a_number_is_refused():
    with pytest.raises(DataError, match='calibration_spacing'):
        spaced_places(['street'], [''], 30)
