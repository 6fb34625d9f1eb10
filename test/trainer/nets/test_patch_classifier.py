# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The classifier: its upsampling and loss against torch, what it learns, resuming."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip('torch')

from feature_sets import make_feature_set  # noqa: E402

from ood_perception.errors import ConfigError, DataError  # noqa: E402
from trainer.artifacts import Artifact  # noqa: E402
from trainer.nets.patch_classifier import (  # noqa: E402
    Classifier,
    ClassifierConfig,
    Upsampler,
    batch_tokens,
    evaluate_classifier,
    interpolation_matrix,
    load_classifier,
    save_classifier,
)
from trainer.training.patch_classifier import ClassifierRun  # noqa: E402

LAYERS = ('tokens_5', 'tokens_11')
CLASSES = ('a', 'b', 'c')
QUICK = ClassifierConfig(epochs=3, learning_rate=3e-3)


@pytest.fixture(scope='module')
def sets():
    return make_feature_set(), make_feature_set(images=6, seed=1)


def fit(sets, config=QUICK, artifact=None):
    return ClassifierRun(*sets, LAYERS, len(CLASSES), config).fit(artifact)


@pytest.mark.parametrize(('cells', 'pixels'), [(6, 84), (1, 14), (5, 7), (48, 672)])
def test_interpolation_matrix_is_torchs_bilinear(cells, pixels):
    # in float64: torch's own float32 places are off by up to 1e-5 cells
    values = torch.randn(1, 1, cells, dtype=torch.float64)
    expected = torch.nn.functional.interpolate(
        values[..., None, :], (1, pixels), mode='bilinear', align_corners=False
    ).reshape(-1)
    result = interpolation_matrix(cells, pixels).double() @ values.reshape(-1)
    torch.testing.assert_close(result, expected, rtol=0.0, atol=1e-6)


def test_upsampler_takes_every_stepth_pixel(sets):
    maps = torch.randn(2, 6, 8, 3)
    whole = torch.nn.functional.interpolate(
        maps.permute(0, 3, 1, 2), (84, 112), mode='bilinear', align_corners=False
    ).permute(0, 2, 3, 1)
    actual = Upsampler(sets[0], 3)(maps, 1, 2)
    torch.testing.assert_close(actual, whole[:, 1::3, 2::3], atol=1e-5, rtol=1e-5)


def test_loss_is_cross_entropy_at_label_resolution(sets):
    labels = np.array(sets[0].labels)
    labels[:, :20] = 255
    features = dataclasses.replace(sets[0], labels=labels)
    run = ClassifierRun(features, sets[1], LAYERS, 3, QUICK)
    logits = run.model(batch_tokens(features, LAYERS, [0, 3])).permute(0, 3, 1, 2)
    whole = torch.nn.functional.interpolate(logits, (84, 112), mode='bilinear')
    target = torch.from_numpy(labels[[0, 3]].astype(np.int64))
    expected = torch.nn.functional.cross_entropy(whole, target, ignore_index=255)
    torch.testing.assert_close(run.loss([3, 0], 0, 0), expected)


@pytest.mark.parametrize(
    'change',
    [{}, {'kind': 'linear', 'epochs': 12}, {'matmul': 'bf16'}, {'pixel_step': 3}, {'hidden': 24}],
)
def test_it_learns_separable_classes(sets, change):
    config = dataclasses.replace(QUICK, **change)
    training = fit(sets, config)
    quality = evaluate_classifier(training.model, sets[1])
    assert quality.patch_accuracy > 0.97
    assert quality.mean_iou > 0.8
    assert training.model.kind == config.kind
    assert training.history[-1][1] < training.history[0][1]
    best = max(training.history, key=lambda look: look[2])[0]
    assert training.best_step == best
    assert len(training.history) == config.epochs


def test_the_same_seed_gives_the_same_classifier_resumed_or_not(sets, tmp_path):
    whole = fit(sets)
    artifact = Artifact(tmp_path, 'classifier', 'key')
    fit(sets, dataclasses.replace(QUICK, epochs=1), artifact=artifact)
    resumed = fit(sets, artifact=artifact)
    assert resumed.history == whole.history
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name])
    other = fit(sets, dataclasses.replace(QUICK, seed=1))
    assert other.history != whole.history


def test_the_cosine_schedule_ends_at_zero(sets):
    config = dataclasses.replace(QUICK, schedule='cosine')
    run, shares = ClassifierRun(*sets, LAYERS, 3, config), []
    for epoch in (0.0, 1.5, 3.0):
        run.step = round(epoch * run.schedule.select_every)
        shares.append(run.rate_factor())
    np.testing.assert_allclose(shares, [1.0, 0.5, 0.0], atol=1e-12)
    assert evaluate_classifier(fit(sets, config).model, sets[1]).patch_accuracy > 0.85


def test_training_leaves_the_global_generator_alone(sets):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    fit(sets, dataclasses.replace(QUICK, epochs=1))
    assert torch.equal(torch.rand(1), expected)


def test_saved_classifiers_come_back(tmp_path):
    for kind in ('mlp', 'linear'):
        classifier = Classifier(32, 3, LAYERS, kind, 0).eval()
        save_classifier(tmp_path / kind, classifier)
        loaded = load_classifier(tmp_path / kind)
        tokens = torch.randn(1, 2, 2, 32)
        assert torch.equal(loaded(tokens), classifier(tokens))
        assert (loaded.kind, loaded.layers) == (kind, LAYERS)
    (tmp_path / 'other').write_bytes(b'?')
    with pytest.raises(DataError, match='no classifier'):
        load_classifier(tmp_path / 'other')


def test_wrong_settings_and_sets_are_refused(sets):
    with pytest.raises(ConfigError, match='mlp, linear'):
        ClassifierConfig(kind='tree')
    with pytest.raises(ConfigError, match='at least 1'):
        ClassifierConfig(epochs=0)
    with pytest.raises(ConfigError, match='the features hold'):
        ClassifierRun(*sets, ['tokens_3'], 3, QUICK)
    with pytest.raises(DataError, match='do not fit'):
        ClassifierRun(*sets, LAYERS, 2, QUICK)
