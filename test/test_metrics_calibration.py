# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The calibration curve against the three-rate table, and on p-values whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from ood_perception.errors import ConfigError, DataError
from ood_perception.evaluation.calibration import (
    CURVE_RATES,
    calibration_curves,
    count_alarm_curve,
)
from ood_perception.metrics.bootstrap import percentile_interval, resample_weights
from ood_perception.metrics.false_alarm_rate import count_alarms

NAMES = ('road', 'pavement', 'car')


def random_picture(seed, shape=(40, 50)):
    """Return surprisal of uniform p-values (cars are stranger), labels with void."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, shape).astype(np.uint8)
    surprisal = -np.log10(rng.random(shape)) * np.where(labels == 2, 3, 1)
    if seed % 3 == 0:
        surprisal = np.minimum(np.round(surprisal, 1), 2)
    labels[rng.random(shape) < 0.1] = 255
    return surprisal.astype(np.float32), labels


def test_many_rates_in_one_pass_count_like_one_at_a_time():
    for seed in range(210):
        surprisal, labels = random_picture(seed, (8, 9))
        got = count_alarm_curve(surprisal, labels, 3, CURVE_RATES, 'a')
        wanted = count_alarms(surprisal, labels, 3, CURVE_RATES, 'a')
        np.testing.assert_array_equal(got.flagged, wanted.flagged)
        np.testing.assert_array_equal(got.pixels, wanted.pixels)
        assert got.group == 'a'


def test_uniform_p_values_are_flagged_at_the_promised_rate():
    pictures = [count_alarm_curve(*random_picture(seed), 3) for seed in range(1, 60, 3)]
    curves = calibration_curves(pictures, NAMES, ('road', 'pavement'), resamples=200)
    pooled = curves['pooled']
    spread = np.sqrt(pooled.promised / pooled.pixels)
    assert np.all(np.abs(pooled.observed - pooled.promised) < 4.5 * spread)
    assert np.all((pooled.low <= pooled.observed) & (pooled.observed <= pooled.high))
    assert pooled.pixels == curves['road'].pixels + curves['pavement'].pixels
    assert curves['car'].worst_factor > 3 > pooled.worst_factor


def test_intervals_are_those_of_drawn_pictures():
    pictures = [count_alarm_curve(*random_picture(seed), 3, (0.1, 0.3)) for seed in range(9)]
    got = calibration_curves(pictures, NAMES, ('road',), (0.1, 0.3), resamples=100, seed=4)['road']
    weights = resample_weights(9, 100, seed=4)
    flagged = np.array([p.flagged[1, 0] for p in pictures])
    pixels = np.array([p.pixels[0] for p in pictures])
    wanted = percentile_interval((weights @ flagged) / (weights @ pixels))
    assert (got.low[1], got.high[1]) == pytest.approx((wanted.low, wanted.high))


def test_worst_factor_by_hand():
    surprisal = np.full((10, 10), 0.5, np.float32)
    surprisal[:4] = 1.5  # 40 % flagged at .1, all at .5, none at .01
    picture = count_alarm_curve(surprisal, np.zeros((10, 10), np.uint8), 1, (0.01, 0.1, 0.5))
    curve = calibration_curves([picture], ['road'], ['road'], (0.01, 0.1, 0.5), 10)['road']
    assert curve.observed.tolist() == [0.0, 0.4, 1.0]
    assert curve.worst_factor == pytest.approx(4.0)  # .01 of 100 pixels is one pixel: not told


def test_classes_without_pixels_are_left_out():
    void = count_alarm_curve(np.ones((2, 2), np.float32), np.full((2, 2), 255, np.uint8), 3)
    assert calibration_curves([void], NAMES, ('road',)) == {}


def test_bad_input_is_named():
    surprisal, labels = random_picture(1)
    with pytest.raises(DataError, match='differ in size'):
        count_alarm_curve(surprisal[:5], labels, 3)
    with pytest.raises(DataError, match='are NaN'):
        count_alarm_curve(surprisal * np.nan, labels, 3)
    with pytest.raises(ConfigError, match='ascend'):
        count_alarm_curve(surprisal, labels, 3, (0.1, 0.01))
    picture = count_alarm_curve(surprisal, labels, 3)
    with pytest.raises(ConfigError, match='unknown classes'):
        calibration_curves([picture], NAMES, ('sky',))
    with pytest.raises(DataError, match='at least one picture'):
        calibration_curves([], NAMES, ('road',))
