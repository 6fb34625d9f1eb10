# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""False obstacles counted by hand, bounds against closed forms and simulation, and the choice."""

from __future__ import annotations

import numpy as np
import pytest

from ood_perception.errors import ConfigError, DataError
from ood_perception.image.geometry import geometry_for
from ood_perception.metrics.false_obstacles import (
    RATES,
    AlarmCounter,
    AlarmCounts,
    false_components,
    normal_cells,
)
from ood_perception.metrics.operating_point import (
    AlarmRates,
    Wanted,
    alarm_rates,
    frames_needed,
    frontier,
    poisson_upper,
    recommended,
)
from ood_perception.postprocess.mask import find_components, make_mask, obstacles_of
from ood_perception.postprocess.tracking import Persistence
from ood_perception.types import Detection, Frame

SIZE, GRID = (60, 80), (30, 40)  # a cell covers 2 x 2 = 4 camera pixels
GEOMETRY = geometry_for(SIZE, SIZE)
TENTH = 100_000_000


def detection(patches, number=0, camera='', scored=None):
    """Return a detection; patches: (row, column, height, width, surprisal) in cells."""
    surprisal = np.full(GRID, 0.2, np.float32)
    for row, column, height, width, value in patches:
        surprisal[row : row + height, column : column + width] = value
    scored = np.ones(GRID, bool) if scored is None else scored
    mask, components = make_mask(surprisal, scored, 0.01)
    frame = Frame(np.zeros((*SIZE, 3), np.uint8), camera, number * TENTH)
    obstacles = obstacles_of(components, GEOMETRY)
    labels = np.zeros(GRID, np.uint8)
    return Detection(frame, surprisal, labels, scored, mask, obstacles, GEOMETRY, 0.01)


def counts_of(numbers, groups=None, distinct=False):
    """Return counts at one rate and one area."""
    counts = np.array(numbers, np.int32).reshape(-1, 1, 1)
    return AlarmCounts((0.01,), (0.0,), counts, tuple(groups or [''] * len(numbers)), distinct)


def test_counts_of_one_frame_by_hand():
    counter = AlarmCounter((0.001, 0.05, 0.01), (24, 0, 25))
    # 6 cells = 24 pixels at surprisal 2.5; 1 cell at 1.5; 4 cells = 16 pixels at 3.5
    counter.add(detection([(2, 2, 2, 3, 2.5), (10, 10, 1, 1, 1.5), (20, 20, 2, 2, 3.5)]))
    got = counter.result()
    assert got.rates == (0.05, 0.01, 0.001)
    assert got.areas == (0, 24, 25)
    np.testing.assert_array_equal(got.counts[0], [[3, 1, 0], [2, 1, 0], [1, 0, 0]])


def test_counts_are_the_pipelines_own_obstacles():
    """At every pair the count is the number of obstacles that make_mask would leave."""
    rng = np.random.default_rng(0)
    scored = np.zeros(GRID, bool)
    scored[8:, 3:] = True
    areas = (0.0, 8.0, 20.0, 60.0)
    counter = AlarmCounter(RATES, areas)
    for number in range(12):
        patches = [
            (*rng.integers(0, (26, 36)), *rng.integers(1, 5, 2), rng.uniform(1, 6))
            for _ in range(9)
        ]
        frame = detection(patches, number, scored=scored)
        counter.add(frame)
        for row, rate in enumerate(counter.rates):
            for column, area in enumerate(areas):
                _, components = make_mask(
                    frame.surprisal, scored, rate, minimum_area=area, cell_area=4.0
                )
                expected = len(obstacles_of(components, GEOMETRY))
                assert counter.result().counts[number, row, column] == expected


def test_a_false_obstacle_is_mostly_in_distribution_by_the_labels():
    mask = np.zeros(GRID, bool)
    mask[2:4, 2:6] = mask[10:12, 2:6] = mask[20:22, 2:6] = mask[26:28, 2:6] = True
    normal = np.ones(GRID, np.int8)
    normal[2:4, 2:4] = 0  # half car: a tie is no false obstacle
    normal[10, 2:4] = 0  # a quarter car
    normal[20:22] = -1  # nothing known
    normal[26:28, 2:5] = -1  # two known cells, both road
    components = find_components(mask, np.ones(GRID, np.float32))
    assert false_components(components, normal).tolist() == [False, True, False, True]
    assert false_components(components, None).tolist() == [True] * 4


def test_labels_come_to_the_cells_as_the_network_sees_them():
    labels = np.full(SIZE, 3, np.uint8)
    labels[:, 40:] = 8
    labels[:30] = 255
    cells = normal_cells(labels, [3, 4], 11, GEOMETRY, GRID)
    assert (cells[:15] == -1).all()
    assert (cells[15:, :20] == 1).all()
    assert (cells[15:, 20:] == 0).all()


def test_a_lasting_obstacle_counts_once_when_distinct():
    counter = AlarmCounter((0.01,), (0.0, 100.0), Persistence(3, 2))
    here, there = (5, 5, 2, 2, 3.0), (20, 30, 6, 6, 3.0)
    shown = [[here], [here], [here, there], [there], [], [], [], [here], [here], [there]]
    for number, patches in enumerate(shown):
        counter.add(detection(patches, number))
    got = counter.result()
    assert got.distinct
    assert got.counts[:, 0, 0].tolist() == [0, 1, 0, 1, 0, 0, 0, 0, 1, 0]
    assert got.counts[:, 0, 1].tolist() == [0, 0, 0, 1, 0, 0, 0, 0, 0, 0]


def test_distinct_cars_are_not_counted_and_cameras_are_apart():
    counter = AlarmCounter((0.01,), (0.0,), Persistence(2, 1))
    normal = np.ones(GRID, np.int8)
    normal[:15] = 0
    frame = [(5, 5, 2, 2, 3.0), (20, 30, 2, 2, 3.0)]
    for number in range(3):
        counter.add(detection(frame, number, 'front'), normal)
        counter.add(detection(frame, number, 'rear'), normal)
    got = counter.result()
    assert got.groups == ('front', 'rear') * 3
    assert got.counts[:, 0, 0].tolist() == [1, 1, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ('rates', 'areas'), [((), (0,)), ((0.01,), ()), ((0.01,), (-1,)), ((1.5,), (0,))]
)
def test_grids_without_sense_are_refused(rates, areas):
    with pytest.raises(ConfigError):
        AlarmCounter(rates, areas)
    with pytest.raises(ConfigError, match='window of 2'):
        AlarmCounter(persistence=Persistence())
    with pytest.raises(DataError, match='no frame'):
        AlarmCounter().result()


@pytest.mark.parametrize(
    ('count', 'level', 'expected'),
    # chi-squared tables: 0.5 * chi2.ppf(level, 2 (count + 1))
    [(0, 0.95, 2.995732), (1, 0.95, 4.743865), (5, 0.95, 10.513035), (0, 0.99, 4.605170),
     (20, 0.95, 29.062041), (150, 0.95, 171.752)],
)  # fmt: skip
def test_poisson_bounds_are_the_published_ones(count, level, expected):
    stats = pytest.importorskip('scipy.stats')
    assert poisson_upper(count, level) == pytest.approx(
        stats.chi2.ppf(level, 2 * (count + 1)) / 2, rel=1e-9
    )
    if count != 150:
        assert poisson_upper(count, level) == pytest.approx(expected, rel=1e-6)


def test_no_alarm_is_the_rule_of_three():
    """Distinct: 3 / n. Every frame anew: a whole block may be alike, so 3 blocks' worth."""
    once = alarm_rates(counts_of([0] * 300, distinct=True), block=10)
    anew = alarm_rates(counts_of([0] * 300), block=10)
    assert once.mean[0, 0] == anew.mean[0, 0] == 0
    assert once.upper[0, 0] == pytest.approx(2.9957 / 300, rel=1e-4)
    assert anew.upper[0, 0] == pytest.approx(2.9957 / 30, rel=1e-4)
    assert (anew.frames, anew.blocks) == (300, 30)


def test_blocks_do_not_cross_groups():
    rates = alarm_rates(counts_of([0] * 25, ['a'] * 13 + ['b'] * 12), block=5)
    assert rates.blocks == 3 + 3
    turns = alarm_rates(counts_of([0] * 24, ['left', 'right'] * 12), block=6)
    assert turns.blocks == 2 + 2, 'cameras that alternate'


def test_blocks_of_one_frame_agree_with_the_plain_interval():
    rng = np.random.default_rng(0)
    numbers = rng.poisson(2.0, 4000)
    rates = alarm_rates(counts_of(numbers), block=1)
    mean, error = numbers.mean(), numbers.std() / np.sqrt(4000)
    assert rates.mean[0, 0] == mean
    assert rates.low[0, 0] == pytest.approx(mean - 1.96 * error, abs=0.15 * error)
    assert rates.high[0, 0] == pytest.approx(mean + 1.96 * error, abs=0.15 * error)
    assert rates.upper[0, 0] >= mean + 1.5 * error


@pytest.mark.parametrize('per_block', [0.02, 0.1, 0.6])
@pytest.mark.parametrize('distinct', [True, False])
def test_the_upper_bound_holds_in_simulation_with_neighbours_alike(per_block, distinct):
    """Runs of alarms as long as a block: the bound lies above the truth in 95 of 100 drives."""
    rng = np.random.default_rng(7)
    drives, blocks, block = 100, 40, 8
    held = 0
    for _ in range(drives):
        events = rng.poisson(per_block, blocks)
        frames = np.zeros((blocks, block), int)
        frames[:, 0] = events
        if not distinct:
            frames[:] = events[:, None]
        rates = alarm_rates(counts_of(frames.ravel(), distinct=distinct), block, resamples=200)
        truth = per_block * (1 / block if distinct else 1)
        held += rates.upper[0, 0] >= truth
    # Where several events share a block the bound leans on the bootstrap, a little too tight.
    assert held / drives >= 0.89, held / drives


def test_the_naive_bound_would_not_hold_there():
    """What blocks are for: with frames drawn one by one the same bound fails often."""
    rng = np.random.default_rng(7)
    held = 0
    for _ in range(100):
        frames = np.repeat(rng.poisson(0.1, 40), 8)
        held += alarm_rates(counts_of(frames), 1, resamples=200).upper[0, 0] >= 0.1
    assert held < 90


@pytest.mark.parametrize(
    ('text', 'fps', 'per_frame'),
    [
        ('1/hour', 10, 1 / 36000),
        ('2/minute', 10, 2 / 600),
        ('0.01/frame', 30, 0.01),
        (' 3 / days', 1, 3 / 86400),
        ('1e-1/second', 5, 0.02),
    ],
)
def test_wanted_rates_are_read(text, fps, per_frame):
    assert Wanted.parse(text).per_frame(fps) == pytest.approx(per_frame)


@pytest.mark.parametrize(
    'text', ['', 'one/hour', '1', '1/week', '0/hour', '-1/hour', '1.2.3/hour']
)
def test_other_texts_are_refused_with_an_example(text):
    with pytest.raises(ConfigError, match='1/hour'):
        Wanted.parse(text)


def grid_of(upper):
    upper = np.array(upper, float)
    rates, areas = (0.05, 0.01, 0.001), (0.0, 50.0, 200.0)
    zeros = np.zeros_like(upper)
    return AlarmRates(rates, areas, upper / 2, zeros, upper, upper, 100, 10, 10, False)


def test_the_frontier_holds_the_least_strict_pairs():
    rates = grid_of([[9, 5, 0.5], [3, 0.9, 0.2], [0.8, 0.2, 0.1]])
    pairs = [(c.rate, c.area) for c in frontier(rates, 1.0)]
    assert pairs == [(0.05, 200), (0.01, 50), (0.001, 0)]
    assert [(c.rate, c.area) for c in frontier(rates, 6.0)] == [(0.05, 50), (0.01, 0)]
    assert frontier(rates, 0.01) == []
    assert all(c.upper <= 1.0 for c in frontier(rates, 1.0))


def test_a_smaller_area_that_only_seems_to_keep_the_rate_is_not_taken():
    rates = grid_of([[9, 9, 9], [0.9, 2.0, 0.9], [0.5, 0.5, 0.5]])
    assert [(c.rate, c.area) for c in frontier(rates, 1.0)] == [(0.01, 200), (0.001, 0)]


def test_a_loose_rate_whose_blobs_grew_together_is_not_taken():
    rates = grid_of([[0.8, 0.7, 0.1], [3, 2, 0.2], [0.5, 0.5, 0.3]])
    pairs = [(c.rate, c.area) for c in frontier(rates, 1.0)]
    assert pairs == [(0.05, 200), (0.001, 0)]


def test_the_recommended_pair_loses_nothing_above_a_patch_where_it_can():
    choices = frontier(grid_of([[9, 5, 0.5], [3, 0.9, 0.2], [0.8, 0.2, 0.1]]), 1.0)
    assert recommended(choices, 400).rate == 0.05
    assert recommended(choices, 100).rate == 0.01
    assert recommended(choices, 10).rate == 0.001
    only_large = frontier(grid_of([[9, 9, 0.5], [9, 9, 0.4], [9, 0.9, 0.4]]), 1.0)
    assert recommended(only_large, 10).area == 50, 'the smallest there is'
    assert recommended([], 10) is None


def test_frames_needed_rate_exactly_what_is_wanted():
    wanted = Wanted.parse('1/hour').per_frame(10)
    needed = frames_needed(wanted, 10, distinct=True)
    assert needed == pytest.approx(3 * 3600 * 10, rel=2e-3), 'three hours'
    assert frames_needed(wanted, 10, distinct=False) == pytest.approx(10 * needed, rel=1e-4)
    small = Wanted.parse('2/second').per_frame(10)
    count = frames_needed(small, 5, distinct=True)
    assert alarm_rates(counts_of([0] * count, distinct=True), 5).upper[0, 0] <= small
    assert alarm_rates(counts_of([0] * (count - 1), distinct=True), 5).upper[0, 0] > small


def test_a_larger_area_is_never_bounded_worse():
    """Nothing seen above an area may not state less than the few seen below it."""
    counts = np.zeros((50, 1, 3), np.int32)
    counts[3, 0, 0] = counts[4, 0, 0] = 1
    rates = alarm_rates(AlarmCounts((0.01,), (0.0, 10.0, 20.0), counts, ('',) * 50), 10)
    np.testing.assert_allclose(rates.upper[0], 4.743865 * 2 / 50, rtol=1e-6)


def test_a_stricter_rate_without_an_alarm_is_never_bounded_worse_than_a_looser_one():
    counts = np.zeros((50, 3, 1), np.int32)
    counts[3, 0, 0] = 1
    rates = alarm_rates(AlarmCounts((0.05, 0.01, 0.001), (0.0,), counts, ('',) * 50), 10)
    np.testing.assert_allclose(rates.upper[:, 0], 4.743865 / 50, rtol=1e-6)
