# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""From images, objects and a teacher to a student's bundle that both CPU engines run."""

from __future__ import annotations

import pytest

torch = pytest.importorskip('torch', reason='the trainer needs torch')
pytest.importorskip('transformers')

from convolutional_weights import convolutional  # noqa: E402
from stores import only, report  # noqa: E402
from uem_recipes import places  # noqa: E402

from ood_perception.bundle.store import load_bundle  # noqa: E402
from ood_perception.bundle.weights.completion import complete  # noqa: E402
from ood_perception.engines import create_engine  # noqa: E402
from ood_perception.engines.base import EngineOptions  # noqa: E402
from trainer.__main__ import main  # noqa: E402
from trainer.backbones.weights import read_tensors  # noqa: E402

__all__ = ['places']
RECIPE = """
name: miniature_distilled
seed: 3
backbone: {name: mobilenet_v2, weights: WEIGHTS, stride: 32, patch: 16, layers: [13]}
data: {layout: folders, root: ROOT, calibration: [], calibration_fraction: 0.5, licence: ours}
view: {height: 128, width: 128, policy: stretch}
patches: {fewest_patches: 10, fewest_images: 2}
head: {kind: distilled, classes: [left]}
baseline: {layers: [1, 3], standardise: true, balance: true, shrinkage: 0.5}
views: {scale: [1.0, 1.5]}
outliers: {source: coco+procedural, objects: 8, together: 2}
mixes: {count: 12, probability: 1.0}
distilled:
  teacher: TEACHER
  teacher_size: [112, 112]
  everyday: 2
  scales: [0.5, 1.0]
  layers: [maps_5, tokens_9, tokens_12, tokens_13]
  width: 8
  steps: 12
  warmup: 2
  batch: 3
  crop: [3, 3]
  select_every: 6
bundle: {in_distribution: [left], ground_classes: [left], ship_weights: true, golden: images}
"""


def train(root, out, *changes):
    weights = root / 'mobile.safetensors'
    if not weights.exists():
        convolutional(weights)
    text = RECIPE.replace('WEIGHTS', str(weights)).replace('ROOT', str(root / 'data'))
    recipe = root / 'distilled.yaml'
    recipe.write_text(text.replace('TEACHER', str(root / 'tiny.safetensors')))
    options = ['--out', str(root / out), '--cache', str(root / 'cache'), '--quiet']
    words = [word for change in changes for word in ('--set', change)]
    return main(['train', str(recipe), *options, *words])


@pytest.fixture(scope='module')
def bundle(places):
    assert train(places, 'student') == 0
    return load_bundle(places / 'student' / 'bundle')


def test_the_bundle_carries_the_students_backbone_and_names_its_teacher(places, bundle):
    manifest = bundle.manifest
    assert [stage.name for stage in manifest.stages] == ['backbone', 'decoder', 'head']
    assert manifest.heads[0].upsampling == 2
    assert not bundle.missing_weights
    assert manifest.provenance['teacher']['weights_sha256']
    tuned = read_tensors(only(places / 'student', 'fit-distilled') / 'backbone.safetensors')
    before = read_tensors(places / 'mobile.safetensors')
    changed = [name for name in before if not (tuned[name] == before[name]).all()]
    assert any(name.startswith('blocks.13.') for name in changed)
    assert not any(name.startswith('blocks.14.') for name in changed)  # behind what is read
    assert not any('running' in name for name in changed)


@pytest.mark.parametrize('runtime', ['openvino', 'onnxruntime'])
def test_both_cpu_engines_reproduce_torch(bundle, runtime):
    # creating an engine compares it with the golden vectors
    with create_engine(complete(bundle), EngineOptions(runtime, 'f32', 1)) as engine:
        assert engine.compiled_classes == ('left',)


def test_the_loss_falls(places, bundle):
    losses = [loss for _, loss, _ in report(places / 'student', 'fit-distilled')['history']]
    assert losses[-1] < losses[0]


def test_other_grids_than_the_teachers_are_refused(places, capsys):
    assert train(places, 'other', 'view.height=96') == 2
    assert 'grid of (6, 8) cells, the teacher (8, 8)' in capsys.readouterr().err


def test_layers_of_three_grids_are_refused(places, capsys):
    assert train(places, 'layers', 'distilled.layers=[maps_2, maps_5, tokens_9]') == 2
    assert 'name one finer map' in capsys.readouterr().err
