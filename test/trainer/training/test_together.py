# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Trainings whose processes share every batch give the network of one process."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip('torch', reason='the trainer needs torch')

from feature_sets import make_feature_set  # noqa: E402
from segmenter_features import LAYERS, SEGMENTER, feature_set  # noqa: E402
from together import by_processes  # noqa: E402

from trainer.heads.rpl.config import RplConfig  # noqa: E402
from trainer.heads.rpl.training import RplRun  # noqa: E402
from trainer.heads.uem.config import UemConfig  # noqa: E402
from trainer.heads.uem.training import UemRun, known_scores  # noqa: E402
from trainer.nets.gmm import GmmSettings  # noqa: E402
from trainer.nets.patch_classifier import ClassifierConfig  # noqa: E402
from trainer.training.patch_classifier import ClassifierRun  # noqa: E402
from trainer.training.segmenter import SegmenterRun  # noqa: E402

GMM = GmmSettings(queue=60, every=3, momentum=0.9)
SHORT = {'steps': 12, 'select_every': 6, 'batch': 3, 'matmul': 'f32'}


def segmenter(**changes):
    known = feature_set(6, outliers=False)
    return SegmenterRun(known, known, LAYERS, 2, replace(SEGMENTER, **SHORT, **changes)).fit()


def classifier():
    sets = [make_feature_set(images=count, seed=count) for count in (6, 3)]
    config = ClassifierConfig(epochs=3, batch=3, matmul='f32')
    return ClassifierRun(*sets, ['tokens_5', 'tokens_11'], 3, config).fit()


def uem(form):
    network = segmenter().model
    data = [(f, known_scores(network, f)) for f in (feature_set(6), feature_set(3, seed=5))]
    return UemRun(*data, LAYERS[-1], UemConfig(form=form, gmm=GMM, warmup=2, **SHORT)).fit()


def rpl():
    sets = feature_set(6), feature_set(4, seed=8)
    config = RplConfig(width=8, samples=16, **SHORT)
    return RplRun(segmenter().model, sets, feature_set(3, seed=5), config).fit()


TRAININGS = {
    'classifier': classifier,
    'linear segmenter': segmenter,
    'full decoder': lambda: segmenter(preset='full'),
    'generative segmenter': lambda: segmenter(head='gmm', gmm=GMM),
    'discriminative uem': lambda: uem('discriminative'),
    'generative uem': lambda: uem('generative'),
    'rpl': rpl,
}


def state_of(training):
    """Return the learned tensors, and what the looks at the selection gave."""
    history = torch.tensor(training.history, dtype=torch.float64)
    return {**training.model.state_dict(), 'history': history}


@pytest.mark.parametrize('count', [2, 4])
@pytest.mark.parametrize('name', TRAININGS)
def test_processes_give_the_network_of_one(tmp_path, name, count):
    """Batches of three images: two and one, or one each and a process without any."""
    one, many = (
        by_processes(n, lambda: state_of(TRAININGS[name]()), tmp_path) for n in (1, count)
    )
    assert one.keys() == many.keys()
    for tensor, value in one.items():
        torch.testing.assert_close(many[tensor], value, rtol=1e-3, atol=1e-4, msg=tensor)
