# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest

from ood_perception.errors import DataError
from ood_perception.metrics.bootstrap import (
    image_histograms,
    metric_intervals,
    paired_difference,
    percentile_interval,
    resample_weights,
)
from ood_perception.metrics.pixel import exact_metrics, scored_image


def make_rows(images=12, gain=0.4, seed=0):
    """Two detectors on the same images: the second adds `gain` to the anomalies."""
    rng = np.random.default_rng(seed)
    rows = ([], [])
    for _ in range(images):
        labels = (rng.random((40, 50)) < 0.08).astype(np.uint8)
        scores = rng.gamma(2, 0.5, labels.shape) + labels * rng.gamma(2, 0.5)
        for row, extra in zip(rows, (0.0, gain), strict=True):
            row.append(scored_image((scores + extra * labels).astype(np.float32), labels))
    return rows


def test_weights_draw_as_many_images_as_there_are():
    weights = resample_weights(7, 500, seed=3)
    assert weights.shape == (500, 7)
    np.testing.assert_array_equal(weights.sum(1), 7)
    np.testing.assert_allclose(weights.mean(0), 1.0, atol=0.2)
    np.testing.assert_array_equal(weights, resample_weights(7, 500, seed=3))
    assert not np.array_equal(weights, resample_weights(7, 500, seed=4))


def test_interval_is_that_of_really_drawn_images():
    """Drawing images and pooling their pixels exactly gives the same interval."""
    images, _ = make_rows()
    got = metric_intervals(image_histograms(images), resamples=200, seed=1)
    weights = resample_weights(len(images), 200, seed=1).astype(int)
    samples = [
        exact_metrics([p for p, times in zip(images, row, strict=True) for _ in range(times)])
        for row in weights
    ]
    wanted = percentile_interval(np.array([s.average_precision for s in samples]))
    assert got['average_precision'].low == pytest.approx(wanted.low, abs=5e-4)
    assert got['average_precision'].high == pytest.approx(wanted.high, abs=5e-4)


def test_interval_holds_the_estimate_and_repeats():
    images, _ = make_rows()
    binned = image_histograms(images)
    first, second = (metric_intervals(binned, seed=5) for _ in range(2))
    np.testing.assert_equal(*({n: astuple(i) for n, i in r.items()} for r in (first, second)))
    value = exact_metrics(images).auroc
    assert first['auroc'].low < value < first['auroc'].high


def test_pairing_resolves_what_apart_intervals_do_not():
    worse, better = (image_histograms(row) for row in make_rows(gain=0.1))
    apart = metric_intervals(better)['auroc'].low > metric_intervals(worse)['auroc'].high
    paired = paired_difference(better, worse)['auroc']
    assert not apart
    assert paired.low > 0
    assert paired.excludes_zero


def test_a_row_against_itself_differs_by_nothing():
    row = image_histograms(make_rows()[0])
    difference = paired_difference(row, row)['average_precision']
    assert (difference.low, difference.high) == (0.0, 0.0)
    assert not difference.excludes_zero


def test_draws_without_anomalies_are_counted_not_scored():
    rng = np.random.default_rng(0)
    labels = np.zeros((3, 20, 20), np.uint8)
    labels[0, :3] = 1
    images = [scored_image(rng.random(y.shape, np.float32), y) for y in labels]
    got = metric_intervals(image_histograms(images), resamples=300)['average_precision']
    assert 300 * 0.1 < got.undefined < 300 * 0.5
    assert 0 <= got.low <= got.high <= 1


def test_unpaired_rows_are_refused():
    rows = make_rows()
    with pytest.raises(DataError, match='12 and 3 images'):
        paired_difference(image_histograms(rows[0]), image_histograms(rows[1][:3]))
    with pytest.raises(DataError, match='0 images'):
        resample_weights(0)
