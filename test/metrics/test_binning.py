# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Fixed bins against the exact metrics of the same pixels: inside the bounds, always."""

import numpy as np
import pytest

from ood_perception.metrics import binning as bins
from ood_perception.metrics.bootstrap import (
    ImageHistograms,
    image_histograms,
    metric_intervals,
)
from ood_perception.metrics.pixel import exact_metrics, pool, scored_image

METRICS = ('average_precision', 'average_precision_with_outside', 'auroc', 'fpr95')


def photo(seed, height=60, width=80, spread=1.0, step=0.0, anomalies=0.05):
    rng = np.random.default_rng(seed)
    labels = (rng.random((height, width)) < anomalies).astype(np.uint8)
    labels[: height // 10] = 255
    scores = rng.gamma(1.0, spread, (height, width)) + 0.8 * spread * (labels == 1)
    if step:
        scores = np.floor(scores / step) * step
    return scores.astype(np.float32), labels, rng.random((height, width)) < 0.7


def counts(scores, labels, inside):
    both = bins.label_counts(scores, labels, inside)
    return both[1, 1], both[1, 0], int(both[0, 1].sum())


def test_bins_keep_the_order_and_hold_what_their_edges_say():
    rng = np.random.default_rng(0)
    scores = np.concatenate([
        [0.0, 2.0**-10, 1.0, 63.9, 64.0, 1e9],
        rng.gamma(0.5, 2.0, 20_000),
    ]).astype(np.float32)  # fmt: skip
    scores.sort()
    got, edges = bins.bin_of(scores), bins.lower_edges()
    assert (np.diff(got) >= 0).all()
    assert (got == np.searchsorted(edges, scores, 'right') - 1).all()
    assert got[-1] == bins.BINS - 1
    inner = edges[2:-1]
    assert (np.diff(inner) / inner[:-1]).max() <= 1 / 4096 + 1e-7


@pytest.mark.parametrize('seed', range(40))
@pytest.mark.parametrize(
    'options',
    [
        {},
        {'spread': 0.001},  # nearly everything in the lowest bins
        {'spread': 40.0},  # many above the last edge
        {'step': 0.5},  # a dozen distinct scores
        {'anomalies': 0.5},
        {'anomalies': 0.0003},
    ],
    ids=str,
)
def test_the_exact_value_lies_inside_the_bounds(seed, options):
    scores, labels, inside = photo(seed, **options)
    exact = exact_metrics([scored_image(scores, labels, inside)])
    got = bins.binned_metrics(*counts(scores, labels, inside))
    assert (got.positives, got.negatives) == (exact.positives, exact.negatives)
    assert got.missed == exact.missed
    for name in METRICS:
        value, low, high = getattr(got, name)
        if exact.positives == 0:
            assert np.isnan(value)
            continue
        assert low - 1e-12 <= getattr(exact, name) <= high + 1e-12, name
        assert low <= value <= high + 1e-12


def test_on_a_whole_image_the_bounds_are_narrow():
    scores, labels, inside = photo(1, 720, 1280)
    got = bins.binned_metrics(*counts(scores, labels, inside))
    for name in METRICS:
        _, low, high = getattr(got, name)
        assert high - low < 5e-4, name


def test_the_best_f1_is_reached_at_its_threshold():
    scores, labels, inside = photo(2)
    got = bins.binned_metrics(*counts(scores, labels, inside))
    flagged, truth = (scores >= got.best_f1_threshold)[inside], labels[inside]
    found, alarms = (flagged & (truth == 1)).sum(), (flagged & (truth == 0)).sum()
    assert got.best_f1[0] == pytest.approx(2 * found / (found + alarms + (truth == 1).sum()))
    tried = [(scores[inside] >= t) for t in np.unique(scores[inside & (labels == 1)])]
    best = max(2 * (f & (truth == 1)).sum() / ((f & (truth < 2)).sum() + (truth == 1).sum())
               for f in tried)  # fmt: skip
    assert got.best_f1[1] - 1e-12 <= best <= got.best_f1[2] + 1e-12


def test_coarse_bins_give_the_intervals_of_the_exact_images():
    images = [photo(seed) for seed in range(12)]
    split = [scored_image(*p) for p in images]
    expected = metric_intervals(image_histograms(split), resamples=300)
    counted = [counts(*p) for p in images]
    positives = np.stack([c[0] for c in counted])
    negatives = np.stack([c[1] for c in counted])
    starts = bins.coarse_starts(positives.sum(0), negatives.sum(0))
    assert starts[0] == 0
    assert len(starts) <= 2048
    coarse = ImageHistograms(
        bins.lower_edges()[starts],
        np.add.reduceat(positives, starts, axis=1),
        np.add.reduceat(negatives, starts, axis=1),
        np.array([c[2] for c in counted]),
    )
    got = metric_intervals(coarse, resamples=300)
    for name in METRICS:
        assert got[name].low == pytest.approx(expected[name].low, abs=1e-3), name
        assert got[name].high == pytest.approx(expected[name].high, abs=1e-3), name
    assert coarse.positives.sum() == pool(split).positives.size
