# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The stated bounds hold on every case, and counting in parts changes nothing."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest

from ood_perception.errors import ConfigError, DataError
from ood_perception.evaluation.aupro import aupro, pool_regions, region_picture
from ood_perception.evaluation.curves import roc_line
from ood_perception.evaluation.metrics import pixel_metrics, pool, scored_picture
from ood_perception.evaluation.streaming import (
    StreamedScores,
    bin_edges,
    score_bins,
)
from ood_perception.evaluation.streaming_aupro import StreamedRegions

NAMES = ('average_precision', 'average_precision_missed', 'auroc', 'fpr95', 'best_f1')
ROUNDING = 1e-12


def random_pictures(seed, shape=(12, 14)):
    """Return [(scores, labels, roi)]; signs, magnitudes, ties and saturation vary."""
    rng = np.random.default_rng(seed)
    pictures = []
    for _ in range(rng.integers(1, 5)):
        labels = (rng.random(shape) < rng.choice([0.0, 0.1, 0.5])).astype(np.uint8)
        scores = rng.gamma(2, 0.5, shape) + labels * rng.normal(0.5, 1)
        scores = scores * [1, -1, 1000, 1e-3][seed % 4] + [0, 1, -5][seed % 3]
        if seed % 5 == 1:
            scores = np.round(scores * 4) / 4
        elif seed % 5 == 2:
            scores = np.minimum(scores, np.median(scores))
        labels[rng.random(shape) < 0.1] = 255
        pictures.append((scores.astype(np.float32), labels, rng.random(shape) < 0.9))
    return pictures


def streamed(pictures, bits):
    counts = StreamedScores(bits)
    for picture in pictures:
        counts.add(picture)
    return counts


@pytest.mark.parametrize('bits', [10, 11, 13, 20])
def test_the_exact_metrics_lie_within_the_bounds(bits):
    for seed in range(80):
        pictures = [scored_picture(*p) for p in random_pictures(seed)]
        exact, got = pixel_metrics(pool(pictures)), streamed(pictures, bits).metrics()
        assert (got.positives, got.negatives, got.missed) == (
            exact.positives,
            exact.negatives,
            exact.missed,
        )
        for name in NAMES:
            bounded, value = getattr(got, name), getattr(exact, name)
            if np.isnan(value):
                assert np.isnan(bounded).all(), (seed, name)
            else:
                assert bounded.low - ROUNDING <= value <= bounded.high + ROUNDING, (seed, name)
                assert bounded.low - ROUNDING <= bounded.value <= bounded.high + ROUNDING


def every_order(taken, wrong):
    """Return two score lists of one bin each: anomalies tied on top, or below one by one."""
    top = [np.full(taken, 2.0), np.full(wrong, 1.0)]
    bottom = [np.arange(taken) / taken, np.full(wrong, 1.0)]
    return top, bottom


@pytest.mark.parametrize(('taken', 'wrong'), [(1, 1), (3, 2), (40, 7), (5, 60)])
def test_the_bounds_are_reached_so_they_cannot_be_tighter(taken, wrong):
    """All in one bin. AUROC, FPR95, F1 exactly; AP from above exactly, from below to its slack."""
    together = scored_picture(
        np.ones((1, taken + wrong), np.float32),
        np.array([[1] * taken + [0] * wrong], np.uint8),
    )
    got = streamed([together], 10).metrics()
    best, worst = (
        pixel_metrics(
            scored_picture(
                np.concatenate(parts)[None].astype(np.float32),
                np.array([[1] * taken + [0] * wrong], np.uint8),
            )
        )
        for parts in every_order(taken, wrong)
    )
    assert (got.auroc.low, got.auroc.high) == (worst.auroc, best.auroc)
    assert (got.fpr95.low, got.fpr95.high) == (best.fpr95, worst.fpr95)
    assert (got.best_f1.low, got.best_f1.high) == (worst.best_f1, best.best_f1)
    assert got.average_precision.high == pytest.approx(best.average_precision)
    slack = worst.average_precision - got.average_precision.low
    assert 0 <= slack < 0.02


def test_bins_keep_the_order_of_all_floats_and_edges_are_their_lowest_scores():
    rng = np.random.default_rng(0)
    patterns = rng.integers(0, 1 << 32, 200_000, dtype=np.uint32)
    scores = patterns.view(np.float32)
    scores = np.sort(scores[~np.isnan(scores)])
    scores = np.concatenate([[-np.inf], scores, [np.inf]]).astype(np.float32)
    for bits in (10, 16, 20):
        bins = score_bins(scores, bits)
        assert np.all(np.diff(bins.astype(np.int64)) >= 0)
        edges = bin_edges(bins.astype(np.int64), bits)
        finite = ~np.isnan(edges)  # the bin of -inf begins among the NaN patterns
        assert np.all(edges[finite] <= scores[finite])
        np.testing.assert_array_equal(score_bins(edges[finite], bits), bins[finite])
    assert score_bins(np.float32([-0.0])) == score_bins(np.float32([0.0]))


def test_bins_are_as_narrow_as_stated():
    scores = np.geomspace(1e-6, 1e3, 5000).astype(np.float32)
    bins = score_bins(scores).astype(np.int64)
    width = (bin_edges(bins + 1) - bin_edges(bins)) / bin_edges(bins)
    assert 1 / 4096 <= width.min() <= width.max() <= 1 / 2048


def test_on_surprisal_of_many_pixels_the_bounds_are_tight():
    rng = np.random.default_rng(2)
    labels = (rng.random((400, 500)) < 0.03).astype(np.uint8)
    surprisal = -np.log10(rng.random(labels.shape)) * (1 + 3 * labels)
    got = streamed([scored_picture(surprisal.astype(np.float32), labels)], 20).metrics()
    for name in NAMES:
        assert getattr(got, name).high - getattr(got, name).low < 2e-3, name


def test_more_bits_never_loosen_the_bounds():
    for seed in range(20):
        pictures = [scored_picture(*p) for p in random_pictures(seed)]
        for name in ('auroc', 'fpr95', 'best_f1', 'average_precision'):
            widths = [
                np.subtract(*getattr(streamed(pictures, bits).metrics(), name)[:0:-1])
                for bits in (10, 13, 16)
            ]
            assert np.isnan(widths).all() or np.all(np.diff(widths) <= ROUNDING), (seed, name)


def test_parts_of_other_processes_merge_to_the_same_counts(tmp_path):
    pictures = [scored_picture(*p) for seed in range(6) for p in random_pictures(seed)]
    whole = streamed(pictures, 12)
    for number in range(3):
        streamed(pictures[number::3], 12).save(tmp_path / f'{number}.npz')
    merged = StreamedScores(12)
    for number in (2, 0, 1):
        merged.merge(StreamedScores.load(tmp_path / f'{number}.npz'))
    np.testing.assert_array_equal(merged.positives, whole.positives)
    np.testing.assert_array_equal(merged.negatives, whole.negatives)
    assert asdict(merged.metrics()) == asdict(whole.metrics())


def test_memory_does_not_grow():
    counts = StreamedScores()
    before = counts.positives.nbytes + counts.negatives.nbytes
    for seed in range(20):
        for picture in random_pictures(seed):
            counts.add(scored_picture(*picture))
    assert counts.positives.nbytes + counts.negatives.nbytes == before == 1 << 24


def test_the_threshold_of_the_best_f1_gives_exactly_that_f1():
    for seed in range(0, 40):
        pictures = [scored_picture(*p) for p in random_pictures(seed)]
        got, pixels = streamed(pictures, 11).metrics(), pool(pictures)
        if got.positives:
            found = np.sum(pixels.positives >= np.float32(got.best_f1_threshold))
            alarms = np.sum(pixels.negatives >= np.float32(got.best_f1_threshold))
            f1 = 2 * found / (found + alarms + got.positives)
            assert got.best_f1.value == pytest.approx(f1, abs=1e-12)


def test_the_curve_holds_exact_points():
    pictures = [scored_picture(*p) for p in random_pictures(3)]
    pixels, line = pool(pictures), roc_line(streamed(pictures, 12).curve())
    for x, y, threshold in zip(line.x[1:], line.y[1:], line.thresholds[1:], strict=True):
        assert x == np.mean(pixels.negatives >= np.float32(threshold))
        assert y == np.mean(pixels.positives >= np.float32(threshold))


@pytest.mark.parametrize('bits', [10, 12, 20])
def test_the_exact_aupro_lies_within_the_bounds(bits):
    for seed in range(70 if bits < 20 else 20):
        pictures = [region_picture(s, y) for s, y, _ in random_pictures(seed)]
        first, second = StreamedRegions(bits), StreamedRegions(bits)
        for number, picture in enumerate(pictures):
            (second if number % 2 else first).add(picture)
        first.merge(second)
        got, exact = first.aupro(), aupro(pool_regions(pictures))
        if np.isnan(exact):
            assert np.isnan(got).all()
        else:
            assert got.low - ROUNDING <= exact <= got.high + ROUNDING, seed
            assert got.low - ROUNDING <= got.value <= got.high + ROUNDING


def test_edge_cases():
    empty = StreamedScores().metrics()
    assert np.isnan([getattr(empty, name) for name in NAMES]).all()
    one = scored_picture(np.ones((1, 1), np.float32), np.ones((1, 1), np.uint8))
    got = streamed([one], 20).metrics()
    assert got.average_precision == got.best_f1 == (1, 1, 1)
    assert np.isnan([*got.auroc, *got.fpr95]).all()
    infinite = scored_picture(np.float32([[-np.inf, np.inf]]), np.array([[0, 1]], np.uint8))
    assert streamed([infinite], 20).metrics().auroc == (1, 1, 1)


def test_bad_input_is_named(tmp_path):
    with pytest.raises(ConfigError, match='9 bits'):
        StreamedScores(9)
    with pytest.raises(DataError, match='12 and 13 bits'):
        StreamedScores(12).merge(StreamedScores(13))
    with pytest.raises(ConfigError, match='FPR limit'):
        StreamedRegions().aupro(2.0)
    broken = tmp_path / 'broken.npz'
    broken.write_bytes(b'PK')
    for path in (broken, tmp_path / 'missing.npz'):
        with pytest.raises(DataError, match='no file of streamed scores'):
            StreamedScores.load(path)
