# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Component metrics against pixel sets with scipy's labelling, and worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from ood_perception.errors import ConfigError, DataError
from ood_perception.metrics.smiyc import (
    SIZE_LIMITS,
    TAUS,
    SizeLimits,
    component_counts,
    component_metrics,
    component_samples,
    frame_components,
    predicted_mask,
    size_limits,
)

ALL = SIZE_LIMITS['none']
F1 = [f'f1_{tau:.2f}' for tau in TAUS]


def random_frame(seed):
    """Return (mask, labels, limits)."""
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(6, 30, 2))
    labels = (rng.random(shape) < rng.choice([0.1, 0.3])).astype(np.uint8)
    mask = (rng.random(shape) < 0.2) | ((labels == 1) & (rng.random(shape) < 0.6))
    labels[rng.random(shape) < 0.1] = 255
    return mask, labels, SizeLimits(int(rng.integers(1, 9)), int(rng.integers(1, 9)))


def by_pixel_sets(mask, labels, limits):
    """Return sorted sIoU and PPV with Python sets, by the definition."""
    ndimage = pytest.importorskip('scipy.ndimage')

    def components(area):
        numbers, count = ndimage.label(area, np.ones((3, 3)))
        return [{*map(tuple, np.argwhere(numbers == k + 1))} for k in range(count)]

    true = components(labels == 1)
    ignored = {*map(tuple, np.argwhere(labels == 255))}
    ignored |= {pixel for k in true if len(k) < limits.true for pixel in k}
    true = [k for k in true if len(k) >= limits.true]
    predicted = [j for j in components(mask & (labels != 255)) if len(j) >= limits.predicted]
    predicted = [j - ignored for j in predicted if j - ignored]
    siou = []
    for k in true:
        touching = [j for j in predicted if j & k]
        joined = set().union(*touching)
        others = set().union(*(o for o in true if o is not k))
        union = len(joined) + len(k) - len(joined & k) - len(joined & others)
        siou.append(len(joined & k) / union)
    everything = set().union(*true)
    return sorted(siou), sorted(len(j & everything) / len(j) for j in predicted)


def test_components_equal_pixel_sets_on_random_frames():
    for seed in range(240):
        mask, labels, limits = random_frame(seed)
        got = frame_components(mask, labels, limits)
        siou, ppv = by_pixel_sets(mask, labels, limits)
        assert sorted(got.siou) == pytest.approx(siou, abs=1e-12), seed
        assert sorted(got.ppv) == pytest.approx(ppv, abs=1e-12), seed


def test_counts_are_summed_over_the_set():
    cases = [random_frame(seed) for seed in range(30)]
    frames = [frame_components(*case) for case in cases]
    got = component_metrics(frames)
    siou = np.concatenate([f.siou for f in frames])
    ppv = np.concatenate([f.ppv for f in frames])
    f1 = []
    for tau in TAUS:
        found, missed, false = (siou >= tau).sum(), (siou < tau).sum(), (ppv < tau).sum()
        f1.append(2 * found / (2 * found + missed + false))
    assert [got[name] for name in F1] == pytest.approx(f1, abs=1e-12)
    assert got['mean_f1'] == pytest.approx(np.mean(f1), abs=1e-12)
    assert (got['siou'], got['ppv']) == pytest.approx((siou.mean(), ppv.mean()), abs=1e-12)
    assert component_counts(frames) == {'true': siou.size, 'predicted': ppv.size}


def test_one_prediction_over_two_objects_by_hand():
    """Two objects of 4 pixels and one prediction of 12 that covers both: 4 / (12 + 4 - 4 - 4)."""
    labels = np.zeros((3, 12), np.uint8)
    labels[1, 0:4] = labels[1, 6:10] = 1
    mask = np.zeros(labels.shape, bool)
    mask[1] = True
    got = frame_components(mask, labels, ALL)
    assert got.siou.tolist() == [0.5, 0.5]
    assert got.ppv.tolist() == pytest.approx([8 / 12])
    metrics = component_metrics([got])
    # tau .25 ... .50: two hits; .55 ... .75: two misses. False alarms from tau .70 on.
    assert [metrics[name] for name in F1] == [1.0] * 6 + [0.0] * 5
    assert metrics['mean_f1'] == pytest.approx(6 / 11)


def test_diagonal_pixels_are_one_component():
    mask = np.eye(4, dtype=bool)
    got = frame_components(mask, mask.astype(np.uint8), ALL)
    assert (got.siou.tolist(), got.ppv.tolist()) == ([1.0], [1.0])


def test_small_predictions_vanish_and_small_objects_are_ignored():
    labels = np.zeros((12, 12), np.uint8)
    labels[0, :9] = 1  # 9 pixels: too small to be a true component
    labels[6:9, :5] = 1
    mask = np.zeros(labels.shape, bool)
    mask[0, :9] = mask[1, :9] = True  # 18 pixels, of which 9 become ignored after the size test
    mask[11, :9] = True  # 9 pixels: removed
    got = frame_components(mask, labels, SizeLimits(predicted=10, true=10))
    assert got.siou.tolist() == [0.0]
    assert got.ppv.tolist() == [0.0]


def test_a_prediction_that_lies_on_ignored_objects_alone_does_not_count():
    labels = np.zeros((4, 4), np.uint8)
    labels[0, 0] = 1
    got = frame_components(labels == 1, labels, SizeLimits(predicted=1, true=2))
    assert (got.siou.size, got.ppv.size) == (0, 0)


def test_tracks_have_the_benchmarks_limits():
    assert (size_limits('anomaly_track').predicted, size_limits('anomaly_track').true) == (
        500,
        100,
    )
    for track in ('obstacle_track', 'lost_and_found'):
        assert (size_limits(track).predicted, size_limits(track).true) == (50, 10)
    with pytest.raises(ConfigError, match='anomaly_track'):
        size_limits('anomalies')


def test_the_strict_threshold_loses_quantised_scores():
    """All of the object has the score of the best threshold: > finds nothing, >= all."""
    scores = np.eye(5, dtype=np.float32)
    labels = np.eye(5, dtype=np.uint8)
    results = [
        component_metrics([frame_components(predicted_mask(scores, 1.0, strict), labels, ALL)])
        for strict in (True, False)
    ]
    assert [r['mean_f1'] for r in results] == [0.0, 1.0]
    below = np.nextafter(np.float32(1), np.float32(0))
    np.testing.assert_array_equal(predicted_mask(scores, below), predicted_mask(scores, 1, False))


@pytest.mark.parametrize(
    ('mask', 'labels', 'siou', 'ppv', 'mean_f1'),
    [
        (0, 0, np.nan, np.nan, np.nan),  # nothing there, nothing said
        (1, 0, np.nan, 0.0, 0.0),  # a false alarm alone
        (0, 1, 0.0, np.nan, 0.0),  # a miss alone
        (1, 1, 1.0, 1.0, 1.0),
        (1, 255, np.nan, np.nan, np.nan),  # all ignored
    ],
)
def test_edge_cases_give_what_the_documentation_says(mask, labels, siou, ppv, mean_f1):
    """One pixel; the same for an empty frame beside it."""
    frame = frame_components(np.full((1, 1), mask, bool), np.full((1, 1), labels, np.uint8), ALL)
    empty = frame_components(np.zeros((1, 1), bool), np.zeros((1, 1), np.uint8), ALL)
    for frames in ([frame], [frame, empty]):
        got = component_metrics(frames)
        assert [got[name] for name in ('siou', 'ppv', 'mean_f1')] == pytest.approx(
            [siou, ppv, mean_f1], nan_ok=True
        )


def test_samples_are_the_metrics_of_the_drawn_frames():
    frames = [frame_components(*random_frame(seed)) for seed in range(6)]
    weights = np.array([[1, 1, 1, 1, 1, 1], [3, 0, 1, 0, 2, 0]])
    samples = component_samples(frames, weights.astype(float))
    for number, row in enumerate(weights):
        drawn = [f for f, times in zip(frames, row, strict=True) for _ in range(times)]
        wanted = component_metrics(drawn)
        for name in ('siou', 'ppv', 'mean_f1'):
            assert samples[name][number] == pytest.approx(wanted[name], abs=1e-12)
        assert samples['f1_0.50'][number] == pytest.approx(wanted['f1_0.50'], abs=1e-12)


def test_bad_input_is_named():
    with pytest.raises(DataError, match='differ in size'):
        frame_components(np.zeros((2, 3), bool), np.zeros((3, 2), np.uint8), ALL)
    with pytest.raises(DataError, match='1 scores are NaN'):
        predicted_mask(np.array([[np.nan, 1]], np.float32), 0.5)
