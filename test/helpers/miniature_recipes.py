# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Recipes small enough to be trained in a test, and their data."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from safetensors.torch import save_file
from tiny_backbones import tiny_backbone

from trainer.__main__ import main

MINIATURE = """
name: miniature
seed: 3
backbone: {weights: WEIGHTS, layers: [1, 2]}
data: {layout: folders, root: ROOT, calibration: [], calibration_fraction: 0.5, licence: ours}
view: {height: 56, width: 56, policy: stretch}
classifier: {epochs: 4, learning_rate: 1.0e-2}
patches: {fewest_patches: 10, fewest_images: 2}
condensation: {etalons: 3, epochs: 4}
head: {upsampling: 7, half_weights: true}
bundle:
  in_distribution: [left]
  ground_classes: [left]
  ship_weights: true
  golden: images
"""


# 8 x 8 patches: of fewer, a third of an upsampled map are copies of border values, which torch
# tells apart by rounding alone and an engine need not
LARGER = ('view.height=112', 'view.width=112', 'head.upsampling=3')


def write_data(root: Path, images: int = 16) -> None:
    """Write images of two colours, one on each side, and their labels."""
    (root / 'train' / 'images').mkdir(parents=True)
    (root / 'train' / 'labels').mkdir()
    rng = np.random.default_rng(0)
    for index in range(images):
        labels = np.zeros((56, 56), np.uint8)
        labels[:, 28:] = 1
        tint = np.where(labels[..., None] == 0, (200, 60, 60), (40, 90, 220))
        image = np.clip(tint + rng.normal(0, 30, (56, 56, 3)), 0, 255).astype(np.uint8)
        cv2.imwrite(str(root / 'train' / 'images' / f'drive_{index:02d}.png'), image)
        cv2.imwrite(str(root / 'train' / 'labels' / f'drive_{index:02d}.png'), labels)
    (root / 'classes.yaml').write_text('classes: [{name: left}, {name: right}]\n')


@pytest.fixture(scope='module')
def miniature(tmp_path_factory) -> Path:
    return write_miniature(tmp_path_factory.mktemp('miniature'))


def write_miniature(root: Path, images: int = 16) -> Path:
    """Write data, weights and recipe.yaml into the folder, and return it."""
    write_data(root / 'data', images)
    state = tiny_backbone().model.state_dict()
    save_file({k: v.contiguous() for k, v in state.items()}, root / 'tiny.safetensors')
    text = MINIATURE.replace('WEIGHTS', str(root / 'tiny.safetensors'))
    (root / 'recipe.yaml').write_text(text.replace('ROOT', str(root / 'data')))
    return root


def train(root: Path, out: str, *more: str) -> int:
    recipe = str(root / 'recipe.yaml')
    places = ['--out', str(root / out), '--cache', str(root / 'cache'), '--quiet']
    return main(['train', recipe, *places, *more])
