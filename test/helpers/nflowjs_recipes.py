# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""An NFlowJS recipe small enough for a test."""

from uem_recipes import RECIPE as UEM

from ood_perception.bundle.store import load_bundle
from trainer.__main__ import main

OWN = """flow: {modules: [1, 1, 1], width: 4, steps: 6, side: 16, select_every: 3, batch: 2}
nflowjs:
  {crop: [42, 56], reference: 42, smallest: 8, largest: 16, steps: 6, select_every: 3, warmup: 1}
"""


def train(root, out, *changes):
    """Train a miniature into root / out and return its bundle."""
    text = UEM.replace('kind: uem', 'kind: nflowjs').replace('miniature_uem', 'miniature_nflowjs')
    text = text.replace('uem: {form: FORM, steps: 20, warmup: 2, select_every: 10}\n', OWN)
    text = text.replace('WEIGHTS', str(root / 'tiny.safetensors'))
    recipe = root / 'nflowjs.yaml'
    recipe.write_text(text.replace('ROOT', str(root / 'data')))
    options = ['--out', str(root / out), '--cache', str(root / 'cache'), '--quiet']
    options += [word for change in changes for word in ('--set', change)]
    assert main(['train', str(recipe), *options]) == 0
    return load_bundle(root / out / 'bundle')
