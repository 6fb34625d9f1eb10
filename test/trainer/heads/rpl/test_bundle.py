# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""From images, cut-outs and everyday images to an RPL bundle that both CPU engines run."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='the trainer needs torch')
pytest.importorskip('transformers')

import onnx  # noqa: E402
from convolutional_weights import convolutional  # noqa: E402
from paths import ROOT  # noqa: E402
from rpl_recipes import recipe_of, train  # noqa: E402
from stores import kept, only, report  # noqa: E402
from uem_recipes import places  # noqa: E402

from ood_perception.bundle.weights.completion import complete  # noqa: E402
from ood_perception.engines import create_engine  # noqa: E402
from ood_perception.engines.base import EngineOptions  # noqa: E402
from ood_perception.errors import ConfigError, DataError  # noqa: E402
from ood_perception.pipeline import Pipeline, Settings  # noqa: E402
from ood_perception.postprocess.roi import RoiSettings  # noqa: E402
from ood_perception.types import Frame  # noqa: E402
from trainer.augment.cutouts import PARTS, part_of  # noqa: E402
from trainer.augment.outlier_sources import KNOWN, load_context  # noqa: E402
from trainer.augment.pasting import OUTLIER  # noqa: E402
from trainer.data.images import ClassMap, content_sha256  # noqa: E402
from trainer.heads.rpl.block import deeplab_block, load_block  # noqa: E402
from trainer.recipe import load_recipe  # noqa: E402
from trainer.workflow import Workflow  # noqa: E402

__all__ = ['places']
CLASSES = ClassMap(('left', 'right'), ((0, 0, 0), (9, 9, 9)), {0: 0, 1: 1})
PAPER = ROOT / 'config' / 'train' / 'rpl_paper.yaml'


@pytest.fixture(scope='module')
def bundle(places):
    return train(places, 'rpl')


def initialisers(bundle, stage):
    return {t.name: t for t in onnx.load(str(bundle.root / stage)).graph.initializer}


def test_the_bundle_has_a_decoder_and_no_projector(bundle):
    manifest = bundle.manifest
    assert [stage.name for stage in manifest.stages] == ['backbone', 'decoder', 'head']
    assert manifest.heads[0].name == 'rpl'
    assert 'uem' not in manifest.provenance['recipe']
    names = [*initialisers(bundle, 'decoder.onnx'), *initialisers(bundle, 'head.onnx')]
    assert any('aspp' in name for name in names)
    assert not any('projector' in name for name in names)


@pytest.mark.parametrize('runtime', ['openvino', 'onnxruntime'])
def test_both_cpu_engines_reproduce_torch(bundle, runtime):
    # creating an engine compares it with the golden vectors
    with create_engine(complete(bundle), EngineOptions(runtime, 'f32', 1)) as engine:
        assert engine.compiled_classes == ('left', 'right')


def test_the_labels_are_bit_for_bit_those_of_another_block_on_the_same_host(places, bundle):
    other = train(places, 'other', 'rpl.steps=6', 'rpl.width=5')
    frame = Frame(np.random.default_rng(1).integers(0, 255, (56, 56, 3), np.uint8))
    found = []
    for one in (bundle, other):
        with create_engine(complete(one), EngineOptions('openvino', 'f32', 1)) as engine:
            found.append(Pipeline(one, engine, Settings(roi=RoiSettings('none'))).run([frame])[0])
    np.testing.assert_array_equal(found[0].labels, found[1].labels)
    assert not np.allclose(found[0].surprisal, found[1].surprisal)


def test_the_paper_preset_trains_on_fresh_mixes_and_everyday_images(places):
    shipped = load_recipe(PAPER)
    changes = [
        *('segmenter.on_the_fly=true', 'rpl.on_the_fly=true'),
        *('on_the_fly.device=cpu', 'on_the_fly.crop=[50, 50]'),
        *(f'segmenter.preset={shipped.segmenter.preset}', 'segmenter.steps=2'),
        *('segmenter.select_every=2', 'rpl.steps=4', 'rpl.select_every=2', 'rpl.context_batch=3'),
    ]
    train(places, 'paper', *changes)
    assert [look[0] for look in report(places / 'paper', 'fit-rpl')['history']] == [2, 4]


def test_the_shipped_paper_recipe_is_the_papers():
    recipe = load_recipe(PAPER)
    rpl = recipe.rpl
    assert rpl.on_the_fly
    assert (rpl.steps, rpl.batch, rpl.learning_rate) == (40 * 371, 8, 7.5e-5)
    assert (rpl.width, rpl.dilations) == (256, (12, 24, 36))
    assert (rpl.energy_weight, rpl.temperature, rpl.samples) == (0.05, 0.1, 512)
    assert recipe.mixes.probability == 1.0


def test_context_images_are_labelled_by_their_polygons(places):
    folder = places / 'outlier_objects'
    shown = load_context(folder, 'training', CLASSES)
    other = load_context(folder, 'selection', CLASSES)
    assert not set(shown.names) & set(other.names)
    image, labels = shown.read(0)
    green = image[..., 1] > 200
    assert set(np.unique(labels)) == {KNOWN, OUTLIER}
    assert ((labels == OUTLIER) == green).mean() > 0.99
    assert content_sha256(shown) != content_sha256(other)


def test_an_excluded_category_is_known_and_crowds_are_not_marked(tmp_path):
    (tmp_path / 'images').mkdir()
    cv2.imwrite(str(tmp_path / 'images' / 'one.png'), np.zeros((20, 20, 3), np.uint8))
    square = {'image_id': 0, 'segmentation': [[2, 2, 8, 2, 8, 8, 2, 8]]}
    crowd = {'image_id': 0, 'category_id': 2, 'iscrowd': 1, 'segmentation': {'counts': []}}
    coco = {
        'images': [{'id': 0, 'file_name': 'one.png'}],
        'categories': [{'id': 1, 'name': 'car'}, {'id': 2, 'name': 'dog'}],
        'annotations': [{**square, 'category_id': 1}, crowd],
    }
    (tmp_path / 'instances.json').write_text(json.dumps(coco))
    here, other = sorted(PARTS, key=lambda part: part != part_of('one.png'))
    assert (load_context(tmp_path, here, CLASSES).read(0)[1] == OUTLIER).sum() == 49
    for part, exclude in ((here, ['car']), (other, [])):
        with pytest.raises(DataError, match='has no image with objects'):
            load_context(tmp_path, part, CLASSES, exclude)


def test_a_source_without_everyday_images_says_what_to_do(places):
    recipe = load_recipe(recipe_of(places), ['outliers.source=procedural'])
    flow = Workflow(recipe, places / 'none', cache=places / 'cache')
    with pytest.raises(ConfigError, match=r"'procedural' has not: set rpl.context to false"):
        flow.head_fit.everyday()


def test_a_deeplab_on_a_convolutional_backbone_is_packed_and_blocks_start_from_its_aspp(places):
    convolutional(places / 'mobilenet.safetensors')
    network = [
        *('backbone.name=mobilenet_v2', f'backbone.weights={places / "mobilenet.safetensors"}'),
        *('rpl.network=deeplab', 'view.height=64', 'view.width=64', 'segmenter.matmul=f32'),
        *('backbone.layers=[16]', 'rpl.contrast=false', 'rpl.select_every=2'),
    ]
    bundles = [train(places, 'deeplab', *network, f'rpl.steps={steps}') for steps in (2, 4)]
    assert only(places / 'deeplab', 'segmenter')
    assert len(kept(places / 'deeplab', 'fit-rpl')) == 2
    manifest = bundles[1].manifest
    assert manifest.stages[0].outputs == ('maps_2', 'tokens_16')
    assert (manifest.input.patch, manifest.heads[0].upsampling) == (16, 4)
    recipe = load_recipe(recipe_of(places), [*network, 'rpl.steps=4', 'mixes.probability=1.0'])
    flow = Workflow(recipe, places / 'deeplab', cache=places / 'cache')
    host, block = flow.head_fit.closed_set.load(), deeplab_block(flow.head_fit.closed_set.load())
    assert torch.equal(block.reduce.weight, host.reduce.weight)
    fitted = load_block(flow.head_fit.fitted.folder / 'rpl.safetensors')
    assert not torch.equal(fitted.reduce.weight, host.reduce.weight)


def test_a_deeplab_needs_a_fine_map(places):
    recipe = load_recipe(recipe_of(places), ['rpl.network=deeplab'])
    flow = Workflow(recipe, places / 'none', cache=places / 'cache')
    with pytest.raises(ConfigError, match=r'choose a convolutional backbone.name'):
        flow.head_fit.check()
