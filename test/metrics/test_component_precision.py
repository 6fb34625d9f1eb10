# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Component-averaged AP: against a count by hand, scikit-learn's weights, and closed forms."""

import numpy as np
import pytest

from ood_perception.metrics import binning as bins
from ood_perception.metrics.aupro import component_shares, region_image
from ood_perception.metrics.bootstrap import ImageHistograms, metric_samples, resample_weights
from ood_perception.metrics.pixel import exact_metrics, scored_image

ndimage = pytest.importorskip('scipy.ndimage')
EIGHT = np.ones((3, 3), int)


def photo(seed, step=0.0, height=24, width=30):
    """Return scores with ties, labels of several objects of different sizes, and a region."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((height, width), np.uint8)
    for _ in range(rng.integers(1, 6)):
        y, x = rng.integers(0, height - 2), rng.integers(0, width - 2)
        labels[y : y + rng.integers(1, 8), x : x + rng.integers(1, 8)] = 1
    labels[: rng.integers(0, 4)] = 255
    scores = rng.gamma(1.0, 1.0, labels.shape) + (labels == 1) * rng.normal(1, 1, labels.shape)
    scores = np.abs(scores)
    if step:
        scores = np.floor(scores / step) * step
    roi = np.zeros(labels.shape, bool)
    roi[rng.integers(0, height // 2) :, rng.integers(0, width // 3) :] = True
    return scores.astype(np.float32), labels, roi


def exact(*images):
    """Return the component-averaged AP of pooled images."""
    return exact_metrics(images).component_average_precision


def by_hand(images, smallest):
    """
    Walk down every threshold and look at every object.

    Recall: the mean over objects of their found share, an object that the region cuts counting
    with its share inside. Precision: as if the anomaly pixels were spread evenly over objects.
    """
    objects, normal, positives = [], [], 0
    for scores, labels, roi in images:
        numbers, count = ndimage.label(labels == 1, EIGHT)
        for number in range(1, count + 1):
            whole = numbers == number
            if whole.sum() >= smallest:
                objects.append((scores[whole & roi], whole.sum()))
        normal += list(scores[(labels == 0) & roi])
        positives += int(((labels == 1) & roi).sum())
    total = sum(len(inside) / size for inside, size in objects)
    if total == 0:
        return float('nan')
    normal = np.array(normal)
    area, last = 0.0, 0.0
    for threshold in sorted({float(s) for inside, _ in objects for s in inside}, reverse=True):
        recall = sum((inside >= threshold).sum() / size for inside, size in objects) / total
        found, alarms = recall * positives, (normal >= threshold).sum()
        area += (recall - last) * found / (found + alarms)
        last = recall
    return area


@pytest.mark.parametrize('seed', range(60))
def test_every_threshold_and_object_counted_by_hand(seed):
    images = [photo(10 * seed + i, step=(0.0, 0.25)[seed % 2]) for i in range(3)]
    smallest = (1, 4, 20)[seed % 3]
    split = [region_image(*one, smallest) for one in images]
    assert exact(*split) == pytest.approx(by_hand(images, smallest), abs=1e-12, nan_ok=True)


@pytest.mark.parametrize('seed', range(40))
def test_it_is_the_weighted_average_precision_of_scikit_learn(seed):
    metrics = pytest.importorskip('sklearn.metrics')
    scores, labels, _ = photo(seed, step=0.5 * (seed % 2))
    anomaly = labels == 1
    shares, _ = component_shares(anomaly)
    weights = np.ones(labels.shape)
    weights[anomaly] = shares * anomaly.sum() / shares.sum()
    valid = labels <= 1
    expected = metrics.average_precision_score(
        anomaly[valid], scores[valid], sample_weight=weights[valid]
    )
    got = exact(region_image(scores, labels))
    assert got == pytest.approx(expected, abs=1e-12)


def test_objects_of_one_size_give_the_plain_average_precision():
    rng = np.random.default_rng(3)
    labels = np.zeros((20, 40), np.uint8)
    for x in range(1, 40, 6):
        labels[5:9, x : x + 3] = 1
    scores = rng.random(labels.shape).astype(np.float32)
    expected = exact_metrics([scored_image(scores, labels)]).average_precision
    assert exact(region_image(scores, labels)) == pytest.approx(expected)


@pytest.mark.parametrize('small', [1, 4, 100])
def test_a_missed_object_costs_half_of_two_whatever_its_size(small):
    """One object above all normal pixels, one below: 1/2 at precision 1, 1/2 at chance."""
    labels = np.zeros((40, 40), np.uint8)
    labels[:20, :20] = 1
    labels[30 : 30 + min(small, 10), 30 : 30 + max(1, small // 10)] = 1
    scores = np.full(labels.shape, 0.5, np.float32)
    scores[:20, :20] = 1
    scores[25:][labels[25:] == 1] = 0.1
    chance = (labels == 1).mean()
    got = exact(region_image(scores, labels))
    assert got == pytest.approx(0.5 + 0.5 * chance)


def test_without_a_component_that_counts_it_is_undefined():
    scores, labels = np.ones((8, 8), np.float32), np.zeros((8, 8), np.uint8)
    assert np.isnan(exact(region_image(scores, labels)))
    labels[3, 3] = 1
    assert np.isnan(exact(region_image(scores, labels, None, 2)))
    assert exact(region_image(scores, labels)) == pytest.approx(1 / 64)


def binned(one, smallest):
    scores, labels, roi = one
    counts = bins.label_counts(scores, labels, roi)
    anomaly = labels == 1
    shares, _ = component_shares(anomaly, smallest)
    return counts[1, 1], counts[1, 0], bins.share_sums(scores, anomaly, roi, shares)[1]


@pytest.mark.parametrize('seed', range(60))
def test_the_exact_value_lies_inside_the_bounds_of_the_bins(seed):
    scale = (1.0, 0.001, 40.0)[seed % 3]  # ordinary, nearly all in the lowest bins, above the last
    scores, labels, roi = photo(seed)
    one = (scores * np.float32(scale), labels, roi)
    positives, negatives, shares = binned(one, 4)
    got = bins.binned_metrics(positives, negatives, 0, shares).component_average_precision
    wanted = exact(region_image(*one, 4))
    if np.isnan(wanted):
        assert np.isnan(got.value)
        return
    assert got.low - 1e-12 <= wanted <= got.high + 1e-12
    assert got.low - 1e-12 <= got.value <= got.high + 1e-12


def test_every_draw_of_images_is_the_value_of_those_images():
    images = [photo(seed) for seed in range(8)]
    counted = [binned(one, 1) for one in images]
    positives, negatives, shares = (np.stack(part) for part in zip(*counted, strict=True))
    starts = bins.coarse_starts(positives.sum(0), negatives.sum(0))
    coarse = ImageHistograms(
        bins.lower_edges()[starts],
        np.add.reduceat(positives, starts, axis=1),
        np.add.reduceat(negatives, starts, axis=1),
        np.zeros(8, np.int64),
        np.add.reduceat(shares, starts, axis=1),
    )
    weights = resample_weights(8, 20)
    got = metric_samples(coarse, weights)['component_average_precision']
    for row, value in zip(weights.astype(int), got, strict=True):
        drawn = [region_image(*images[i]) for i, times in enumerate(row) for _ in range(times)]
        assert value == pytest.approx(exact(*drawn), abs=2e-3)


def test_without_weights_only_this_metric_is_undefined():
    scores, labels, roi = photo(1)
    positives, negatives, _ = binned((scores, labels, roi), 1)
    got = bins.binned_metrics(positives, negatives)
    assert np.isnan(got.component_average_precision.value)
    assert got.average_precision.value == pytest.approx(
        exact_metrics([scored_image(scores, labels, roi)]).average_precision, abs=1e-3
    )
