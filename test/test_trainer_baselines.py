# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The classical scores against their definitions, and as bundles that an engine reproduces."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='the trainer needs torch')
from scipy.special import softmax  # noqa: E402
from scipy.stats import entropy as scipy_entropy  # noqa: E402
from test_trainer_cli import miniature, train  # noqa: E402
from test_trainer_pixood import LAYERS, classifier, head_of, make_feature_set, model  # noqa: E402
from test_trainer_pixood import train as train_set  # noqa: E402

from ood_perception.bundle.completion import complete  # noqa: E402
from ood_perception.bundle.store import load_bundle  # noqa: E402
from ood_perception.engines import create_engine  # noqa: E402
from ood_perception.engines.base import EngineOptions  # noqa: E402
from ood_perception.errors import ConfigError  # noqa: E402
from trainer.heads.baselines import LOGIT_SCORES, BaselineHead  # noqa: E402

__all__ = ['classifier', 'miniature', 'model', 'train_set']


@pytest.fixture(name='train', scope='module')
def _train(train_set):
    return train_set


def test_scores_are_their_definitions():
    logits = torch.randn(50, 6, dtype=torch.float64)
    values, places = logits.numpy(), [1, 4]
    p = softmax(values, axis=1)
    expected = {
        'max_logit': -values[:, places].max(1),
        'max_softmax': -np.log(p[:, places].max(1)),
        'energy': -np.log(np.exp(values).sum(1)),
        'entropy': scipy_entropy(p, axis=1),
    }
    assert set(expected) == set(LOGIT_SCORES)
    for name, score in LOGIT_SCORES.items():
        np.testing.assert_allclose(score(logits, places), expected[name], rtol=1e-9, err_msg=name)


def test_the_distance_is_that_to_the_nearest_etalon_of_the_chosen_classes(model):
    source = head_of(model, 'min')
    features = make_feature_set(pictures=2, seed=4)
    tokens = [torch.from_numpy(np.array(features.tokens[name])).float() for name in LAYERS]
    raw, labels = BaselineHead(source, 'distance').raw_scores(*tokens)
    expected = torch.stack(source.nearest(tokens[-1])).amin(0)
    torch.testing.assert_close(raw[:, 0], expected)
    assert labels.shape == expected.shape


def test_an_unknown_score_is_refused_by_name(model):
    with pytest.raises(ConfigError, match=r"head score 'odin': choose one of max_logit"):
        BaselineHead(head_of(model, 'min'), 'odin')


@pytest.mark.parametrize('score', ['max_softmax', 'distance'])
def test_a_baseline_is_packed_and_run_like_every_head(miniature, score):
    options = ('--set', 'head.kind=baseline', '--set', f'head.score={score}')
    assert train(miniature, score, *options) == 0
    bundle = load_bundle(miniature / score / 'bundle')
    assert bundle.manifest.heads[0].name == score
    with create_engine(complete(bundle), EngineOptions('openvino', 'f32', 1)) as engine:
        assert engine.compiled_classes == ('left', 'right')  # it reproduced the golden vectors
