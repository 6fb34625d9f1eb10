# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""AP by object: each bin against sklearn's AP of its objects and all normal pixels."""

from __future__ import annotations

import numpy as np
import pytest

from ood_perception.metrics.by_object import EDGES, ROW, SIZE, object_counts

sklearn_metrics = pytest.importorskip('sklearn.metrics')
WIDTH, HEIGHT = 400, 300


def photo(seed):
    """Return scores, labels with a square of 4, 12 and 40 pixels side, and the region."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[100:104, 50:54] = 1  # 1 % wide, ends at row 0.35
    labels[150:162, 100:112] = 1  # 3 %, 0.54
    labels[180:220, 200:240] = 1  # 10 %, 0.73
    labels[:20] = 255
    scores = rng.gamma(2.0, 1.0, labels.shape) + 1.5 * (labels == 1)
    inside = np.ones(labels.shape, bool)
    inside[:, 220:] = False
    return scores.astype(np.float32), labels, inside


@pytest.mark.parametrize(
    ('kind', 'squares'),
    [
        (SIZE, {1: (100, 4), 2: (150, 12), 3: (180, 40)}),
        (ROW, {0: (100, 4), 1: (150, 12), 3: (180, 40)}),
    ],
)
def test_each_bin_holds_its_objects_and_all_normal_pixels(kind, squares):
    parts = [photo(seed) for seed in (0, 1)]
    first, second = (object_counts(*part) for part in parts)
    both = first + second
    found = both.average_precision(kind)
    assert len(found) == len(EDGES[kind]) + 1
    for place, value in enumerate(found):
        if place not in squares:
            assert value is None
            assert both.objects[kind][place] == 0
            continue
        assert both.objects[kind][place] == 2
        top, side = squares[place]
        scores, truth = [], []
        for values, labels, inside in parts:
            rows = slice(top, top + side)
            mine = np.zeros(labels.shape, bool)
            mine[rows] = labels[rows] == 1
            chosen = inside & (mine | (labels == 0))
            scores.append(values[chosen])
            truth.append(mine[chosen])
        expected = sklearn_metrics.average_precision_score(
            np.concatenate(truth), np.concatenate(scores)
        )
        assert value == pytest.approx(expected, abs=2e-3)


def test_without_an_object_there_is_no_value():
    scores, labels, inside = photo(0)
    counts = object_counts(scores, np.minimum(labels, 0), inside)
    assert counts.average_precision(SIZE) == [None] * 4
    assert counts.negatives.sum() == inside.sum()
