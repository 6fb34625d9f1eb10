# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""AUPRO against every threshold tried in turn, image AUROC against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest

from ood_perception.errors import ConfigError, DataError
from ood_perception.metrics.aupro import FPR_LIMIT, aupro, image_auroc, region_image
from ood_perception.metrics.bootstrap import image_histograms
from ood_perception.metrics.pixel import full_curve, pool


def random_images(seed, shape=(9, 11)):
    """Return scores float32 and labels uint8, both (n, H, W); ties in every second case."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((rng.integers(1, 5), *shape)) < 0.15).astype(np.uint8)
    labels[0, 0, 0], labels[0, -1, -1] = 1, 0
    scores = rng.gamma(2, 0.5, labels.shape) + labels * rng.random()
    labels[rng.random(labels.shape) < 0.05] = 255
    labels[0, 0, 0], labels[0, -1, -1] = 1, 0
    if seed % 2:
        scores = np.round(scores * 3) / 3
    return scores.astype(np.float32), labels


def exact(images, limit=FPR_LIMIT):
    """Return the AUPRO of pooled images."""
    pixels = pool(images)
    return float(aupro(full_curve(pixels), pixels.components, limit))


def drawn(images, weights):
    """Return the AUPRO of each multiset of images."""
    histograms = image_histograms(images)
    return aupro(histograms.curve(weights), weights @ histograms.components)


def at_every_threshold(scores, labels, limit):
    """Return AUPRO by labelling with scipy and one loop over thresholds."""
    ndimage = pytest.importorskip('scipy.ndimage')
    regions = []
    for photo, truth in zip(scores, labels, strict=True):
        numbers, count = ndimage.label(truth == 1, np.ones((3, 3)))
        regions += [photo[numbers == k + 1] for k in range(count)]
    normal = scores[labels == 0]
    x, y = [0.0], [0.0]
    for threshold in np.unique(scores[labels < 2])[::-1]:
        x.append(np.mean(normal >= threshold))
        y.append(np.mean([np.mean(region >= threshold) for region in regions]))
    x, y = np.array([*x, 1.0]), np.array([*y, 1.0])
    last = np.flatnonzero(x <= limit)[-1]
    cut_x, cut_y = [*x[: last + 1], limit], [*y[: last + 1], y[last]]
    if x[last] < limit:
        slope = (y[last + 1] - y[last]) / (x[last + 1] - x[last])
        cut_y[-1] = y[last] + slope * (limit - x[last])
    return np.sum(np.diff(cut_x) * (np.array(cut_y[1:]) + cut_y[:-1])) / 2 / limit


@pytest.mark.parametrize('limit', [0.3, 0.05, 1.0])
def test_aupro_equals_every_threshold_tried(limit):
    for seed in range(80):
        scores, labels = random_images(seed)
        images = [region_image(s, y) for s, y in zip(scores, labels, strict=True)]
        wanted = at_every_threshold(scores, labels, limit)
        assert exact(images, limit) == pytest.approx(wanted, abs=1e-9), seed


def test_small_regions_weigh_as_much_as_large_ones_by_hand():
    """A region of 1 pixel found first, one of 4 found last, after both normal pixels."""
    scores = np.array([[9, 5, 4, 0, 1, 1, 1, 1]], np.float32)
    labels = np.array([[1, 0, 0, 0, 1, 1, 1, 1]], np.uint8)
    # PRO .5 from FPR 0 to 2/3, then 1 at 2/3
    photo = region_image(scores, labels)
    assert photo.components == 2
    assert exact([photo], 0.3) == pytest.approx(0.5)
    assert exact([photo], 1.0) == pytest.approx((0.5 * 2 / 3 + 1 / 3) / 1.0)


def test_all_scores_equal_is_the_diagonal_by_hand():
    photo = region_image(np.ones((1, 4), np.float32), np.eye(4)[:1].astype('u1'))
    assert exact([photo], 0.3) == pytest.approx(0.15)


def test_edge_cases_give_nan_or_one():
    ones = np.ones((1, 1), np.float32)
    for label in (0, 1, 255):
        photo = region_image(ones, np.full((1, 1), label, np.uint8))
        assert np.isnan(exact([photo]))
    assert np.isnan(exact([]))
    perfect = region_image(np.array([[2, 1]], np.float32), np.array([[1, 0]], np.uint8))
    assert exact([perfect]) == 1.0


def test_samples_are_the_metric_of_the_drawn_images():
    scores, labels = random_images(2)
    scores, labels = (
        np.repeat(scores, 3, 0)[:3] + np.float32([[[0]], [[0.1]], [[0.2]]]),
        labels[:1],
    )
    images = [region_image(s, labels[0]) for s in scores]
    weights = np.array([[1, 1, 1], [2, 0, 1], [0, 0, 3]])
    samples = drawn(images, weights.astype(float))
    for sample, row in zip(samples, weights, strict=True):
        chosen = [p for p, times in zip(images, row, strict=True) for _ in range(times)]
        assert sample == pytest.approx(exact(chosen), abs=1e-12)


def test_binned_samples_of_large_sets_are_close():
    scores, labels = random_images(4, (150, 150))
    images = [region_image(s, y) for s, y in zip(scores, labels, strict=True)]
    sample = drawn(images, np.ones((1, len(images))))[0]
    assert sample == pytest.approx(exact(images), abs=1e-4)


def test_a_draw_without_anomalies_is_undefined():
    scores, labels = random_images(4)
    images = [region_image(s, y) for s, y in zip(scores, labels * [[[1]]], strict=True)]
    images.append(region_image(scores[0], np.zeros_like(labels[0])))
    only_last = np.zeros((1, len(images)))
    only_last[0, -1] = 2
    assert np.isnan(drawn(images, only_last)[0])


def test_image_auroc_equals_scikit_learn_also_when_images_repeat():
    sklearn = pytest.importorskip('sklearn.metrics')
    for seed in range(200):
        rng = np.random.default_rng(seed)
        count = int(rng.integers(2, 30))
        truth = (rng.random(count) < 0.5).astype(np.uint8)
        truth[:2] = (0, 1)
        scores = np.round(rng.normal(size=count) + truth, seed % 3)
        weights = rng.integers(1, 4, (2, count)).astype(float)
        wanted = [sklearn.roc_auc_score(truth, scores, sample_weight=row) for row in weights]
        assert image_auroc(scores, truth, weights) == pytest.approx(wanted, abs=1e-9)
        assert image_auroc(scores, truth)[0] == pytest.approx(sklearn.roc_auc_score(truth, scores))


def test_image_auroc_is_undefined_without_both_kinds():
    for truth in ([0, 0], [1, 1]):
        assert np.isnan(image_auroc(np.array([1.0, 2.0]), np.array(truth, np.uint8))[0])
    assert np.isnan(image_auroc(np.empty(0), np.empty(0, np.uint8))[0])


def test_bad_input_is_named():
    with pytest.raises(ConfigError, match='FPR limit 0'):
        exact([], 0.0)
    with pytest.raises(DataError, match='differ in size'):
        region_image(np.ones((2, 3), np.float32), np.ones((3, 2), np.uint8))
    with pytest.raises(DataError, match='do not match'):
        image_auroc(np.array([np.nan]), np.ones(1, np.uint8))
