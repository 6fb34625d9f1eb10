# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What a training will cost: the amounts are exact, the times grow with what is to be done."""

from __future__ import annotations

import json

import pytest
from paths import ROOT

torch = pytest.importorskip('torch')
pytest.importorskip('transformers')

from miniature_recipes import miniature  # noqa: E402

from trainer.__main__ import main  # noqa: E402
from trainer.recipe import load_recipe  # noqa: E402
from trainer.workflow import Workflow  # noqa: E402

__all__ = ['miniature']  # fixtures


def cost(root, capsys, *words):
    fixed = ['cost', str(root / 'recipe.yaml'), '--classes', '2', '--json', '--quiet']
    status = main([*fixed, '--cache', str(root / 'cache'), *words])
    printed = capsys.readouterr().out
    return status, {one['name']: one for one in json.loads(printed)} if not status else printed


def test_the_disk_that_is_told_is_what_tokens_take(miniature, capsys):
    _, stages = cost(miniature, capsys, '--images', '16')
    recipe = load_recipe(miniature / 'recipe.yaml')
    workflow = Workflow(recipe, miniature / 'run', cache=miniature / 'cache')
    tokens = workflow.data.train_features
    size = sum(array.nbytes for array in tokens.tokens.values()) + tokens.labels.nbytes
    assert stages['extraction']['disk'] == size


def test_everything_grows_with_the_images(miniature, capsys):
    _, few = cost(miniature, capsys, '--images', '1000')
    _, many = cost(miniature, capsys, '--images', '10000')
    assert list(few) == ['extraction', 'classifier', 'condensation']
    for name, stage in few.items():
        assert many[name]['operations'] == pytest.approx(10 * stage['operations'], rel=0.02)
        assert stage['core_seconds'] > 0
    assert many['classifier']['memory'] == few['classifier']['memory']
    assert main(['cost', str(miniature / 'recipe.yaml'), '--images', '5', '--quiet']) == 0
    assert 'PFLOP' in capsys.readouterr().out


def test_other_heads_are_refused(miniature, capsys):
    recipe = ROOT / 'config' / 'train' / 'road_uem.yaml'
    assert main(['cost', str(recipe), '--images', '5']) == 2
    assert 'pixood alone' in capsys.readouterr().err
    assert cost(miniature, capsys, '--images', '0')[0] == 2
