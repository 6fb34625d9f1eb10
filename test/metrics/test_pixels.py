# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Pixel metrics and curves against scikit-learn and torchmetrics, on random and on edge cases."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest

from ood_perception.errors import ConfigError, DataError
from ood_perception.metrics.bootstrap import image_histograms
from ood_perception.metrics.pixel import (
    FPR95_VARIANTS,
    exact_metrics,
    fpr95,
    fpr95_variants,
    full_curve,
    pixel_metrics,
    scored_image,
)

TOLERANCE = {'rel': 1e-9, 'abs': 1e-9}
NOWHERE = float('nan')


def random_case(seed):
    """Return (scores float32, labels uint8) (H, W): ties, saturation and void in turns."""
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(2, 24, 2))
    labels = (rng.random(shape) < rng.choice([0.05, 0.3, 0.7])).astype(np.uint8)
    labels.flat[:2] = (0, 1)
    labels.flat[2:][rng.random(labels.size - 2) < 0.2] = 255
    scores = rng.gamma(2, 0.5, shape) + (labels == 1) * rng.normal(0.7, 0.5, shape)
    if seed % 4 == 1:
        scores = np.round(scores * 4) / 4
    elif seed % 4 == 2:
        scores = np.minimum(scores, np.quantile(scores, 0.7))
    elif seed % 4 == 3:
        scores = -10 + scores.astype(np.float16)
    return scores.astype(np.float32), labels


def flat(scores, labels):
    """Return (truth, scores) as the oracles want them."""
    valid = labels < 2
    return labels[valid].astype(int), scores[valid]


def old_and_plain_nearest_recall(truth, scores):
    """The recall nearest to 0.95, every threshold tried in turn, from the lowest up."""
    best, answer = np.inf, NOWHERE
    complete = max(t for t in np.unique(scores) if (truth[scores >= t]).sum() == truth.sum())
    for threshold in np.unique(scores[scores >= complete]):
        flagged = scores >= threshold
        distance = abs(truth[flagged].sum() / truth.sum() - 0.95)
        if distance < best:
            best, answer = distance, (1 - truth)[flagged].sum() / (1 - truth).sum()
    return answer


@pytest.mark.parametrize('block', range(4))
def test_all_metrics_equal_scikit_learn_on_random_images(block):
    sklearn = pytest.importorskip('sklearn.metrics')
    for seed in range(block, 240, 4):
        scores, labels = random_case(seed)
        truth, values = flat(scores, labels)
        pixels = scored_image(scores, labels)
        got, curve = exact_metrics([pixels]), full_curve(pixels)
        false_positive_rate, recall, at = sklearn.roc_curve(truth, values, drop_intermediate=False)
        cut, cut_recall, _ = sklearn.roc_curve(truth, values)
        wanted = {
            'benchmark': false_positive_rate[np.argmax(recall >= 0.95)],
            'strict': cut[np.argmax(cut_recall > 0.95)],
            'nearest_recall': old_and_plain_nearest_recall(truth, values),
            'nearest_roc_corner': cut[np.argmin(np.abs(cut_recall - 0.95))],
        }
        precision = sklearn.precision_recall_curve(truth, values)[0][:-1][::-1]
        f1 = [2 * p * r / max(p + r, 1e-9) for p, r in zip(precision, recall[1:], strict=True)]
        assert got.average_precision == pytest.approx(
            sklearn.average_precision_score(truth, values), **TOLERANCE
        )
        assert got.auroc == pytest.approx(sklearn.roc_auc_score(truth, values), **TOLERANCE)
        assert fpr95_variants(curve) == pytest.approx(wanted, **TOLERANCE), seed
        assert got.fpr95 == pytest.approx(wanted['benchmark'], **TOLERANCE)
        assert got.best_f1 == pytest.approx(max(f1), **TOLERANCE)
        assert got.best_f1_threshold == at[1:][np.argmax(np.round(f1, 12))]
        np.testing.assert_allclose(curve.recall, recall[1:], atol=1e-12)
        np.testing.assert_allclose(curve.false_positive_rate, false_positive_rate[1:], atol=1e-12)


@pytest.fixture
def torch64():
    """Torch that divides counts in float64: torchmetrics is exact then."""
    torch = pytest.importorskip('torch')
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield torch
    torch.set_default_dtype(before)


def test_metrics_equal_torchmetrics(torch64):
    torchmetrics = pytest.importorskip('torchmetrics.functional.classification')
    for seed in range(40):
        scores, labels = random_case(seed)
        truth, values = flat(scores, labels)
        values = (values - values.min()) / (
            np.ptp(values) + 1
        )  # a probability: nothing is squashed
        values = values.astype(np.float32)
        got = exact_metrics([scored_image(values[None], truth[None].astype(np.uint8))])
        pair = torch64.from_numpy(values), torch64.from_numpy(truth)
        precision, _, _ = torchmetrics.binary_precision_recall_curve(*pair)
        assert got.average_precision == pytest.approx(
            float(torchmetrics.binary_average_precision(*pair)), **TOLERANCE
        )
        assert got.auroc == pytest.approx(float(torchmetrics.binary_auroc(*pair)), **TOLERANCE)
        ours = full_curve(scored_image(values[None], truth[None].astype(np.uint8))).precision
        np.testing.assert_allclose(ours, precision.numpy()[-2::-1][: ours.size], atol=1e-9)


def test_the_four_definitions_differ_as_by_hand():
    """20 anomalies; recall passes 18/20 = .90, then 19/20 = .95 exactly, then 1."""
    positives = np.arange(100, 80, -1.0)
    # one normal pixel at 90.5 (recall .5); two between the 19th and the 20th anomaly; one below
    negatives = np.array([90.5, 81.7, 81.3, 10.0])
    scores = np.concatenate([positives, negatives])[None].astype(np.float32)
    labels = np.concatenate([np.ones(20), np.zeros(4)])[None].astype(np.uint8)
    assert fpr95_variants(full_curve(scored_image(scores, labels))) == {
        'benchmark': 0.25,  # at score 82: one alarm
        'strict': 0.75,  # recall 1, at score 81: three alarms
        'nearest_recall': 0.75,  # lowest threshold with recall .95: at 81.3
        'nearest_roc_corner': 0.25,  # at 82
    }


def test_best_f1_by_hand():
    scores = np.array([[4, 3, 2, 1]], np.float32)
    got = exact_metrics([scored_image(scores, np.array([[1, 0, 1, 0]], np.uint8))])
    assert got.best_f1 == pytest.approx(0.8)  # at 2: TP 2, FP 1, FN 0
    assert got.best_f1_threshold == 2


def test_of_equal_best_f1_the_highest_threshold_is_taken():
    scores = np.array([[4, 3, 2, 1]], np.float32)
    labels = np.array([[1, 0, 0, 1]], np.uint8)  # at 4: 2/3; at 1: 2*2/(4+2) = 2/3
    assert exact_metrics([scored_image(scores, labels)]).best_f1_threshold == 4


@pytest.mark.parametrize(
    ('labels', 'wanted'),
    [
        # AP, AUROC, FPR95, best F1
        ([[0, 0, 0]], (NOWHERE, NOWHERE, NOWHERE, NOWHERE)),  # no anomaly
        ([[255, 255, 255]], (NOWHERE, NOWHERE, NOWHERE, NOWHERE)),  # all ignored
        ([[1, 1, 1]], (1.0, NOWHERE, NOWHERE, 1.0)),  # nothing normal
        ([[1]], (1.0, NOWHERE, NOWHERE, 1.0)),  # one pixel
        ([[0]], (NOWHERE, NOWHERE, NOWHERE, NOWHERE)),
        ([[1, 0]], (0.5, 0.5, 1.0, 2 / 3)),  # all scores equal
    ],
)
def test_edge_cases_give_what_the_documentation_says(labels, wanted):
    labels = np.array(labels, np.uint8)
    pixels = scored_image(np.ones(labels.shape, np.float32), labels)
    got = exact_metrics([pixels])
    values = (got.average_precision, got.auroc, got.fpr95, got.best_f1)
    assert values == pytest.approx(wanted, nan_ok=True)
    for variant in FPR95_VARIANTS:
        assert np.isnan(fpr95(full_curve(pixels), variant)) == np.isnan(wanted[2])


def test_frames_without_anomalies_and_all_ignored_frames_add_only_their_pixels():
    scores, labels = random_case(8)
    quiet = np.zeros_like(labels)
    void = np.full_like(labels, 255)
    together = exact_metrics([scored_image(scores, y) for y in (labels, quiet, void)])
    stacked = exact_metrics(
        [scored_image(np.concatenate([scores, scores]), np.concatenate([labels, quiet]))]
    )
    np.testing.assert_equal(astuple(together), astuple(stacked))


def test_resamples_give_the_best_f1_of_the_drawn_images():
    images = [scored_image(*random_case(seed)) for seed in (4, 8, 12)]
    samples = pixel_metrics(image_histograms(images).curve(np.array([[2.0, 0.0, 1.0]])))
    exact = exact_metrics([images[0], images[0], images[2]])
    assert samples.best_f1[0] == pytest.approx(exact.best_f1, **TOLERANCE)


def test_bad_input_is_named():
    curve = full_curve(scored_image(*random_case(0)))
    with pytest.raises(ConfigError, match="unknown variant 'fpr'"):
        fpr95(curve, 'fpr')
    with pytest.raises(DataError, match='differ in size'):
        scored_image(np.ones((2, 3), np.float32), np.ones((3, 2), np.uint8))
    with pytest.raises(DataError, match='1 of 4 scores are NaN'):
        scored_image(np.array([[1, 2, np.nan, 3]], np.float32), np.zeros((1, 4), np.uint8))


def test_histograms_of_no_images_are_an_error_that_says_so():
    with pytest.raises(DataError, match='no images'):
        image_histograms([])
