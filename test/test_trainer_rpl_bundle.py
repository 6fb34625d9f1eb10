# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""From pictures, cut-outs and everyday pictures to an RPL bundle that both CPU engines run."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='the trainer needs torch')
pytest.importorskip('transformers')

import onnx  # noqa: E402
from paths import ROOT  # noqa: E402
from test_trainer_uem_bundle import RECIPE, places  # noqa: E402

from ood_perception.bundle.completion import complete  # noqa: E402
from ood_perception.bundle.store import load_bundle  # noqa: E402
from ood_perception.engines import create_engine  # noqa: E402
from ood_perception.engines.base import EngineOptions  # noqa: E402
from ood_perception.errors import ConfigError, DataError  # noqa: E402
from ood_perception.pipeline import Pipeline, Settings  # noqa: E402
from ood_perception.roi import RoiSettings  # noqa: E402
from ood_perception.types import Frame  # noqa: E402
from trainer.__main__ import main  # noqa: E402
from trainer.config import load_recipe  # noqa: E402
from trainer.context_pictures import KNOWN, load_context  # noqa: E402
from trainer.data import ClassMap, content_sha256  # noqa: E402
from trainer.heads.rpl_stages import RplStages  # noqa: E402
from trainer.hosts import mobilenet_stages  # noqa: E402
from trainer.hosts.mobilenet import MobileNetV2  # noqa: E402
from trainer.hosts.mobilenet_stages import MobileNetConfig, MobileNetStages  # noqa: E402
from trainer.outliers import PARTS, part_of  # noqa: E402
from trainer.pasting import OUTLIER  # noqa: E402
from trainer.stages import Trainer  # noqa: E402

__all__ = ['places']
CLASSES = ClassMap(('left', 'right'), ((0, 0, 0), (9, 9, 9)), {0: 0, 1: 1})
PAPER = ROOT / 'config' / 'train' / 'rpl_paper.yaml'


def recipe_of(root, kind='rpl'):
    """Write the miniature of UEM's tests with another head."""
    text = RECIPE.replace('WEIGHTS', str(root / 'tiny.safetensors')).replace('_uem', f'_{kind}')
    text = text.replace('ROOT', str(root / 'data')).replace('kind: uem', f'kind: {kind}')
    own = 'rpl: {width: 8, steps: 12, select_every: 6, batch: 3, samples: 16}\n'
    lines = [line for line in text.splitlines() if not line.startswith('uem:')]
    path = root / f'{kind}.yaml'
    path.write_text('\n'.join([*lines, own]))
    return path


def train(root, out, *more):
    places = ['--out', str(root / out), '--cache', str(root / 'cache'), '--quiet']
    changes = ['mixes.probability=1.0', *more]
    options = [word for change in changes for word in ('--set', change)]
    assert main(['train', str(recipe_of(root)), *places, *options]) == 0
    return load_bundle(root / out / 'bundle')


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


def test_the_paper_preset_trains_on_fresh_mixes_and_everyday_pictures(places):
    shipped = load_recipe(PAPER)
    changes = [
        *('segmenter.online=true', 'rpl.online=true', 'online.device=cpu', 'online.crop=[50, 50]'),
        *(f'segmenter.preset={shipped.segmenter.preset}', 'segmenter.steps=2'),
        *('segmenter.select_every=2', 'rpl.steps=4', 'rpl.select_every=2', 'rpl.context_batch=3'),
    ]
    train(places, 'paper', *changes)
    report = json.loads((places / 'paper' / 'fit' / 'report.json').read_text())
    assert [look[0] for look in report['history']] == [2, 4]


def test_the_shipped_paper_recipe_is_the_papers():
    recipe = load_recipe(PAPER)
    rpl = recipe.rpl
    assert rpl.online
    assert (rpl.steps, rpl.batch, rpl.learning_rate) == (40 * 371, 8, 7.5e-5)
    assert (rpl.width, rpl.dilations) == (256, (12, 24, 36))
    assert (rpl.energy_weight, rpl.temperature, rpl.samples) == (0.05, 0.1, 512)
    assert recipe.mixes.probability == 1.0


def test_context_pictures_are_labelled_by_their_polygons(places):
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
        with pytest.raises(DataError, match='has no picture with objects'):
            load_context(tmp_path, part, CLASSES, exclude)


def test_a_source_without_everyday_pictures_says_what_to_do(places):
    recipe = load_recipe(recipe_of(places), ['outliers.source=procedural'])
    stages = RplStages(Trainer(recipe, places / 'none', cache=places / 'cache', progress=False))
    with pytest.raises(ConfigError, match=r"'procedural' has not: set rpl.context to false"):
        stages._everyday()


def test_a_block_starts_from_the_aspp_of_a_mobilenet_host(places, tmp_path, monkeypatch):
    monkeypatch.setattr(mobilenet_stages, 'load_mobilenet', MobileNetV2)  # random weights
    recipe = load_recipe(recipe_of(places), ['mixes.probability=1.0', 'rpl.context=false'])
    config = MobileNetConfig(size=(64, 64), width=8, fine_width=4, steps=6)

    def fitted(folder):
        trainer = Trainer(recipe, tmp_path / folder, cache=places / 'cache', progress=False)
        return MobileNetStages(trainer, config, tmp_path / 'host', seed=1)

    torch.manual_seed(0)
    stages = fitted('one')
    host, block = stages.host(), stages.fit()
    start = {name: value for name, value in host.block().state_dict().items() if 'aspp' in name}
    trained = block.state_dict()
    assert start
    assert any(not torch.equal(value, trained[name]) for name, value in start.items())
    assert sum(p.requires_grad for p in host.parameters()) == 0
    report = json.loads((tmp_path / 'one' / 'fit' / 'report.json').read_text())
    assert [look[0] for look in report['history']] == [6, 12]
    monkeypatch.setattr(mobilenet_stages, 'fit_segmenter', None)  # found again, not trained
    again = fitted('two').host().state_dict()
    assert all(torch.equal(value, again[name]) for name, value in host.state_dict().items())
