# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Held-out calibration: fresh pixels are flagged at the target rate, at every rate."""

import numpy as np
import pytest
from monotone_curves import surprisal_of

from ood_perception.errors import DataError

torch = pytest.importorskip('torch')
from feature_sets import make_feature_set  # noqa: E402

from trainer.calibration.curve_fit import (  # noqa: E402
    HeldOutScores,
    ScoreSample,
    collect_scores,
    fit_class_curves,
    fit_curve,
)
from trainer.head_module import HeadModule  # noqa: E402

SHAPES = {
    'normal': lambda rng, n: rng.normal(-3, 2, n),
    'heavy': lambda rng, n: rng.standard_t(2, n),
    'skewed': lambda rng, n: rng.exponential(5, n) - 4,
    'two groups': lambda rng, n: np.where(rng.random(n) < 0.02, 50, 0) + rng.normal(0, 1, n),
}


def sample_of(values, **options):
    sample = ScoreSample(**options)
    for part in np.array_split(np.asarray(values), 7):
        sample.add(part)
    return sample


@pytest.mark.parametrize('shape', SHAPES)
def test_fresh_scores_are_flagged_at_the_rated_rate(shape):
    rng = np.random.default_rng(3)
    held_out, fresh = SHAPES[shape](rng, 200_000), SHAPES[shape](rng, 200_000)

    surprisal = surprisal_of(fit_curve(sample_of(held_out)), fresh)

    for rate in (0.001, 0.01, 0.02, 0.05, 0.3):
        flagged = (surprisal >= -np.log10(rate)).mean()
        # both samples are random: their variances add
        assert flagged <= rate + 5 * np.sqrt(2 * rate * (1 - rate) / 200_000)
        assert flagged >= rate - 5 * np.sqrt(2 * rate * (1 - rate) / 200_000) - 0.02 * rate


def test_between_the_ends_the_table_is_the_count():
    values = np.random.default_rng(0).normal(size=50_000)
    x = np.quantile(values, np.linspace(0.01, 0.999, 300))

    got = 10 ** -surprisal_of(fit_curve(sample_of(values)), x)

    expected = (1 + (values[None] >= x[:, None]).sum(1)) / 50_001
    np.testing.assert_allclose(got, expected, rtol=0.03)


def test_the_table_rises_strictly_even_where_no_score_was_seen():
    curve = fit_curve(sample_of(SHAPES['two groups'](np.random.default_rng(1), 100_000)))
    x = np.linspace(-20, 80, 100_000)

    assert (np.diff(surprisal_of(curve, x)) > 0).all()


def test_beyond_ten_in_n_the_tail_goes_on_with_the_slope_of_the_top_percent():
    values = np.random.default_rng(2).exponential(1, 1_000_000)  # surprisal = x / ln 10

    curve = fit_curve(sample_of(values))

    assert 10 ** -surprisal_of(curve, curve.stop) == pytest.approx(1e-5, rel=0.01)
    x = np.array([20.0, 40.0])
    np.testing.assert_allclose(surprisal_of(curve, x), x / np.log(10), rtol=0.1)


def test_ties_count_against_being_anomalous():
    values = np.repeat([0.0, 1.0, 2.0], [5000, 4000, 1000])

    curve = fit_curve(sample_of(values))

    assert 10 ** -surprisal_of(curve, 2.0) == pytest.approx(0.1, rel=0.02)
    assert 10 ** -surprisal_of(curve, 1.0) == pytest.approx(0.5, rel=0.02)


def test_bounded_memory_keeps_the_tail_exact_and_the_rest_close():
    values = np.random.default_rng(5).normal(size=400_000).astype(np.float32)
    small = sample_of(values, capacity=20_000, tail=5_000)

    x, e = small.curve()

    assert len(x) < 30_000
    tail = x >= np.sort(values)[-5000]
    expected = (1 + (values[None] >= x[tail][::50, None]).sum(1)) / 400_001
    np.testing.assert_allclose(e[tail][::50], expected)
    for quantile in (0.1, 0.5, 0.9):
        at = np.quantile(values, quantile)
        assert np.interp(at, x, e) == pytest.approx(1 - quantile, abs=5 * 0.5 / np.sqrt(10_000))


def test_too_few_or_broken_scores_are_refused():
    with pytest.raises(DataError, match='999 held-out pixels'):
        fit_curve(sample_of(np.arange(999.0)))
    with pytest.raises(DataError, match='not finite'):
        ScoreSample().add([1.0, np.nan])
    with pytest.raises(DataError, match='distinct'):
        fit_curve(sample_of(np.ones(5000)))


def some_tables():
    rng = np.random.default_rng(9)
    classes = {
        'a': rng.normal(0, 1, 90_000),
        'b': rng.normal(2, 1, 10_000),
        'c': rng.normal(size=9),
    }
    pooled = sample_of(np.concatenate(list(classes.values())))
    samples = {name: sample_of(values) for name, values in classes.items()}
    return fit_class_curves(HeldOutScores(samples, pooled))


def test_a_thin_class_borrows_the_pooled_table():
    curves = some_tables()

    assert curves.borrowed == ('c',)
    assert curves.curves['c'] is curves.pooled


class FirstChannels(HeadModule):
    """Scores are the first channels of the tokens, upsampled by repetition."""

    layers = ('tokens_11',)
    upsampling = 2

    def __init__(self, classes, scores):
        super().__init__()
        self.compiled_classes, self.count = tuple(classes), scores

    def raw_scores(self, *tokens):
        scores = tokens[0][..., : self.count].permute(0, 3, 1, 2)
        big = scores.repeat_interleave(2, 2).repeat_interleave(2, 3)
        return big, torch.zeros_like(big[:, 0], dtype=torch.uint8)

    def outputs(self, *inputs):
        raise NotImplementedError('not needed: calibration reads raw scores')


@pytest.mark.parametrize('scores', [1, 2])
def test_pixels_are_collected_by_their_true_class_on_the_output_map(scores):
    features = make_feature_set(images=5)
    features.labels[:, :, 56:] = 255
    labels = features.labels[:, ::14, ::14]
    head = FirstChannels('ca', scores)

    got = collect_scores(head, features, 'abc')

    for i, name in enumerate('ca'):
        channel = features.tokens['tokens_11'][..., i if scores > 1 else 0]
        expected = np.sort(channel[labels == 'abc'.index(name)])
        x, _ = got.classes[name].curve()
        assert got.classes[name].count == 4 * len(expected)
        np.testing.assert_array_equal(x, np.unique(expected))
    assert got.pooled.count == sum(sample.count for sample in got.classes.values())
