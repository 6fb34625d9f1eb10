# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The table of a set of classes keeps its rate on the pixels that it was fitted for."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from bundles import write_manifest, write_tiny_bundle
from class_pixels import CLASSES, pixels

from ood_perception.bundle.store import load_bundle
from ood_perception.errors import BundleError, ConfigError
from ood_perception.image.views import ViewSpec
from ood_perception.postprocess.calibration import (
    ClassSetCalibration,
    HeldOutSample,
    arrays_of,
    read_samples,
    sample_of,
)

RATES = (0.05, 0.02, 0.01, 0.002)


def whole(count=200_000, columns=slice(None)):
    surprisal, truth = pixels(count)
    return HeldOutSample(CLASSES, surprisal[:, columns], truth, np.ones(count))


@pytest.mark.parametrize('chosen', [['road'], ['road', 'pavement'], list(CLASSES)])
def test_on_fresh_pixels_of_the_set_the_rated_share_is_flagged(chosen):
    table = whole().calibration(chosen)
    surprisal, truth = pixels(400_000, seed=1)
    places = [CLASSES.index(name) for name in chosen]
    least = surprisal[np.isin(truth, places)][:, places].min(1)
    mapped = table(least.astype(np.float32))
    for rate in RATES:
        share = (mapped >= -np.log10(rate)).mean()
        assert share == pytest.approx(rate, rel=0.1 + 2 / np.sqrt(rate * 1e5))


def test_the_least_over_two_classes_alone_flags_less_than_rated():
    surprisal, truth = pixels(200_000, seed=1)
    least = surprisal[truth < 2][:, :2].min(1)
    assert (least >= 2).mean() < 0.005


def test_a_curve_counts_the_weights_of_the_chosen_classes():
    scores = np.array([[0.5], [2.0], [0.5], [1.0], [9.0]])
    truth, weight = np.array([0, 0, 1, 0, 2], np.uint8), np.array([1.0, 4.0, 2.0, 3.0, 90.0])
    sample = HeldOutSample(CLASSES, scores, truth, weight)
    x, e = sample.curve(['road', 'pavement'])
    np.testing.assert_array_equal(x, [0.5, 1, 2])
    np.testing.assert_allclose(e, [1, 8 / 11, 5 / 11])
    assert (sample.pixels(['road', 'pavement']), sample.pixels(['sky'])) == (10, 90)


def test_one_score_gives_the_mixture_of_the_class_curves():
    sample = whole(20_000, slice(0, 1))
    x, e = sample.curve(['road', 'sky'])
    for threshold in (0.1, 0.5, 1.0, 2.0):
        place = np.searchsorted(x, threshold)
        mine = sample.surprisal[np.isin(sample.truth, [0, 2]), 0]
        assert e[place] == pytest.approx((1 + (mine >= x[place]).sum()) / (1 + len(mine)))


def test_the_table_rises_strictly_from_zero_and_goes_on_beyond_the_counted_part():
    table = whole().calibration(['road', 'pavement'])
    x = np.linspace(0, 40, 5000, dtype=np.float32)
    y = table(x.reshape(50, 100))
    assert y.shape == (50, 100)
    assert y.dtype == np.float32
    assert y[0, 0] == 0
    assert (np.diff(y.ravel()) > 0).all()


def test_a_table_is_linear_between_its_knots_and_beyond():
    table = ClassSetCalibration(np.array([0.0, 1, 3]), np.array([0.0, 2, 3]), 0.25)
    x = np.array([0, 0.5, 1, 2, 3, 3.5, 5], np.float32)
    np.testing.assert_array_equal(table(x), [0, 1, 2, 2.5, 3, 3.125, 3.5])


@pytest.mark.parametrize(
    ('count', 'tail'), [(5, 20), (50, 2), (500, 0.2), (1000, 0.01), (100_000, 0.01)]
)
def test_beyond_what_is_counted_the_chord_of_the_highest_scoring_goes_on(count, tail):
    surprisal = np.log10((np.arange(count) + 0.5) / count)[:, None] ** 2  # its slope never stays
    sample = HeldOutSample(('road',), surprisal, np.zeros(count, np.uint8), np.ones(count))
    table = sample.calibration(['road'])
    start = min(np.argmax(table.y >= -np.log10(tail) - 1e-9), len(table.y) - 2)
    chord = (table.y[-1] - table.y[start]) / (table.x[-1] - table.x[start])
    assert table.slope == pytest.approx(chord)
    if count >= 1000:  # down to ten pixels, from almost all of them
        assert table.y[-1] == pytest.approx(np.log10(count / 10))
        assert table.y[1] < 0.02


def test_a_table_of_one_calibrated_class_is_nearly_the_identity():
    table = whole().calibration(['road'])
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


def two_views(count=40_000, seed=0):
    """Held-out pixels of two classes in two views, independent; the second holds half of them."""
    rng = np.random.default_rng(seed)
    surprisal = rng.exponential(1.0, (count, 2, 2))
    surprisal[count // 2 :, 1] = -np.inf
    truth = rng.integers(0, 2, count).astype(np.uint8)
    return HeldOutSample(('road', 'pavement'), surprisal, truth, np.ones(count))


def test_several_views_rate_what_is_served_the_greatest_of_their_least():
    sample = two_views()
    served = sample.surprisal.min(axis=2).max(axis=1)
    greatest_by_class = sample.surprisal.max(axis=1).min(axis=1)
    table = sample.calibration(['road', 'pavement'])
    for rate in (0.1, 0.01):
        flagged = table(served.astype(np.float32)) >= -np.log10(rate)
        assert flagged.mean() == pytest.approx(rate, rel=0.15)
        # a curve of each class's greatest would stand higher: less would be flagged than targeted
        assert (served >= np.quantile(greatest_by_class, 1 - rate)).mean() < 0.75 * rate


def test_what_is_served_is_the_least_of_the_chosen_in_the_view_where_it_is_greatest():
    scores = np.array([[[3, 1, 9], [5, 4, 0]], [[2, 8, 7], [7, 1, 9]]], float)
    truth, weight = np.zeros(2, np.uint8), np.ones(2)
    by_class = HeldOutSample(CLASSES, scores, truth, weight)
    assert by_class.views == 2
    assert by_class.served(['road', 'pavement']).tolist() == [4, 2]
    alone = HeldOutSample(CLASSES, scores[..., 1:2], truth, weight)
    assert alone.served(['road', 'sky']).tolist() == [4, 8]
    for sample in (by_class, alone):
        again = sample_of(arrays_of(sample))
        np.testing.assert_array_equal(again.surprisal, sample.surprisal)


def test_the_whole_image_alone_has_a_table_from_the_same_pixels():
    sample = two_views()
    alone = sample.of_whole_image()
    assert (sample.views, alone.views) == (2, 1)
    np.testing.assert_array_equal(alone.surprisal, sample.surprisal[:, 0])
    assert alone.pixels(['road']) == sample.pixels(['road'])
    served = alone.surprisal.min(axis=1).astype(np.float32)
    flagged = alone.calibration(['road', 'pavement'])(served) >= 2
    assert flagged.mean() == pytest.approx(0.01, rel=0.15)
    assert whole(10).of_whole_image().surprisal.shape == (10, 3)


def test_views_survive_their_file_and_must_be_those_of_the_manifest(tmp_path):
    sample = two_views(2000)
    view = ViewSpec('far')
    path = write_tiny_bundle(
        tmp_path / 'good', classes=('road', 'pavement'), in_distribution=('road',),
        ground_classes=('road',), views=(view,), held_out=sample,
    )  # fmt: skip
    (again,) = read_samples(load_bundle(path)).values()
    assert again.views == 2
    np.testing.assert_allclose(again.surprisal, sample.surprisal, rtol=1e-3)
    path = write_tiny_bundle(
        tmp_path / 'bad', classes=('road', 'pavement'), in_distribution=('road',),
        ground_classes=('road',), views=(view, ViewSpec('left')), held_out=sample,
    )  # fmt: skip
    with pytest.raises(BundleError, match=r'it holds 2 views, the manifest 3.*copy the bundle'):
        read_samples(load_bundle(path))
    views = (view, ViewSpec('left'))
    path = write_tiny_bundle(tmp_path / 'old', views=views, held_out=whole(2000))
    (merged,) = read_samples(load_bundle(path)).values()
    assert merged.views == 1


def test_the_least_sample_and_the_numbers_at_its_bounds_are_taken():
    one = {'classes': np.array(['road']), 'surprisal': np.zeros((1, 1)), 'truth': np.zeros(1, int)}
    for weight in (1e-9, 1e12):
        assert sample_of({**one, 'weight': np.array([weight])}).weight == weight
    with pytest.raises(ValueError, match='at most 1e'):
        sample_of({**one, 'weight': np.array([1e12 + 1])})
    arrays = arrays_of(whole(10))
    arrays['surprisal'][0] = 0
    assert (sample_of(arrays).surprisal[0] == 0).all()


def test_arrays_that_do_not_fit_are_refused():
    arrays = arrays_of(whole(10))
    for shape in ((10,), (10, 2), (10, 1, 1, 3)):
        with pytest.raises(ValueError, match='do not fit together'):
            sample_of({**arrays, 'surprisal': np.resize(arrays['surprisal'], shape)})
    two = {k: arrays[k][:2] for k in ('surprisal', 'truth', 'weight')}
    two['surprisal'] = two['surprisal'][[0, 0]]
    views = np.stack([arrays['surprisal'], arrays['surprisal']], axis=1)
    views[:, 0, 2] = 1
    for wrong in (two, {'surprisal': views}):
        with pytest.raises(ValueError, match='the same for all pixels'):
            sample_of({**arrays, **wrong})
    with pytest.raises(ValueError, match='do not fit together'):
        sample_of({**arrays, 'surprisal': np.ones((10, 0, 3))})
    with pytest.raises(ValueError, match='do not fit together'):
        sample_of({**arrays, 'truth': arrays['truth'][:5]})
    no_text = np.full(3, 0x110000, np.uint32).view('<U1')
    for classes in (no_text, np.arange(3), arrays['classes'][[0, 0, 1]]):
        with pytest.raises(ValueError, match='expected names, each once'):
            sample_of({**arrays, 'classes': classes})


def test_an_unknown_class_and_a_set_without_pixels_are_errors():
    with pytest.raises(ConfigError, match=r"'rod'.*was not.*choose among road, pavement, sky"):
        whole(10).calibration(['rod'])
    surprisal, _ = pixels(50)
    road_alone = HeldOutSample(CLASSES, surprisal, np.zeros(50, np.uint8), np.ones(50))
    no_rate_helps = r'sky: 0 held-out pixels [^;]*; choose more classes'
    with pytest.raises(ConfigError, match=no_rate_helps):
        road_alone.calibration(['sky'])
    with pytest.raises(ConfigError, match=no_rate_helps):
        road_alone.doubt(['sky'], 0.5)
    assert road_alone.least_rate(['sky']) == 1.0
    assert whole(10).least_rate(['sky']) == 1.0, 'a rate is at most 1'


def rare(count, seed):
    """A rare class that its head finds five times as anomalous as it should."""
    rng = np.random.default_rng(seed)
    own = -np.log10(rng.random((count, 1)) / 5)
    return HeldOutSample(('pole',), own, np.zeros(count, np.uint8), np.ones(count))


@pytest.mark.parametrize(('count', 'rate'), [(350, 0.01), (900, 0.01), (999, 0.005), (40, 0.1)])
def test_few_pixels_flag_no_more_than_the_rate_in_95_of_100_draws(count, rate):
    """The head alone flags five times the rate; flagged: -log10(u / 5) >= x is u <= 5 10^-x."""
    shares = []
    for seed in range(300):
        table = rare(count, seed).calibration(['pole'])
        x = np.linspace(0, 8, 20_001, dtype=np.float32)
        threshold = x[np.argmax(table(x) >= -np.log10(rate))]
        shares.append(5 * 10.0**-threshold)
    assert np.mean(np.array(shares) <= rate) >= 0.93
    assert np.mean(shares) > rate / 10, 'so careful that nothing is flagged'


def test_few_pixels_are_counted_at_the_upper_end_of_their_interval():
    chi2 = pytest.importorskip('scipy.stats').chi2
    sample = rare(500, 1)
    table, x = sample.calibration(['pole']), np.sort(sample.surprisal[:, 0])
    for above in (1, 2, 5, 20, 100):
        place = np.float32(x[-above])
        limit = chi2.ppf(0.95, 2 * (above + 1)) / 2 / 500
        served = 10.0 ** -float(table(np.array([place]))[0])
        assert limit <= served <= 1.03 * limit


def test_a_rate_that_few_pixels_cannot_bound_is_refused_and_others_are_told():
    sample = rare(200, 0)
    with pytest.raises(ConfigError, match=r'pole: 200 held-out pixels.*0\.01.*takes 300.*0\.015'):
        sample.doubt(['pole'], 0.01)
    assert sample.least_rate(['pole']) == pytest.approx(-np.log(0.05) / 200, rel=0.01)
    assert '200 held-out pixels' in sample.doubt(['pole'], 0.02)
    assert 'fewer than 1000' in rare(999, 0).doubt(['pole'], 0.01)
    assert rare(1000, 0).doubt(['pole'], 0.001) == ''
    assert rare(1000, 0).least_rate(['pole']) == 0.0


@pytest.mark.parametrize('count', [4, 77, 200, 999])
def test_the_rate_that_a_refusal_names_is_the_least_that_is_taken(count):
    sample = rare(count, 0)
    with pytest.raises(ConfigError, match='held-out') as caught:
        sample.doubt(['pole'], 1e-4)
    named = float(re.search(r'false_alarm_rate to (\S+) or more', str(caught.value))[1])
    least = sample.least_rate(['pole'])
    assert least <= named < least + 1e-4
    assert sample.doubt(['pole'], least)


@pytest.mark.parametrize('count', [20, 5000])
def test_a_head_that_finds_nothing_anomalous_is_taken_at_its_word(count):
    zero = HeldOutSample(
        ('road',), np.zeros((count, 1)), np.zeros(count, np.uint8), np.ones(count)
    )
    x = np.array([0, 0, 0.5, 2, 40], np.float32)
    mapped = zero.calibration(['road'])(x)
    np.testing.assert_array_equal(mapped, x)


@pytest.mark.parametrize(
    ('weight', 'highest'), [(100, 3.3), (np.resize([1e-20, 0.4], 2000), -np.log10(3.1 / 400))]
)
def test_pixels_that_weigh_very_much_or_nothing_give_a_table_that_rises(weight, highest):
    surprisal = np.sqrt(np.arange(2000))[:, None]
    sample = HeldOutSample(('road',), surprisal, np.zeros(2000, np.uint8), np.full(2000, weight))
    table = sample.calibration(['road'])
    assert table.y[-1] == pytest.approx(highest, rel=0.1)
    assert table.x[-1] == pytest.approx(np.sqrt(1999), rel=0.01)


DEGENERATE = {
    'NaN': {'surprisal': lambda s: np.where(s > 2, np.nan, s)},
    'infinite': {'surprisal': lambda s: np.where(s > 2, np.inf, s)},
    'minus infinite': {'surprisal': lambda s: np.where(s > 2, -np.inf, s)},
    'negative': {'surprisal': lambda s: np.where(s > 2, -0.01, s)},
    'all zero': {'surprisal': np.zeros_like},
    'constant in one class': {'surprisal': lambda s: s * [1, 0, 1]},
    'weight NaN': {'weight': lambda w: w * np.nan},
    'weight 0': {'weight': np.zeros_like},
    'weight below 0': {'weight': lambda w: -w},
    'weight infinite': {'weight': lambda w: w * np.inf},
    'weights of two axes': {'weight': lambda w: w[:, None]},
    'no pixels': {name: lambda a: a[:0] for name in ('surprisal', 'truth', 'weight')},
    'truth of fractions': {'truth': lambda t: t + 0.5},
    'truth beyond the classes': {'truth': lambda t: t + 1},
    'truth below 0': {'truth': lambda t: t.astype(int) - 1},
    'truth of two axes': {'truth': lambda t: t[:, None]},
    'texts': {'weight': lambda w: w.astype(str)},
    'weight of the largest float': {'weight': lambda w: w * np.float32(3e38)},
    'one class, no list': {'classes': lambda c: c[0]},
    'a class twice': {'classes': lambda c: c[[0, 0, 1]]},
    'classes of numbers': {'classes': lambda c: np.arange(len(c))},
}


@pytest.mark.parametrize('case', DEGENERATE)
def test_a_degenerate_sample_is_refused_by_every_program(case, tmp_path, capsys):
    from ood_perception.cli.bundle import bench_bundle, compile_bundle, inspect_bundle
    from ood_perception.loader import open_model

    bundle = write_tiny_bundle(tmp_path / 'bundle', held_out=whole(2000))
    arrays = arrays_of(whole(2000))
    spoiled = {**arrays, **{k: change(arrays[k]) for k, change in DEGENERATE[case].items()}}
    np.savez(bundle / 'calibration.npz', **spoiled)
    write_manifest(bundle, json.loads((bundle / 'manifest.json').read_text()))
    for program in (inspect_bundle, compile_bundle, bench_bundle):
        assert program([str(bundle)]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert 'calibration.npz cannot be read' in line
    with pytest.raises(BundleError, match=r'calibration\.npz'):
        open_model({'bundle': str(bundle), 'precision': 'f32'})


@pytest.mark.parametrize(
    ('x', 'y', 'slope'),
    [
        ([0, 1, 2], [0, 1, np.nan], 1),
        ([0, 1, np.inf], [0, 1, 2], 1),
        ([0, 1, 1], [0, 1, 2], 1),
        ([0, 1, 2], [0, 2, 1], 1),
        ([1, 2, 3], [0, 1, 2], 1),
        ([0, 1, 2], [1, 2, 3], 1),
        ([0, 1, 2], [0, 1, 2], 0),
        ([0, 1, 2], [0, 1, 2], np.nan),
    ],
)
def test_a_curve_that_does_not_rise_is_refused(x, y, slope):
    with pytest.raises(ConfigError, match='does not rise'):
        ClassSetCalibration(np.array(x, float), np.array(y, float), slope)
