# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The table of a set of classes keeps its rate on the pixels that it was fitted for."""

from __future__ import annotations

import numpy as np
import pytest

from ood_perception.calibration import HeldOutSample, arrays_of, sample_of
from ood_perception.errors import ConfigError

RATES = (0.05, 0.02, 0.01, 0.002)
CLASSES = ('road', 'pavement', 'sky')


def pixels(count, seed=0):
    """Surprisal by three classes of pixels: calibrated for the own class, high for the others."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(3, count, p=[0.6, 0.3, 0.1]).astype(np.uint8)
    surprisal = rng.exponential(1 / np.log(10), (count, 3)) + rng.exponential(0.5, (count, 3))
    own = -np.log10(rng.random(count))
    surprisal[np.arange(count), truth] = own
    return surprisal, truth


def whole(count=200_000, columns=slice(None)):
    surprisal, truth = pixels(count)
    return HeldOutSample(CLASSES, surprisal[:, columns], truth, np.ones(count))


@pytest.mark.parametrize('chosen', [['road'], ['road', 'pavement'], list(CLASSES)])
def test_on_fresh_pixels_of_the_set_the_promised_share_is_flagged(chosen):
    table = whole().table(chosen)
    surprisal, truth = pixels(400_000, seed=1)
    places = [CLASSES.index(name) for name in chosen]
    least = surprisal[np.isin(truth, places)][:, places].min(1)
    mapped = table(least.astype(np.float32))
    for rate in RATES:
        share = (mapped >= -np.log10(rate)).mean()
        assert share == pytest.approx(rate, rel=0.1 + 2 / np.sqrt(rate * 1e5))


def test_the_least_over_two_classes_alone_flags_less_than_promised():
    surprisal, truth = pixels(200_000, seed=1)
    least = surprisal[truth < 2][:, :2].min(1)
    assert (least >= 2).mean() < 0.005


def test_one_score_gives_the_mixture_of_the_class_curves():
    sample = whole(20_000, slice(0, 1))
    x, e = sample.curve(['road', 'sky'])
    for threshold in (0.1, 0.5, 1.0, 2.0):
        place = np.searchsorted(x, threshold)
        mine = sample.surprisal[np.isin(sample.truth, [0, 2]), 0]
        assert e[place] == pytest.approx((1 + (mine >= x[place]).sum()) / (1 + len(mine)))


def test_the_table_rises_strictly_from_zero_and_goes_on_beyond_the_counted_part():
    table = whole().table(['road', 'pavement'])
    x = np.linspace(0, 40, 5000, dtype=np.float32)
    y = table(x.reshape(50, 100))
    assert y.shape == (50, 100)
    assert y.dtype == np.float32
    assert y[0, 0] == 0
    assert (np.diff(y.ravel()) > 0).all()


def test_a_table_of_one_calibrated_class_is_nearly_the_identity():
    table = whole().table(['road'])
    x = np.array([0.5, 1, 1.3, 2, 3], np.float32)
    np.testing.assert_allclose(table(x), x, atol=0.06)


def test_a_sample_survives_its_file(tmp_path):
    sample = whole(3000)
    np.savez(tmp_path / 'sample.npz', **arrays_of(sample))
    with np.load(tmp_path / 'sample.npz', allow_pickle=False) as arrays:
        again = sample_of(arrays)
    assert again.classes == CLASSES
    assert again.pixels(['sky']) == sample.pixels(['sky'])
    np.testing.assert_allclose(again.surprisal, sample.surprisal, rtol=1e-3)


def test_arrays_that_do_not_fit_are_refused():
    arrays = arrays_of(whole(10))
    with pytest.raises(ValueError, match='do not fit together'):
        sample_of({**arrays, 'truth': arrays['truth'][:5]})


def test_too_few_pixels_give_no_table_and_unknown_classes_an_error():
    assert whole(500).table(['road']) is None
    with pytest.raises(ConfigError, match=r"'rod'.*was not.*choose among road, pavement, sky"):
        whole(10).table(['rod'])
