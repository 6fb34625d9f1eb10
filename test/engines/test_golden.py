# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What counts as reproducing the golden vectors, on outputs that are made up."""

from types import SimpleNamespace

import numpy as np
import pytest

from ood_perception.bundle.manifest import GoldenSpec, PrecisionSpec
from ood_perception.engines.golden import GoldenVectors, check_golden, compare
from ood_perception.errors import EngineError

SPEC = GoldenSpec()
SHAPE = (2, 40, 50)
CLASSES = ('Road',)


@pytest.fixture
def golden():
    """Surprisal from 0 to about 14, no two alike; labels of three classes."""
    rng = np.random.default_rng(0)
    values = rng.permutation(np.linspace(0.01, 14, np.prod(SHAPE))).astype(np.float32)
    labels = rng.integers(0, 3, SHAPE).astype(np.uint8)
    return values.reshape(SHAPE), labels


class Made:
    """An engine whose output is given, one image a run."""

    def __init__(self, surprisal, labels, precision='f32'):
        self.surprisal, self.labels = surprisal, labels
        self.description = {'runtime': 'made', 'precision': precision}
        self.manifest = SimpleNamespace(name='tiny')
        self.measured_as = precision

    def class_vector(self, names):
        return np.ones(len(names), np.float32)

    def run(self, image, in_distribution):
        row = int(image[0, 0, 0, 0])
        part = slice(row, row + len(image))
        return SimpleNamespace(
            surprisal=self.surprisal[part], labels=self.labels[part], stage_ms={'head': 1.0}
        )


def check(golden, surprisal=None, labels=None, precision='f32', spec=SPEC, precisions=None):
    image = np.zeros((2, 1, 1, 3), np.uint8)
    image[1] = 1
    vectors = GoldenVectors(image, CLASSES, *golden)
    engine = Made(
        golden[0] if surprisal is None else np.asarray(surprisal, np.float32),
        golden[1] if labels is None else labels,
        precision,
    )
    return check_golden(
        engine,
        SimpleNamespace(manifest=SimpleNamespace(golden=spec, precisions=precisions or {})),
        vectors,
    )


def test_the_golden_itself_is_perfect(golden):
    report = check(golden)

    assert report.surprisal_difference == report.score_difference == report.inversion == 0
    assert report.rank_correlation == pytest.approx(1)
    assert report.distinct_share == report.label_agreement == 1


@pytest.mark.parametrize('precision', ['f32', 'bf16'])
def test_noise_within_the_bounds_passes(golden, precision):
    size = 1e-5 if precision == 'f32' else 0.05
    noise = np.random.default_rng(1).normal(0, size, SHAPE)
    check(golden, np.maximum(golden[0] + noise, 1e-3), precision=precision)


def test_float32_bounds_are_those_of_the_manifest(golden):
    shifted = np.where(golden[0] > 3, golden[0] + 0.02, golden[0])
    with pytest.raises(
        EngineError, match=r'\|difference\| of surprisal is 0.0200\d*, at most 0.01'
    ):
        check(golden, shifted)
    # where the score has hardly a slope left, the looser bound of the surprisal is enough
    check(golden, np.where(golden[0] > 4, golden[0] + 0.009, golden[0]))
    with pytest.raises(EngineError, match=r'of score is 0.0\d+, at most 0.0001'):
        check(golden, golden[0] + 0.005)
    check(golden, np.where(golden[0] > 3, golden[0] + 0.02, golden[0]), precision='bf16')


def test_reduced_precision_has_a_bound_of_its_own(golden):
    with pytest.raises(EngineError, match=r'of surprisal is 0.7\d*, at most 0.5'):
        check(golden, golden[0] + 0.7, precision='bf16')


def test_a_measured_precision_has_the_bounds_that_were_measured(golden):
    measured = {'int8': PrecisionSpec(0.1, (0.0, 0.2), 0.8, 0.9)}
    check(golden, golden[0] + 0.7, precision='int8', precisions=measured)
    with pytest.raises(EngineError, match=r'of surprisal is 0.9\d*, at most 0.8'):
        check(golden, golden[0] + 0.9, precision='int8', precisions=measured)
    with pytest.raises(EngineError, match=r'of surprisal is 0.7\d*, at most 0.5'):
        check(golden, golden[0] + 0.7, precision='bf16', precisions=measured)
    with pytest.raises(EngineError, match=r'of surprisal is 0.7\d*, at most 0.01'):
        check(golden, golden[0] + 0.7, precisions=measured)
    labels = golden[1].copy()
    labels[:, :, :4] = 7
    check(golden, labels=labels, precision='int8', precisions=measured)


def test_large_values_may_differ_but_keep_their_order(golden):
    surprisal = golden[0]
    check(golden, np.where(surprisal > 6, 6 + (surprisal - 6) * 1.5, surprisal))
    order = np.where(surprisal > 6, 20 - surprisal, surprisal)
    with pytest.raises(EngineError, match=r'rank correlation|drop in the order'):
        check(golden, order)


def test_large_values_may_not_become_small(golden):
    hidden = golden[0].copy()
    hidden[golden[0] > 13.9] = 0.5
    with pytest.raises(EngineError, match=r'\|difference\| of surprisal is 5.5'):
        check(golden, hidden)


@pytest.mark.parametrize('precision', ['f32', 'bf16'])
def test_clipping_the_tail_is_refused(golden, precision):
    # only the highest 4 % are touched, and in order: the ties alone betray it
    surprisal = np.where(golden[0] > 6, 6 + (golden[0] - 6) / 8, golden[0])
    top = np.float32(np.quantile(surprisal, 0.96))
    with pytest.raises(EngineError, match='share of distinct surprisal values'):
        check((surprisal, golden[1]), np.minimum(surprisal, top), precision=precision)


def test_few_distinct_values_are_refused_even_when_near(golden):
    with pytest.raises(EngineError, match=r'distinct surprisal values is 0\.\d+, at least 0.95'):
        check(golden, np.round(golden[0] * 64) / 64, precision='bf16')


def test_other_labels_are_refused(golden):
    labels = golden[1].copy()
    labels[:, :, 0] = 7
    with pytest.raises(EngineError, match=r'equal labels is 0.98, at least 0.99'):
        check(golden, labels=labels)


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_what_is_no_number_is_refused(golden, value):
    broken = golden[0].copy()
    broken[0, 0, 0] = value
    with pytest.raises(EngineError, match='finite'):
        check(golden, broken)


def test_another_shape_is_refused(golden):
    with pytest.raises(EngineError, match=r'shape of surprisal is \(2, 20, 50\)'):
        check(golden, golden[0][:, ::2], golden[1][:, ::2])


def test_the_error_names_engine_bundle_and_remedy(golden):
    with pytest.raises(EngineError) as caught:
        check(golden, golden[0] * 0)

    text = str(caught.value)
    for part in ('engine made f32', 'bundle tiny', 'at most 0.01', 'Try precision f32'):
        assert part in text


def test_a_few_values_above_the_bound_may_tie():
    golden = np.linspace(0, 6, 1000, dtype=np.float32).reshape(1, 20, 50)
    golden[0, 0, :5] = 7 + np.arange(5) * 1e-6
    tied = np.where(golden > 6, 7, golden).astype(np.float32)
    labels = np.zeros(golden.shape, np.uint8)

    report = compare(tied, labels, golden, labels, SPEC, reduced=False)

    assert report.distinct_share > 0.99
    assert report.inversion == 0
