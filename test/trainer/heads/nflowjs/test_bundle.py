# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""From images to an NFlowJS bundle that both CPU engines run, by one recipe."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='the trainer needs torch')
pytest.importorskip('transformers')

from nflowjs_recipes import train  # noqa: E402
from paths import ROOT  # noqa: E402
from stores import only, report  # noqa: E402
from uem_recipes import places  # noqa: E402

from ood_perception.bundle.weights.completion import complete  # noqa: E402
from ood_perception.engines import create_engine  # noqa: E402
from ood_perception.engines.base import EngineOptions  # noqa: E402
from ood_perception.pipeline import Pipeline, Settings  # noqa: E402
from ood_perception.postprocess.roi import RoiSettings  # noqa: E402
from ood_perception.types import Frame  # noqa: E402
from trainer.__main__ import main  # noqa: E402
from trainer.heads.nflowjs.flow import build_flow, load_flow  # noqa: E402
from trainer.heads.nflowjs.flow.training import patch_row  # noqa: E402
from trainer.heads.nflowjs.training import patch_sides  # noqa: E402
from trainer.recipe import load_recipe  # noqa: E402
from trainer.study.config import load_leaderboard  # noqa: E402

__all__ = ['places']
PRESETS = ROOT / 'config' / 'train'


@pytest.fixture(scope='module')
def bundle(places):
    return train(places, 'nflowjs')


def test_the_bundle_is_the_segmenter_and_a_formula(bundle):
    manifest = bundle.manifest
    assert [stage.name for stage in manifest.stages] == ['backbone', 'decoder', 'head']
    assert manifest.heads[0].name == 'nflowjs'
    assert manifest.heads[0].set_calibration == 'calibration.npz'
    assert 'nflowjs' in manifest.provenance['recipe']
    assert 'uem' not in manifest.provenance['recipe']
    assert set(manifest.provenance['nflowjs']) == {'best_step', 'selection_mean_iou'}


@pytest.mark.parametrize('runtime', ['openvino', 'onnxruntime'])
def test_both_cpu_engines_reproduce_torch(bundle, runtime):
    # creating an engine compares it with the golden vectors
    with create_engine(complete(bundle), EngineOptions(runtime, 'f32', 1)) as engine:
        assert engine.compiled_classes == ('left', 'right')


def surprisal_of(bundle, **settings):
    frame = Frame(np.random.default_rng(0).integers(0, 255, (56, 56, 3), np.uint8))
    with create_engine(complete(bundle), EngineOptions('openvino', 'f32', 1)) as engine:
        chosen = Settings(**{'roi': RoiSettings('none'), **settings})
        return Pipeline(bundle, engine, chosen).run([frame])[0].surprisal


def test_the_class_choice_changes_the_meaning_and_not_the_ranks(bundle):
    left, both = surprisal_of(bundle), surprisal_of(bundle, in_distribution=('left', 'right'))
    assert not np.allclose(left, both)
    order = np.argsort(left.ravel(), kind='stable')
    assert (np.diff(both.ravel()[order]) >= -1e-6).all()


def test_another_temperature_keeps_the_training(places, bundle):
    other = train(places, 'nflowjs', 'nflowjs.temperature=1', 'nflowjs.score=kl')
    assert only(places / 'nflowjs', 'flow')
    assert only(places / 'nflowjs', 'fit-nflowjs')
    assert not np.allclose(surprisal_of(other), surprisal_of(train(places, 'nflowjs')))


@pytest.mark.parametrize('negatives', ['objects', 'none'])
def test_the_ablations_train(places, negatives):
    bundle = train(places, negatives, f'nflowjs.negatives={negatives}', 'nflowjs.loss=kl')
    history = report(places / negatives, 'fit-nflowjs')['history']
    assert [look[0] for look in history] == [3, 6]
    assert bundle.manifest.provenance['recipe']['nflowjs']['negatives'] == negatives


def test_a_tuned_backbone_is_what_the_bundle_ships(places, bundle):
    changes = ('nflowjs.backbone_rate=0.001', 'nflowjs.matmul=f32')
    tuned = train(places, 'tuned', *changes)
    assert not np.allclose(surprisal_of(tuned), surprisal_of(bundle))
    described = tuned.manifest.provenance['description']
    assert described.endswith('tuned together with NFlowJS')
    # made anew from what lies there, the bundle is the same
    again = train(places, 'tuned', *changes, 'nflowjs.temperature=2.0')
    np.testing.assert_array_equal(surprisal_of(again), surprisal_of(tuned))


def test_tuned_weights_that_are_not_shipped_are_refused(places, bundle, capsys):
    options = ['--set', 'nflowjs.backbone_rate=1.0e-5', '--set', 'bundle.ship_weights=false']
    out = ['--out', str(places / 'refused'), '--quiet']
    assert main(['fit', str(places / 'nflowjs.yaml'), *out, *options]) == 2
    assert 'set bundle.ship_weights to true' in capsys.readouterr().err


def test_the_paper_preset_trains_and_packs(places):
    """Its dense flow, schedule and rates at a miniature's sizes, down to a bundle."""
    shipped = load_recipe(PRESETS / 'nflowjs_paper.yaml')
    changes = [
        *('segmenter.preset=full', 'segmenter.on_the_fly=true', 'segmenter.steps=4'),
        *('segmenter.select_every=2', 'on_the_fly.device=cpu', 'on_the_fly.crop=[50, 50]'),
        *('nflowjs.device=cpu', 'nflowjs.cosine=true', f'nflowjs.weight={shipped.nflowjs.weight}'),
        *('nflowjs.scale=[0.5, 2.0]', f'nflowjs.flow_rate={shipped.nflowjs.flow_rate:.7f}'),
        *('nflowjs.backbone_rate=2.5e-6', 'nflowjs.matmul=f32'),
        *(f'flow.kind={shipped.flow.kind}', f'flow.units={list(shipped.flow.units)}'),
        *('flow.depth=1', 'flow.dense_growth=4', f'flow.growth={shipped.flow.growth}'),
        f'flow.dequantisation={shipped.flow.dequantisation}',
    ]
    train(places, 'paper', *changes)
    flow = load_flow(only(places / 'paper', 'fit-nflowjs') / 'flow.safetensors')
    assert len(flow.scales[0].crossings) == 3
    for part, steps in (('segmenter', [2, 4]), ('flow', [3, 6]), ('fit-nflowjs', [3, 6])):
        assert [look[0] for look in report(places / 'paper', part)['history']] == steps


def test_the_shipped_paper_recipe_is_the_paper_s():
    recipe = load_recipe(PRESETS / 'nflowjs_paper.yaml')
    config, flow = recipe.nflowjs, recipe.flow
    assert (flow.kind, flow.units, flow.modules, flow.growth) == (
        'dense_flow', (3, 2, 1), (3, 4, 8), 6,
    )  # fmt: skip
    assert sum(u * m for u, m in zip(flow.units, flow.modules, strict=True)) == 25
    assert (config.weight, config.temperature, config.loss, config.score) == (0.03, 2, 'js', 'js')
    assert (config.learning_rate, config.backbone_rate, config.flow_rate) == (1e-5, 2.5e-6, 1e-6)
    assert config.cosine
    sides = patch_sides(config.crop, config.smallest, config.largest, config.reference)
    assert (sides[0], sides[-1]) == (16, 216)


def test_the_shipped_table_varies_what_the_issue_asks_for():
    curve = load_leaderboard(PRESETS / 'nflowjs_table.yaml')
    recipes = {row.name: load_recipe(Path(row.recipe), row.changes(42)) for row in curve.rows}
    configs = [recipe.nflowjs for recipe in recipes.values()]
    assert {recipe.head.kind for recipe in recipes.values()} == {'nflowjs'}
    assert {c.temperature for c in configs} >= {1.0, 1.5, 2.0}
    assert {c.loss for c in configs} == {'js', 'kl'}
    assert {c.negatives for c in configs} == {'flow', 'objects', 'none'}
    first = recipes[curve.reference]
    assert first == load_recipe(PRESETS / 'nflowjs_camvid.yaml')
    parameters = build_flow(first.flow).parameters()
    assert sum(p.numel() for p in parameters) == 257_064  # as docs/heads/nflowjs.md says


def test_the_fit_leaves_an_image_of_what_the_flow_makes(places, bundle):
    folders = [only(places / 'nflowjs', part) for part in ('flow', 'fit-nflowjs')]
    before, after = (cv2.imread(str(folder / 'patches.png')) for folder in folders)
    assert before.shape == after.shape == (104 + 4, 4 * (16 + 24 + 40 + 72 + 104 + 5 * 4), 3)
    assert before.std() > 10
    drawn = patch_row(load_flow(folders[1] / 'flow.safetensors'))
    np.testing.assert_array_equal(after[..., ::-1], drawn)
