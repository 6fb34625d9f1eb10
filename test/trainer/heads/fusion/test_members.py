# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Fusions whose members are fitted on images of their own, and what the bundle says of them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='the trainer needs torch')
pytest.importorskip('transformers')

import onnx  # noqa: E402
from stores import only, report  # noqa: E402
from uem_recipes import places  # noqa: E402

from ood_perception.bundle.store import load_bundle  # noqa: E402
from ood_perception.bundle.weights.completion import complete  # noqa: E402
from ood_perception.engines import create_engine  # noqa: E402
from ood_perception.engines.base import EngineOptions  # noqa: E402
from ood_perception.errors import ConfigError  # noqa: E402
from trainer.__main__ import main  # noqa: E402
from trainer.recipe import load_recipe  # noqa: E402

__all__ = ['places']
RECIPE = """
name: two_countries
seed: 3
backbone: {weights: WEIGHTS, layers: [0, 1, 2, 3]}
data: {layout: folders, root: ROOT, calibration: [], calibration_fraction: 0.5, licence: ours}
view: {height: 56, width: 56, policy: stretch, views: [{name: far, center_y: 0.5, width: 0.5}]}
head: {kind: fusion, score: mahalanobis, upsampling: 4, classes: [left]}
classifier: {epochs: 2}
patches: {fewest_patches: 10, fewest_images: 2}
baseline: {layers: [2, 3], standardise: true, shrinkage: 0.5}
views: {views: 1}
segmenter: {width: 8, steps: 4, warmup: 1, select_every: 2}
mixes: {count: 6}
uem: {steps: 4, warmup: 1, select_every: 2}
fusion:
  members:
    - {kind: baseline}
    - kind: uem
      data: {layout: folders, root: OTHER, calibration: [], calibration_fraction: 0.5,
             description: Abroad., licence: theirs}
bundle:
  in_distribution: [left]
  ground_classes: [left]
  ship_weights: true
  golden: images
"""


def write_other(root):
    """Write images in three stripes, of three classes, of which one name is the first data's."""
    for name in ('images', 'labels'):
        (root / 'train' / name).mkdir(parents=True)
    rng = np.random.default_rng(5)
    labels = np.repeat(np.arange(3, dtype=np.uint8), 28)[None].repeat(84, 0)
    for index in range(12):
        image = np.clip(70.0 * labels[..., None] + rng.normal(40, 20, (84, 84, 3)), 0, 255)
        file = f'road_{index:02d}.png'
        cv2.imwrite(str(root / 'train' / 'images' / file), image.astype(np.uint8))
        cv2.imwrite(str(root / 'train' / 'labels' / file), labels)
    names = ('left', 'middle', 'far_right')
    (root / 'classes.yaml').write_text(
        f'classes: [{", ".join(f"{{name: {n}}}" for n in names)}]\n'
    )


@pytest.fixture(scope='module')
def recipe(places):
    write_other(places / 'abroad')
    text = RECIPE.replace('WEIGHTS', str(places / 'tiny.safetensors'))
    text = text.replace('ROOT', str(places / 'data')).replace('OTHER', str(places / 'abroad'))
    path = places / 'fusion.yaml'
    path.write_text(text)
    return path


@pytest.fixture(scope='module')
def bundle(places, recipe):
    out = ['--out', str(places / 'fused'), '--cache', str(places / 'cache'), '--quiet']
    assert main(['train', str(recipe), *out]) == 0
    return load_bundle(places / 'fused' / 'bundle')


@pytest.mark.parametrize('runtime', ['openvino', 'onnxruntime'])
def test_engines_reproduce_torch(bundle, runtime):
    pytest.importorskip(runtime)
    with create_engine(complete(bundle), EngineOptions(runtime, 'f32', 1)) as engine:
        assert engine.compiled_classes == ('left',)


def test_each_member_saw_its_own_images_and_the_first_ones_calibrate(bundle, places):
    store = places / 'fused'
    assert [*report(store, 'calibrate-baseline')['pixels']] == ['left']
    assert set(report(store, 'calibrate-uem')['pixels']) == {'left', 'middle', 'far_right'}
    joint = report(store, 'calibrate-fusion')
    assert joint['images'] == report(store, 'calibrate-baseline')['images'] == 8
    assert [spec.name for spec in bundle.manifest.classes] == ['left', 'right']
    assert only(store, 'segmenter').is_dir()


def test_the_bundle_names_all_images_and_licences_but_no_folder(bundle, places):
    manifest = bundle.manifest
    assert [line for line in manifest.licences if 'Training' in line] == [
        'Training images: ours',
        'Training images: theirs',
    ]
    assert 'Abroad. Licence: theirs.' in (bundle.root / 'MODEL_CARD.md').read_text()
    assert str(places) not in (bundle.root / 'manifest.json').read_text()


def test_the_networks_behind_the_backbone_are_stored_as_float16(bundle):
    graph = onnx.load(str(bundle.root / 'head.onnx')).graph
    large = [t for t in graph.initializer if len(t.dims) >= 2 and np.prod(t.dims) >= 256]
    halves = [t for t in large if t.data_type == onnx.TensorProto.FLOAT16]
    assert sum(np.prod(t.dims) for t in halves) > 0.95 * sum(np.prod(t.dims) for t in large)


def test_a_members_own_outliers_are_checked_before_anything_is_made(recipe, tmp_path):
    content = load_recipe(recipe, ['outliers.folder=nowhere'])
    assert content.all_data()[1].licence == 'theirs'
    out = ['--out', str(tmp_path), '--quiet', '--set', 'outliers.folder=nowhere']
    assert main(['train', str(recipe), *out]) == 2
    assert not any(tmp_path.glob('*')), 'nothing was made'


def test_a_wrong_key_of_a_members_data_is_named(recipe):
    with pytest.raises(ConfigError, match=r'fusion: members 1: data: unknown .*rot'):
        load_recipe(recipe, ['fusion.members=[{kind: uem, data: {layout: folders, rot: x}}]'])
