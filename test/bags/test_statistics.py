# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The few highest, against sorting them all; drawing happens only for what may stay."""

import numpy as np
import pytest

from ood_perception.bags.statistics import Highest


@pytest.mark.parametrize('most', [0, 1, 4, 50])
def test_what_is_kept_is_the_head_of_a_stable_sort(most):
    ranks = np.random.default_rng(most).integers(0, 6, 30).tolist()  # many are equal
    highest, drawn = Highest(most), []
    for place, rank in enumerate(ranks):
        highest.add(rank, lambda place=place: drawn.append(place) or place)
    everything = sorted(range(30), key=lambda place: -ranks[place])
    assert highest.items == everything[:most]
    assert set(highest.items) <= set(drawn)
    assert len(drawn) < 30 or most >= 30


def test_a_rank_that_is_not_higher_draws_nothing():
    highest = Highest(1)
    highest.add(2.0, lambda: 'first')
    highest.add(2.0, lambda: pytest.fail('drawn'))
    assert highest.items == ['first']
