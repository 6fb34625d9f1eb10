# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A level that changes the head is taken where it finds pasted objects better, by a margin."""

from __future__ import annotations

import numpy as np
import pytest

from ood_perception.adapt.blocks import Rate, rate_over_blocks, stretches
from ood_perception.adapt.curves import Cleaned
from ood_perception.adapt.levels import CURVES, JOINED, TOKENS, Level, taken
from ood_perception.metrics.pixel import scored_image


def level(name, lift, observed=0.01, seed=0):
    """Return a level whose objects score `lift` higher than its ground, on twelve frames."""
    rates = [Rate(0.01, observed, 0.0, 1.0, 0.1, 10, 1, 100)]
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(12):
        labels = (np.arange(2000) < 60).astype(np.uint8)
        images.append(
            scored_image((rng.normal(0, 1, 2000) + lift * labels).astype(np.float32), labels)
        )
    return Level(name, Cleaned((), (), 0.0, 0.0), rates, images)


def test_the_better_one_is_taken_and_what_each_finds_is_said():
    best, facts = taken([level(CURVES, 1.5), level(TOKENS, 1.6), level(JOINED, 3.0)], 'auto')
    assert best.name == JOINED
    low, high = facts[JOINED]['gain']
    assert 2 < low < high
    assert facts[CURVES]['objects_average_precision'] < facts[JOINED]['objects_average_precision']


@pytest.mark.parametrize('lift', [1.0, 1.5, 1.52])
def test_curves_stay_where_nothing_is_better_by_two_points(lift):
    best, _ = taken([level(CURVES, 1.5), level(TOKENS, lift)], 'auto')
    assert best.name == CURVES


@pytest.mark.parametrize(('observed', 'name'), [(0.12, CURVES), (0.018, TOKENS)])
def test_a_level_that_flags_too_much_of_stretches_it_has_not_seen_is_not_taken(observed, name):
    best, _ = taken([level(CURVES, 1.5), level(TOKENS, 3.0, observed)], 'auto')
    assert best.name == name


def test_a_level_that_was_asked_for_is_taken():
    best, _ = taken([level(CURVES, 3.0), level(TOKENS, 1.0)], TOKENS)
    assert best.name == TOKENS


def test_without_pasted_objects_the_curves_are_taken():
    bare = Level(CURVES, Cleaned((), (), 0.0, 0.0), [], [])
    best, facts = taken([bare, Level(TOKENS, bare.clean, [], [])], 'auto')
    assert best is bare
    assert facts[TOKENS]['objects_average_precision'] is None


def test_the_interval_of_alike_neighbours_is_wider_than_that_of_as_many_draws():
    rng = np.random.default_rng(0)
    pixels = np.full(400, 1000.0)
    draws = rng.poisson(10, 400).astype(float)
    alike = np.repeat(rng.gamma(1, 10, 20), 20)
    narrow, wide = (rate_over_blocks(0.01, one, one, pixels) for one in (draws, alike))
    assert wide.high - wide.low > 5 * (narrow.high - narrow.low)
    assert wide.block >= 16
    assert wide.effective < 5000 < 100_000 < narrow.effective


@pytest.mark.parametrize('block', [1, 20])
def test_the_interval_holds_the_rate_as_often_as_it_says(block):
    held = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        flagged = np.repeat(rng.gamma(2, 5, 400 // block), block)  # mean 10 of 1000
        rate = rate_over_blocks(0.01, flagged, flagged, np.full(400, 1000.0))
        held += rate.low <= 0.01 <= rate.high
    assert held > 0.88 * 150


def test_stretches_are_contiguous_and_alike():
    parts = stretches(23)
    assert np.bincount(parts).tolist() == [5, 5, 4, 5, 4]
    assert (np.diff(parts) >= 0).all()
    assert stretches(3).tolist() == [0, 1, 2]
