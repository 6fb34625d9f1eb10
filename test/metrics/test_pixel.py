# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest

from ood_perception.errors import DataError
from ood_perception.metrics.bootstrap import image_histograms
from ood_perception.metrics.pixel import (
    ScoredImage,
    exact_metrics,
    pixel_metrics,
    pool,
    scored_image,
)

CASES = ['continuous', 'ties', 'two values', 'saturated', 'separable', 'reversed', 'one positive']


def make_case(name, seed=0):
    """Return (scores float32, labels uint8), (60, 80)."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((60, 80)) < 0.1).astype(np.uint8)
    scores = rng.gamma(2, 0.5, labels.shape) + labels * rng.gamma(2, 0.7, labels.shape)
    if name == 'ties':
        scores = np.round(scores * 4) / 4
    elif name == 'two values':
        scores = (scores > 1).astype(float)
    elif name == 'saturated':
        scores = np.minimum(scores, 1.5)
    elif name == 'separable':
        scores = scores + 100 * labels
    elif name == 'reversed':
        scores = scores - 100 * labels
    elif name == 'one positive':
        labels = np.zeros_like(labels)
        labels[30, 40] = 1
    return scores.astype(np.float32), labels


@pytest.mark.parametrize('name', CASES)
def test_metrics_equal_scikit_learn(name):
    sklearn = pytest.importorskip('sklearn.metrics')
    scores, labels = make_case(name)
    got = exact_metrics([scored_image(scores, labels)])
    truth, flat = labels.ravel(), scores.ravel()
    false_positive_rate, recall, _ = sklearn.roc_curve(truth, flat, drop_intermediate=False)
    assert got.average_precision == pytest.approx(sklearn.average_precision_score(truth, flat))
    assert got.auroc == pytest.approx(sklearn.roc_auc_score(truth, flat))
    assert got.fpr95 == pytest.approx(false_positive_rate[np.argmax(recall >= 0.95)])
    assert (got.positives, got.negatives) == (int(truth.sum()), int((1 - truth).sum()))


def test_closed_form_by_hand():
    scores = np.array([[4, 3, 2, 1]], np.float32)
    got = exact_metrics([scored_image(scores, np.array([[1, 0, 1, 0]], np.uint8))])
    assert got.average_precision == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert got.auroc == pytest.approx(0.75)
    assert got.fpr95 == pytest.approx(0.5)


def test_pixels_are_pooled_over_images_and_ignored_ones_left_out():
    scores, labels = make_case('continuous')
    labels[:10] = 255
    halves = [
        scored_image(scores[:, part], labels[:, part]) for part in (slice(40), slice(40, 80))
    ]
    whole = exact_metrics([scored_image(scores[10:], labels[10:])])
    np.testing.assert_equal(astuple(exact_metrics(halves)), astuple(whole))


def test_sets_that_define_nothing_give_nan():
    scores, labels = make_case('continuous')
    none = exact_metrics([scored_image(scores, np.zeros_like(labels))])
    assert np.isnan([none.average_precision, none.auroc, none.fpr95]).all()
    ignored = exact_metrics([scored_image(scores, np.full_like(labels, 255))])
    assert np.isnan(ignored.average_precision)
    assert (ignored.positives, ignored.negatives) == (0, 0)
    only = exact_metrics([scored_image(scores, np.ones_like(labels))])
    assert only.average_precision == pytest.approx(1.0)
    assert np.isnan([only.auroc, only.fpr95]).all()


def test_surprisal_far_beyond_float_scores_still_ranks():
    surprisal = np.array([[9, 8.9, 8.8, 1]], np.float32)
    labels = np.array([[1, 0, 0, 0]], np.uint8)
    assert exact_metrics([scored_image(surprisal, labels)]).average_precision == 1.0
    score = (1 - 10.0 ** -surprisal.astype(np.float64)).astype(np.float32)
    assert exact_metrics([scored_image(score, labels)]).average_precision < 1.0


def test_anomaly_outside_the_region_counts_as_missed():
    scores, labels = make_case('separable')
    roi = np.ones(labels.shape, bool)
    roi[:30] = False
    got = exact_metrics([scored_image(scores, labels, roi)])
    found = int(labels[30:].sum())
    assert got.average_precision == pytest.approx(1.0)
    assert got.missed == int(labels[:30].sum())
    assert got.average_precision_with_outside == pytest.approx(found / (found + got.missed))


@pytest.mark.parametrize('name', CASES)
def test_histograms_stay_within_the_stated_error(name):
    scores, labels = make_case(name, seed=1)
    images = [scored_image(scores[k::4], labels[k::4]) for k in range(4)]
    exact = exact_metrics(images)
    binned = pixel_metrics(image_histograms(images).curve(np.ones((1, 4))))
    for metric in ('average_precision', 'average_precision_with_outside', 'auroc', 'fpr95'):
        assert getattr(binned, metric)[0] == pytest.approx(getattr(exact, metric), abs=3e-4)


def test_histograms_of_many_pixels_and_few_bins():
    rng = np.random.default_rng(2)
    labels = (rng.random((500, 800)) < 0.02).astype(np.uint8)
    scores = (rng.gamma(2, 0.4, labels.shape) + 1.2 * labels).astype(np.float32)
    images = [scored_image(scores, labels)]
    exact = exact_metrics([images[0]])
    for bins, error in ((1024, 2e-3), (16384, 3e-4)):
        binned = pixel_metrics(image_histograms(images, bins).curve(np.ones((1, 1))))
        assert binned.average_precision[0] == pytest.approx(exact.average_precision, abs=error)
        assert binned.fpr95[0] == pytest.approx(exact.fpr95, abs=error)
        assert binned.auroc[0] == pytest.approx(exact.auroc, abs=error)


def test_weights_are_multiplicities():
    scores, labels = make_case('continuous', seed=3)
    images = [scored_image(scores[k::3], labels[k::3]) for k in range(3)]
    binned = pixel_metrics(image_histograms(images).curve(np.array([[2.0, 0.0, 1.0]])))
    exact = exact_metrics([images[0], images[0], images[2]])
    assert binned.average_precision[0] == pytest.approx(exact.average_precision, abs=3e-4)
    assert binned.auroc[0] == pytest.approx(exact.auroc, abs=3e-4)


def test_bad_input_is_named():
    scores, labels = make_case('continuous')
    with pytest.raises(DataError, match='differ in size'):
        scored_image(scores[:5], labels)
    scores[labels == 0] = np.nan
    with pytest.raises(DataError, match='NaN'):
        scored_image(scores, labels)


def test_scores_handed_in_are_not_touched():
    scores, labels = make_case('continuous')
    before = scores.copy()
    photo = scored_image(scores, labels)
    pool([photo])
    np.testing.assert_array_equal(scores, before)
    assert isinstance(photo, ScoredImage)
    assert np.all(np.diff(photo.negatives) >= 0)
