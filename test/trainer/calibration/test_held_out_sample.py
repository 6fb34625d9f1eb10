# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The small stratified sample stands for all held-out pixels."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip('torch', reason='the trainer needs torch')

from class_pixels import CLASSES, pixels

from ood_perception.bundle.manifest import InputSpec
from ood_perception.errors import DataError
from ood_perception.image.views import ViewSpec, merged
from ood_perception.postprocess.calibration import HeldOutSample
from trainer.calibration.curve_fit import StratifiedSample, sample_held_out
from trainer.features import FeatureSet


@pytest.fixture(scope='module')
def both():
    surprisal, truth = pixels(300_000)
    small = StratifiedSample(CLASSES, size=250)
    for part in np.array_split(np.arange(len(truth)), 30):
        small.add(surprisal[part].T.reshape(1, 3, -1, 10), truth[part].reshape(-1, 10))
    return small.finish(), HeldOutSample(CLASSES, surprisal, truth, np.ones(len(truth)))


def test_weights_count_every_pixel_once(both):
    small, whole = both
    assert len(small.truth) < 25_000
    for name in CLASSES:
        assert small.pixels([name]) == pytest.approx(whole.pixels([name]), abs=1)


@pytest.mark.parametrize('chosen', [['sky'], ['road', 'pavement'], list(CLASSES)])
def test_its_table_is_that_of_all_pixels(both, chosen):
    small, whole = (sample.calibration(chosen) for sample in both)
    levels = np.array([0.5, 1, 1.3, 1.7, 2, 2.5])
    x = np.interp(levels, whole.y, whole.x).astype(np.float32)
    np.testing.assert_allclose(10 ** -small(x), 10**-levels, rtol=0.15)


def test_the_highest_pixels_are_all_kept(both):
    small, whole = both
    own = whole.surprisal[np.arange(len(whole.truth)), whole.truth]
    flagged = own >= 3.5
    kept = small.surprisal[np.arange(len(small.truth)), small.truth]
    assert flagged.sum()
    assert (kept >= 3.5).sum() == flagged.sum()


class Maps:
    """A head whose tokens are its surprisal, one a class."""

    compiled_classes, layers = ('road', 'pavement'), ('t',)

    def outputs(self, tokens, every):
        own = tokens.permute(0, 3, 1, 2)
        return own.min(dim=1).values, None, *own.unbind(dim=1)


def seen_by(geometries, seed):
    """Images of noise, in one view; the right half is of the second class."""
    rng = np.random.default_rng(seed)
    shape = (len(geometries), 18, 36, 2)
    labels = np.zeros((len(geometries), 36, 72), np.uint8)
    labels[:, :, 36:] = 1
    tokens = {'t': rng.exponential(1.0, shape).astype(np.float16)}
    names = tuple(str(number) for number in range(len(geometries)))
    return FeatureSet(names, tokens, labels, 36, 72, 2, str(seed), geometries)


def test_a_sample_of_several_views_has_the_curve_of_what_is_served():
    frame = InputSpec(36, 72, 2, views=(ViewSpec('far', 0.5, 0.5, 1 / 3),)).geometries((108, 216))
    whole, view = (seen_by((one,) * 6, seed) for seed, one in enumerate(frame))
    sample = sample_held_out(Maps(), whole, ['road', 'pavement'], views=[view], size=10**6)
    assert sample.views == 2
    pairs = list(zip(whole.tokens['t'], view.tokens['t'], strict=True))
    for chosen in ([0], [1], [0, 1]):
        least = [[part[..., chosen].min(-1).astype(np.float32) for part in pair] for pair in pairs]
        served = np.stack([merged(one, [other], frame) for one, other in least])
        columns = np.concatenate([np.arange(36).reshape(2, 18)[place] for place in chosen])
        x, e = sample.curve([('road', 'pavement')[place] for place in chosen])
        mine = np.sort(served[:, :, columns].ravel())
        above = len(mine) - np.searchsorted(mine, x - 1e-5)
        np.testing.assert_allclose(e, (1 + above) / (1 + len(mine)), atol=2e-3)
    least_of_greatest = sample.surprisal.max(axis=1).min(axis=1)
    assert least_of_greatest.mean() > served.mean() + 0.01


def test_pixels_of_no_class_are_left_out():
    sample = StratifiedSample(CLASSES)
    sample.add(np.ones((1, 1, 4), np.float32), np.full(4, 255, np.uint8))
    with pytest.raises(DataError, match='no held-out pixel'):
        sample.finish()
