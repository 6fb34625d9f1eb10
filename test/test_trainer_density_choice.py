# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The mixture's size: a new drive is left out of the fit, and large mixtures memorise drives."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip('torch', reason='the trainer needs torch')
pytest.importorskip('sklearn', reason='the mixture is fitted by scikit-learn')

from ood_perception.errors import DataError
from trainer.evaluation.promise_left_out import distance
from trainer.experiments.density_choice import Drives, drive_rates
from trainer.heads.baselines import BaselineConfig

WIDTH, ROAD, SKY, UNUSED = 12, 0, 1, 255


def drives(own, seed, pictures=6):
    """Tokens are noise; `own` is how far each drive's few places lie from the common centre."""
    rng = np.random.default_rng(seed)
    tokens, names, sequences = [], [], []
    for drive in 'abc':
        spots = np.random.default_rng(ord(drive)).normal(0, own, (4, WIDTH))
        for picture in range(pictures):
            values = rng.normal(0, 1, (10, 20, WIDTH))
            tokens.append(values + spots[rng.integers(0, 4, (10, 20))])
            names.append(f'{drive}_{30 * picture:05d}')
            sequences.append(drive)
    labels = np.full((len(names), 10, 20), ROAD, np.uint8)
    labels[:, 0] = UNUSED
    return Drives(np.array(tokens, np.float16), labels, tuple(names), tuple(sequences))


def rates(own, components, normal=(ROAD,)):
    config = BaselineConfig(components=components, reduced=WIDTH, samples=10_000, seed=1)
    return drive_rates(drives(own, 1), drives(own, 2), normal, config)


def test_alike_drives_keep_the_promise():
    found = rates(own=0.0, components=1)
    assert list(found) == ['a', 'b', 'c']
    assert distance(found) < 0.35


def test_a_mixture_that_memorises_drives_flags_the_next_one():
    few, many = rates(own=1.6, components=1), rates(own=1.6, components=8)
    assert distance(many) > distance(few) + 0.4
    assert all(many[drive][2] > few[drive][2] > 0.1 for drive in 'abc')  # 5 % promised


def test_a_drive_is_left_out_of_its_own_fit():
    one = drives(own=2.0, seed=1)
    kept = one.patches(without='b')
    assert kept.shape == (2 * 6 * 9 * 20, WIDTH)  # the row without a label is left out, too
    b = {token.tobytes() for token in one.tokens[6:12].reshape(-1, WIDTH)}
    assert not b & {token.tobytes() for token in kept}


def test_only_normal_patches_are_counted():
    plain, mixed = drives(0.0, 1), drives(0.0, 2)
    mixed.tokens[:, 5:] += 40.0
    mixed.labels[:, 5:] = SKY
    config = BaselineConfig(components=1, reduced=WIDTH, seed=1)
    found = drive_rates(plain, mixed, (ROAD,), config)
    assert max(share for _, _, share in found.values()) < 0.1
    # with the sky counted, more than half of the patches are strange, and the threshold goes up
    assert drive_rates(plain, mixed, (ROAD, SKY), config) != found


def test_one_drive_cannot_judge_another():
    fit = drives(0.0, 1)
    alone = Drives(fit.tokens[:6], fit.labels[:6], fit.names[:6], fit.sequences[:6])
    with pytest.raises(DataError, match=r"\['a'\] alone"):
        drive_rates(fit, alone, (ROAD,), BaselineConfig())
