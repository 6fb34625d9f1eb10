# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The small stratified sample stands for all held-out pixels."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip('torch', reason='the trainer needs torch')

from class_pixels import CLASSES, pixels

from ood_perception.errors import DataError
from ood_perception.postprocess.calibration import HeldOutSample
from trainer.calibration.class_sets import StratifiedSample


@pytest.fixture(scope='module')
def both():
    surprisal, truth = pixels(300_000)
    small = StratifiedSample(CLASSES, size=250)
    for part in np.array_split(np.arange(len(truth)), 30):
        small.add(surprisal[part].T.reshape(3, -1, 10), truth[part].reshape(-1, 10))
    return small.finish(), HeldOutSample(CLASSES, surprisal, truth, np.ones(len(truth)))


def test_weights_count_every_pixel_once(both):
    small, whole = both
    assert len(small.truth) < 25_000
    for name in CLASSES:
        assert small.pixels([name]) == pytest.approx(whole.pixels([name]), abs=1)


@pytest.mark.parametrize('chosen', [['sky'], ['road', 'pavement'], list(CLASSES)])
def test_its_table_is_that_of_all_pixels(both, chosen):
    small, whole = (sample.table(chosen) for sample in both)
    levels = np.array([0.5, 1, 1.3, 1.7, 2, 2.5])
    x = np.interp(levels, whole.y, whole.x).astype(np.float32)
    np.testing.assert_allclose(10 ** -small(x), 10**-levels, rtol=0.15)


def test_the_strangest_pixels_are_all_kept(both):
    small, whole = both
    own = whole.surprisal[np.arange(len(whole.truth)), whole.truth]
    strange = own >= 3.5
    kept = small.surprisal[np.arange(len(small.truth)), small.truth]
    assert strange.sum()
    assert (kept >= 3.5).sum() == strange.sum()


def test_pixels_of_no_class_are_left_out():
    sample = StratifiedSample(CLASSES)
    sample.add(np.ones((1, 4), np.float32), np.full(4, 255, np.uint8))
    with pytest.raises(DataError, match='no held-out pixel'):
        sample.finish()
