# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""An RPL recipe small enough for a test."""

from uem_recipes import RECIPE

from ood_perception.bundle.store import load_bundle
from trainer.__main__ import main


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
