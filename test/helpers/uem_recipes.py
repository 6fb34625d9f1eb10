# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A UEM recipe small enough for a test."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from miniature_recipes import write_data
from safetensors.torch import save_file
from tiny_backbones import tiny_backbone

from ood_perception.bundle.store import load_bundle
from trainer.__main__ import main

RECIPE = """
name: miniature_uem
seed: 3
backbone: {weights: WEIGHTS, layers: [0, 1, 2, 3]}
data: {layout: folders, root: ROOT, calibration: [], calibration_fraction: 0.5, licence: ours}
view: {height: 56, width: 56, policy: stretch}
head: {kind: uem}
views: {views: 2}
segmenter: {width: 8, steps: 20, warmup: 2, select_every: 10}
mixes: {count: 12}
uem: {form: FORM, steps: 20, warmup: 2, select_every: 10}
bundle:
  in_distribution: [left]
  ground_classes: [left]
  ship_weights: true
  golden: images
"""


def write_objects(folder):
    """Write everyday images with one green square each, in COCO's format."""
    (folder / 'images').mkdir(parents=True)
    images, annotations = [], []
    for i in range(8):
        photo = np.full((200, 200, 3), 120, np.uint8)
        photo[60:140, 60:140] = (30, 220, 40)
        cv2.imwrite(str(folder / 'images' / f'everyday{i}.png'), photo)
        square = [60, 60, 139, 60, 139, 139, 60, 139]
        images.append({'id': i, 'file_name': f'everyday{i}.png'})
        annotations.append({'image_id': i, 'category_id': 1, 'segmentation': [square]})
    coco = {'images': images, 'annotations': annotations}
    coco['categories'] = [{'id': 1, 'name': 'square'}]
    (folder / 'instances.json').write_text(json.dumps(coco))


@pytest.fixture(scope='module')
def places(tmp_path_factory):
    return write_places(tmp_path_factory.mktemp('uem'))


def write_places(root):
    """Write data, objects and weights into the folder, and return it."""
    write_data(root / 'data')
    write_objects(root / 'outlier_objects')
    state = tiny_backbone(depth=4).model.state_dict()
    save_file({k: v.contiguous() for k, v in state.items()}, root / 'tiny.safetensors')
    return root


def recipe_of(root, form):
    """Write the recipe of a form, and return its file."""
    text = RECIPE.replace('WEIGHTS', str(root / 'tiny.safetensors')).replace('FORM', form)
    path = root / f'{form}.yaml'
    path.write_text(text.replace('ROOT', str(root / 'data')))
    return path


def train(root, form, out, *more):
    recipe = recipe_of(root, form)
    options = ['--out', str(root / out), '--cache', str(root / 'cache'), '--quiet']
    assert main(['train', str(recipe), *options, *more]) == 0
    return load_bundle(root / out / 'bundle')
