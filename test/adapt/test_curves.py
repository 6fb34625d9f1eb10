# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Curves of a drive of few unlike frames flag the target of frames that they have not seen."""

from __future__ import annotations

import numpy as np

from ood_perception.adapt.blocks import stretches
from ood_perception.adapt.curves import Normal, served_sample
from ood_perception.adapt.observe import SeenFrame
from ood_perception.postprocess.calibration import HeldOutSample
from ood_perception.postprocess.image_statistics import statistics_of

CELLS = 400
NORMAL = Normal(('Road',), ('Road',))
LOOK = statistics_of(np.zeros((8, 8, 3), np.uint8))


def scores(rng, count):
    """Return float32 (count, CELLS): exponential, each frame of a scale of its own."""
    scales = rng.lognormal(0, 0.5, (count, 1))
    return (scales * rng.exponential(0.4, (count, CELLS))).astype(np.float32)


def frames_of(values):
    """Return frames that show these scores, float32 (n, CELLS)."""
    cells, truth = np.arange(CELLS, dtype=np.int32), np.zeros(CELLS, np.uint8)
    return [
        SeenFrame(
            str(k), '', 0, cells, one.astype(np.float16)[:, None, None], one.astype(np.float16),
            truth, 1.0, LOOK, truth == 0,
        )
        for k, one in enumerate(values)
    ]  # fmt: skip


def plain(values):
    """Return the curve of pixels as if each were a draw of its own."""
    flat, truth = values.reshape(-1, 1), np.zeros(values.size, np.uint8)
    sample = HeldOutSample(('Road',), flat, truth, np.ones(values.size, np.float32))
    return sample.calibration(('Road',))


def test_on_average_new_frames_are_flagged_at_the_target():
    rng = np.random.default_rng(0)
    new = scores(rng, 2000)
    flagged = {'plain': [], 'left out': []}
    for _ in range(40):
        drive = scores(rng, 20)
        curves = NORMAL.curves(frames_of(drive), stretches(20))
        flagged['plain'].append((plain(drive)(new) >= 2).mean())
        flagged['left out'].append((curves[-1](new) >= 2).mean())
    means = {name: np.mean(values) for name, values in flagged.items()}
    assert means['plain'] > 0.0115
    assert abs(means['left out'] - 0.01) < 0.0015


def test_the_sample_of_a_bundle_has_the_same_curve():
    drive = frames_of(scores(np.random.default_rng(1), 30))
    sample = served_sample(NORMAL.as_left_out(drive), NORMAL.classes, None)
    values = np.linspace(0, 5, 50).astype(np.float32)
    curve = NORMAL.curves(drive, stretches(30))[-1]
    np.testing.assert_allclose(
        sample.calibration(('Road',))(values), curve(values), rtol=0.03, atol=0.03
    )


def test_one_image_is_its_own_curve():
    drive = scores(np.random.default_rng(2), 1)
    curve = NORMAL.curves(frames_of(drive), stretches(1))[-1]
    values = np.linspace(0, 2, 20).astype(np.float32)
    np.testing.assert_allclose(curve(values), plain(drive)(values), rtol=0.02)


def test_what_scores_below_0_counts_as_0():
    drive = np.random.default_rng(3).normal(0, 1, (10, CELLS)).astype(np.float32)
    floored = np.where(drive < 0, np.float32(-0.0), drive)
    first, second = (NORMAL.curves(frames_of(one), stretches(10))[-1] for one in (drive, floored))
    np.testing.assert_array_equal(first.x, second.x)
    np.testing.assert_array_equal(first.y, second.y)
    assert abs((first(drive) >= 1).mean() - 0.1) < 0.02
