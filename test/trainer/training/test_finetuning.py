# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning a tiny backbone: what moves, by which rate, and what the bundle says of it."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip('torch')
pytest.importorskip('transformers')
pytest.importorskip('onnx')

from miniature_recipes import write_data  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from tiny_backbones import tiny_backbone  # noqa: E402

from ood_perception.bundle.store import load_bundle  # noqa: E402
from ood_perception.demo.sources import SEA  # noqa: E402
from ood_perception.engines import create_engine  # noqa: E402
from ood_perception.engines.base import EngineOptions  # noqa: E402
from ood_perception.errors import ConfigError  # noqa: E402
from ood_perception.image.image_files import read_image  # noqa: E402
from trainer.__main__ import main  # noqa: E402
from trainer.artifacts import Artifact  # noqa: E402
from trainer.datasets import load_images  # noqa: E402
from trainer.features import View  # noqa: E402
from trainer.training.finetuning import FinetuningConfig, TuningRun  # noqa: E402

VIEW = View(56, 56, 'stretch')
CONFIG = FinetuningConfig(epochs=3, learning_rate=1e-3, classifier_learning_rate=1e-2, seed=3)
RECIPE = """
name: tuned
seed: 3
backbone: {weights: WEIGHTS, layers: [0, 1]}
finetuning: {epochs: 2, learning_rate: 1.0e-3, classifier_learning_rate: 1.0e-2, batch: 4}
data: {layout: folders, root: ROOT, calibration: [], calibration_fraction: 0.5, licence: ours}
view: {height: 56, width: 56, policy: stretch}
classifier: {epochs: 2, learning_rate: 1.0e-2}
patches: {fewest_patches: 10, fewest_images: 2}
condensation: {etalons: 3, epochs: 3}
head: {upsampling: 7, selection: gated, gate: held-out}
bundle: {in_distribution: [left, right], ground_classes: [left], golden: demo_sea}
"""


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('finetuning')
    write_data(folder / 'data')
    state = tiny_backbone().model.state_dict()
    save_file({k: v.contiguous() for k, v in state.items()}, folder / 'tiny.safetensors')
    text = RECIPE.replace('WEIGHTS', str(folder / 'tiny.safetensors'))
    (folder / 'recipe.yaml').write_text(text.replace('ROOT', str(folder / 'data')))
    return folder


@pytest.fixture(scope='module')
def images(root):
    return load_images('folders', root / 'data', 'train')


def weights_of(backbone):
    return {name: value.clone() for name, value in backbone.model.state_dict().items()}


def test_only_what_the_layers_need_moves(images):
    backbone = tiny_backbone()
    before = weights_of(backbone)
    TuningRun(backbone, images, [0, 1], VIEW, CONFIG).fit()
    moved = {n for n, v in weights_of(backbone).items() if not torch.equal(v, before[n])}
    assert any('layer.0.' in name or 'layers.0.' in name for name in moved)
    assert any('projection' in name for name in moved)
    assert any('layernorm' in name for name in moved)
    kept = set(before) - moved
    assert any('layer.2.' in name or 'layers.2.' in name for name in kept)
    assert {n for n in before if 'cls_token' in n or 'position' in n} <= kept
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


def test_the_rates_fall_along_a_cosine(images, monkeypatch):
    rates = []

    def loss(run, indices, row, column):
        rates.append([group['lr'] for group in run.optimizer.param_groups])
        return own_loss(run, indices, row, column)

    own_loss = TuningRun.loss
    monkeypatch.setattr(TuningRun, 'loss', loss)
    done = TuningRun(tiny_backbone(), images, [1], VIEW, CONFIG).fit()
    steps = 3 * math.ceil(len(images) / CONFIG.batch)
    assert done.best_step == len(rates) == steps
    cosine = np.array([(1 + math.cos(math.pi * t / steps)) / 2 for t in range(steps)])
    np.testing.assert_allclose(rates, cosine[:, None] * (1e-3, 1e-2), rtol=1e-12)


def test_a_step_moves_no_weight_by_more_than_the_rate_allows(images):
    """Adam's first steps are at most about the learning rate long."""
    backbone = tiny_backbone()
    before = weights_of(backbone)
    config = FinetuningConfig(epochs=1, learning_rate=1e-6, batch=8)
    done = TuningRun(backbone, images, [1], VIEW, config).fit()
    assert done.best_step == 2
    largest = max(float((v - before[n]).abs().max()) for n, v in weights_of(backbone).items())
    assert 0 < largest < 2.1e-6


def test_the_loss_falls_and_the_seed_decides(images):
    first, again = (tiny_backbone() for _ in range(2))
    done = TuningRun(first, images, [0, 1], VIEW, CONFIG).fit()
    TuningRun(again, images, [0, 1], VIEW, CONFIG).fit()
    assert done.history[-1][1] < done.history[0][1]
    for name, value in weights_of(first).items():
        torch.testing.assert_close(value, weights_of(again)[name], rtol=0, atol=0)


def test_a_stopped_run_goes_on_to_the_same_weights(images, tmp_path, monkeypatch):
    whole = tiny_backbone()
    TuningRun(whole, images, [0, 1], VIEW, CONFIG).fit()
    save, artifact = Artifact.save_state, Artifact(tmp_path, 'finetune', 'k')

    def stop(made, state):
        save(made, state)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Artifact, 'save_state', stop)
        with pytest.raises(KeyboardInterrupt):
            TuningRun(tiny_backbone(), images, [0, 1], VIEW, CONFIG).fit(artifact)
    resumed = tiny_backbone()
    TuningRun(resumed, images, [0, 1], VIEW, CONFIG).fit(artifact)
    for name, value in weights_of(whole).items():
        torch.testing.assert_close(weights_of(resumed)[name], value, rtol=1e-6, atol=1e-7)


def test_a_recipe_trains_to_a_bundle_that_carries_its_tuned_weights(root, capsys):
    places = ['--out', str(root / 'out'), '--cache', str(root / 'cache'), '--quiet']
    assert main(['train', str(root / 'recipe.yaml'), *places]) == 0
    bundle = load_bundle(root / 'out/bundle')
    assert not bundle.missing_weights
    assert 'weights.map.json' not in bundle.manifest.files
    note = bundle.manifest.provenance['finetuned']
    assert (note['epochs'], note['steps'], note['learning_rate']) == (2, 4, 1e-3)
    assert note['from']['weights_sha256'] != bundle.manifest.provenance['weights_sha256']
    assert bundle.manifest.provenance['recipe']['finetuning']['epochs'] == 2
    assert str(root) not in (bundle.root / 'manifest.json').read_text()
    card = (bundle.root / 'MODEL_CARD.md').read_text()
    assert 'fine-tuned for 4 steps' in card
    assert 'frozen' not in card.split('Input')[0]
    with np.load(bundle.path('golden.npz')) as golden:
        sea = [read_image(path) for path in sorted((SEA / 'images').iterdir())]
        for image, own in zip(golden['image'], sea, strict=True):
            small = cv2.resize(own, (56, 56), interpolation=cv2.INTER_AREA)
            assert np.abs(image.astype(float) - small).mean() < 4
    with create_engine(bundle, EngineOptions('openvino', 'f32', 1)) as engine:  # golden vectors
        assert engine.description


def test_it_is_off_unless_asked_for(root, capsys):
    recipe = [str(root / 'recipe.yaml'), '--set', 'finetuning.epochs=0']
    assert main(['finetune', *recipe, '--out', str(root / 'off')]) == 2
    assert 'finetuning.epochs is 0' in capsys.readouterr().err
    with pytest.raises(ConfigError, match='learning_rate 0'):
        FinetuningConfig(epochs=1, learning_rate=0.0)
