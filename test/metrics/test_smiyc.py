# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The leaderboard's curve against a slow one by the letter, and against its own output."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from ood_perception.errors import DataError
from ood_perception.metrics.pixel import exact_metrics, scored_image
from ood_perception.metrics.smiyc import METRICS, smiyc_frame, smiyc_metrics, smiyc_samples

NAMES = ('average_precision', 'auroc', 'fpr95', 'best_f1', 'best_f1_threshold')


# AP, AUROC, FPR95, best F1 and its threshold, by the benchmark's evaluator (commit 1c7804e)
OFFICIAL = {
    'plain': [
        0.29826036420003027,
        0.7961253975352813,
        0.6804909560723514,
        0.30952380952380953,
        1.9143669605255127,
    ],
    'saturated': [
        0.08411498209914632,
        0.7654413883919698,
        0.6804909560723514,
        0.1758055398530243,
        1.399999976158142,
    ],
    'quiet_frame': [
        0.19485570948797762,
        0.8481226503759399,
        0.5332080200501254,
        0.3157894736842105,
        1.9526172876358032,
    ],
}


def official_case(name):
    """Return the four frames that the official figures belong to."""
    rng = np.random.default_rng(2026)
    frames = []
    for number in range(4):
        labels = np.zeros((60, 80), np.uint8)
        labels[10 : 14 + 6 * number, 20:30] = 1
        if name == 'quiet_frame' and number > 0:
            labels[:] = 0
        scores = rng.random((60, 80)) + rng.random((60, 80)) + 0.5 * labels
        labels[50:] = 255
        if name == 'saturated':
            scores = np.minimum(scores, 1.4)
        frames.append((scores.astype(np.float32), labels))
    return frames


def random_frames(seed):
    """Return [(scores, labels)]: some saturated, rounded, or without anomaly."""
    rng = np.random.default_rng(seed)
    frames = []
    for number in range(rng.integers(1, 6)):
        shape = tuple(rng.integers(8, 40, 2))
        labels = (rng.random(shape) < rng.choice([0.0, 0.05, 0.3])).astype(np.uint8)
        if number == 0:
            labels[:2] = 1
        labels[-1] = 0
        labels[rng.random(shape) < 0.1] = 255
        labels[0, 0], labels[-1, -1] = (number == 0), 0
        scores = rng.normal(size=shape) + (labels == 1)
        if seed % 4 == 1:
            scores = np.minimum(scores, 0.5)
        elif seed % 4 == 2:
            scores = np.round(scores * 3) / 3
        frames.append((scores.astype(np.float32), labels))
    return frames


def by_the_letter(frames, kind):
    """Every step of the benchmark's curve with numpy.histogram and loops."""
    thresholds, found, alarms = [], [], []
    for scores, labels in frames:
        values = scores[labels < 255].astype(kind)
        truth = labels[labels < 255] == 1
        margin = np.maximum((values.max() - values.min()) * 1e-2, 1e-2)
        edges = [[values.min() - margin, values.max() + margin]]
        for part in (values[truth], values[~truth]):
            if part.size:
                edges.append(np.quantile(part, np.linspace(0, 1, min(384, part.size))))
        edges = np.unique(np.concatenate(edges))
        thresholds += list(edges[:-1][::-1])
        found += list(np.histogram(values[truth], edges)[0][::-1])
        alarms += list(np.histogram(values[~truth], edges)[0][::-1])
    order = np.argsort(np.array(thresholds))[::-1]
    points, tp, fp = [], 0, 0
    for rank, place in enumerate(order):
        tp, fp = tp + found[place], fp + alarms[place]
        last = rank + 1 == len(order) or thresholds[order[rank + 1]] != thresholds[place]
        if rank == 0 or last:
            points.append((thresholds[place], tp, fp))
    if points[0][1] or points[0][2]:
        points.insert(0, (points[0][0] + 1, 0, 0))
    average = area = 0.0
    for (_, tp0, fp0), (_, tp1, fp1) in pairwise(points):
        average += (tp1 - tp0) / tp * (tp1 / (tp1 + fp1) if tp1 + fp1 else 1.0)
        area += (fp1 - fp0) / fp * (tp1 + tp0) / 2 / tp
    f1 = [2 * t / (t + f + tp) for _, t, f in points]
    fpr95 = next(f / fp for _, t, f in points if t / tp >= 0.95)
    return average, area, fpr95, max(f1), points[int(np.argmax(f1))][0]


@pytest.mark.parametrize('kind', [np.float32, np.float16])
def test_the_curve_is_the_benchmarks_to_the_letter(kind):
    for seed in range(120):
        frames = random_frames(seed)
        got = smiyc_metrics(
            [smiyc_frame(scored_image(*f), float16=kind is np.float16) for f in frames]
        )
        values = tuple(getattr(got, name) for name in NAMES)
        assert values == pytest.approx(by_the_letter(frames, kind), rel=1e-9, abs=1e-9), seed


@pytest.mark.parametrize('case', [*OFFICIAL])
def test_the_benchmarks_own_evaluator_gave_these_figures(case):
    """Made by running the evaluator at commit 1c7804e on the same arrays."""
    got = smiyc_metrics([smiyc_frame(scored_image(*f)) for f in official_case(case)])
    assert [getattr(got, name) for name in NAMES] == pytest.approx(OFFICIAL[case], rel=1e-9)


def test_saturated_scores_make_the_order_of_frames_matter():
    """Equal highest thresholds: the first point holds one frame's pixels only."""
    frames = [smiyc_frame(scored_image(*f)) for f in official_case('saturated')]
    values = {smiyc_metrics(frames[k:] + frames[:k]).average_precision for k in range(4)}
    exact = exact_metrics([scored_image(*f) for f in official_case('saturated')])
    assert len(values) > 1
    assert all(abs(value - exact.average_precision) > 1e-4 for value in values)


def test_without_ties_it_approaches_the_exact_metrics():
    rng = np.random.default_rng(3)
    labels = (rng.random((4, 200, 200)) < 0.1).astype(np.uint8)
    scores = (rng.normal(size=labels.shape) + 1.5 * labels).astype(np.float32)
    images = [scored_image(s, y) for s, y in zip(scores, labels, strict=True)]
    got, exact = smiyc_metrics([smiyc_frame(p) for p in images]), exact_metrics(images)
    for name in NAMES[:4]:
        assert getattr(got, name) == pytest.approx(getattr(exact, name), abs=3e-3)


def test_a_frame_without_anomaly_coarsens_the_curve():
    """768 bins for one frame with few anomalies: the quiet frame's bins hide where they rank."""
    images = [scored_image(*f) for f in official_case('quiet_frame')]
    got = smiyc_metrics([smiyc_frame(p) for p in images]).average_precision
    assert abs(got - exact_metrics(images).average_precision) > 1e-3


def test_samples_are_the_metrics_of_the_drawn_frames():
    frames = [smiyc_frame(scored_image(*f)) for f in official_case('plain')]
    samples = smiyc_samples(frames, np.array([[1, 1, 1, 1], [2, 0, 1, 1]], float))
    whole = smiyc_metrics(frames)
    drawn = smiyc_metrics([frames[0], frames[0], frames[2], frames[3]])
    for name in METRICS:
        assert samples[name] == pytest.approx([getattr(whole, name), getattr(drawn, name)])


def test_edge_cases():
    quiet = scored_image(np.ones((2, 2), np.float32), np.zeros((2, 2), np.uint8))
    void = scored_image(np.ones((2, 2), np.float32), np.full((2, 2), 255, np.uint8))
    one = scored_image(np.ones((1, 1), np.float32), np.ones((1, 1), np.uint8))
    for frames in ([], [void], [quiet, void]):
        got = smiyc_metrics([smiyc_frame(p) for p in frames])
        assert np.isnan([getattr(got, name) for name in NAMES]).all()
    got = smiyc_metrics([smiyc_frame(one), smiyc_frame(void)])
    assert (got.average_precision, got.best_f1, got.best_f1_threshold) == (1, 1, 1)
    assert np.isnan([got.auroc, got.fpr95]).all()


def test_scores_that_cannot_be_histogrammed_are_named():
    labels = np.array([[0, 1]], np.uint8)
    big = scored_image(np.array([[1, 1e6]], np.float32), labels)
    assert smiyc_frame(big).found.sum() == 1
    with pytest.raises(DataError, match='inf cannot be histogrammed as float16'):
        smiyc_frame(big, float16=True)
