# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Mean IoU against torchmetrics and scikit-learn, the open-set protocol worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from ood_perception.errors import DataError
from ood_perception.metrics.pixel import full_curve, scored_image, strict_threshold
from ood_perception.metrics.segmentation import (
    class_iou,
    confusion,
    mean_iou,
    mean_iou_samples,
    open_prediction,
    two_fold_samples,
)


def random_labels(seed, classes=5):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 20, 2))
    truth = rng.integers(0, rng.integers(1, classes + 1), shape).astype(np.uint8)
    prediction = np.where(rng.random(shape) < 0.6, truth, rng.integers(0, classes, shape))
    truth[rng.random(shape) < 0.1] = 255
    return prediction.astype(np.uint8), truth


def test_confusion_and_iou_equal_scikit_learn():
    sklearn = pytest.importorskip('sklearn.metrics')
    for seed in range(220):
        prediction, truth = random_labels(seed)
        valid = truth < 5
        if not valid.any():
            continue
        pair = truth[valid], prediction[valid]
        got = confusion(prediction, truth, 5)
        np.testing.assert_array_equal(got, sklearn.confusion_matrix(*pair, labels=range(5)))
        seen = np.union1d(*pair)
        wanted = sklearn.jaccard_score(*pair, labels=seen, average=None, zero_division=0)
        np.testing.assert_allclose(class_iou(got)[seen], wanted, atol=1e-12)
        assert np.isnan(np.delete(class_iou(got), seen)).all()
        assert mean_iou(got) == pytest.approx(wanted.mean(), abs=1e-12)


def test_mean_iou_equals_torchmetrics_macro_jaccard():
    torch = pytest.importorskip('torch')
    oracle = pytest.importorskip('torchmetrics.functional.classification')
    for seed in range(60):
        prediction, truth = random_labels(seed)
        if (truth == 255).all():
            continue
        pair = (torch.from_numpy(a.astype(np.int64)) for a in (prediction, truth))
        wanted = float(oracle.multiclass_jaccard_index(*pair, num_classes=5, ignore_index=255))
        assert mean_iou(confusion(prediction, truth, 5)) == pytest.approx(wanted, abs=1e-6)


def test_open_iou_by_hand():
    """Two known classes, 2 = anomaly, 3 = void."""
    truth = np.array([[0, 0, 0, 1, 1, 2, 2, 3]], np.uint8)
    labels = np.array([[0, 0, 1, 1, 1, 0, 1, 0]], np.uint8)
    scores = np.array([[1, 9, 1, 1, 1, 9, 1, 9]], np.float32)
    got = confusion(open_prediction(labels, scores, 5.0, 2), truth, 3)
    assert got.tolist() == [[1, 1, 1], [0, 2, 0], [0, 1, 1]]
    # class 0: 1 hit, 2 missed (one of them as anomaly); class 1: 2 hits, 1 + 1 false
    assert mean_iou(got, known=2) == pytest.approx((1 / 3 + 2 / 4) / 2)


def test_a_score_equal_to_the_threshold_stays_known():
    got = open_prediction(np.zeros((1, 2), np.uint8), np.float32([[1, 2]]), 1.0, 7)
    assert got.tolist() == [[0, 7]]


def test_the_threshold_is_the_first_with_recall_above_095():
    scores = np.concatenate([np.arange(100, 80, -1.0), [81.5, 3.0]])[None].astype(np.float32)
    labels = np.concatenate([np.ones(20), [0, 0]])[None].astype(np.uint8)
    # at 82 recall is .95, not above it; 81.5 is normal; at 81 it is 1
    curves = [full_curve(scored_image(scores, y)) for y in (labels, np.zeros_like(labels))]
    assert strict_threshold(curves[0]) == 81.0
    assert np.isnan(strict_threshold(curves[1]))
    flagged_by_nan = open_prediction(labels, scores, float('nan'), 5)
    np.testing.assert_array_equal(flagged_by_nan, labels)


def test_folds_are_weighted_with_their_images():
    perfect = np.diag([4, 4, 2])
    useless = np.array([[0, 4, 0], [4, 0, 0], [0, 0, 2]])
    folds = [np.stack([perfect] * 3), np.stack([useless])]
    samples = two_fold_samples(folds, [np.ones((2, 3)), np.ones((2, 1))], known=2)
    assert samples.tolist() == pytest.approx([0.75, 0.75])


def test_samples_are_the_metric_of_the_drawn_frames():
    matrices = np.stack([confusion(*random_labels(seed), 5) for seed in range(4)])
    samples = mean_iou_samples(matrices, np.array([[2.0, 0, 1, 1]]))
    assert samples[0] == pytest.approx(mean_iou(matrices[[0, 0, 2, 3]].sum(0)), abs=1e-12)


def test_all_ignored_is_undefined():
    void = np.full((2, 2), 255, np.uint8)
    assert np.isnan(mean_iou(confusion(void, void, 3)))


def test_bad_input_is_named():
    zeros = np.zeros((2, 2), np.uint8)
    with pytest.raises(DataError, match='differ in size'):
        confusion(zeros, zeros[:1], 3)
    with pytest.raises(DataError, match='predicted class 7'):
        confusion(zeros + np.uint8(7), zeros, 3)
    with pytest.raises(DataError, match='NaN: 4'):
        open_prediction(zeros, np.full((2, 2), np.nan, np.float32), 1.0, 3)


def test_iou_of_a_known_confusion():
    matrix = np.array([[6, 2, 0], [1, 3, 0], [0, 0, 0]])
    np.testing.assert_allclose(class_iou(matrix), [6 / 9, 3 / 6, np.nan])
