# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Each drive judged by the others: shares by hand, and what a dense stretch does to them."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip('torch', reason='the trainer needs torch')

from trainer.evaluation.promise_left_out import Rule, distance, left_out_rates, thresholds

RATES = (0.01, 0.05)


def drive(name, frames, shift, seed):
    rng = np.random.default_rng(seed)
    names = [f'{name}_{frame:05d}' for frame in frames]
    return names, [name] * len(names), [rng.normal(shift, 1, 4000) for _ in names]


def put_together(*drives):
    return tuple([item for one in drives for item in one[part]] for part in range(3))


def test_alike_drives_keep_the_promise_by_any_rule():
    names, sequences, values = put_together(
        *(drive(name, range(0, 600, 30), 0.0, i) for i, name in enumerate('abc'))
    )
    for rule in (Rule('all'), Rule('spaced', 30), Rule('alike', 0, True)):
        rates = left_out_rates(values, names, sequences, rule, rates=RATES)
        assert set(rates) == set('abc')
        np.testing.assert_allclose(list(rates.values()), [RATES] * 3, rtol=0.1)
        assert distance(rates, RATES) < 0.15


def test_a_stretch_labelled_frame_by_frame_outweighs_the_others_unless_spaced():
    frames = [*range(0, 600, 30), *range(600, 700)]
    dense = drive('dense', frames, 0.0, 1)
    for place, frame in enumerate(frames):
        if frame >= 600:  # seconds full of strange things
            dense[2][place] += 1.5
    names, sequences, values = put_together(
        dense, drive('plain', range(0, 600, 30), 0.0, 2), drive('other', range(0, 600, 30), 0.0, 3)
    )
    every = left_out_rates(values, names, sequences, Rule('all'), rates=RATES)
    spaced = left_out_rates(values, names, sequences, Rule('spaced', 30), rates=RATES)
    for name in ('plain', 'other'):
        for first, second, promised in zip(every[name], spaced[name], RATES, strict=True):
            assert 3 * first < second <= promised
    assert distance(spaced, RATES) < distance(every, RATES) - 1


def test_thresholds_are_counted_and_weighted():
    values = [np.arange(100.0), np.arange(100.0, 400.0)]
    # of 400 scores the 5 % largest are 380 and above
    assert thresholds(values, [0, 1], ['a', 'b'], False, [0.05]) == [380.0]
    # drives alike: each b weighs a third of each a, so 5 % are 30 of b
    assert thresholds(values, [0, 1], ['a', 'b'], True, [0.0499]) == [370.0]


def test_distance_is_in_factors_of_two():
    assert distance({'a': [0.01, 0.05], 'b': [0.02, 0.10]}, RATES) == pytest.approx(0.5)
