# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Small synthetic feature sets: every class a mixture of Gaussians, labels in blocks."""

import numpy as np

from trainer.features import FeatureSet


def make_feature_set(
    *,
    images=24,
    grid=(6, 8),
    dim=16,
    classes=3,
    layers=('tokens_5', 'tokens_11'),
    patch=14,
    modes=4,
    spread=0.5,
    seed=0,
    world=0,
):
    """`world` draws the modes (share it between train and held-out), `seed` the images."""
    centres = np.random.default_rng(world).normal(0, 2, (len(layers), classes, modes, dim))
    rng = np.random.default_rng([seed, 1])
    ids = np.repeat(rng.integers(0, classes, (images, grid[0], grid[1] // 2)), 2, axis=2)
    mode = rng.integers(0, modes, ids.shape)
    tokens = {
        layer: (centres[i][ids, mode] + rng.normal(0, spread, (*ids.shape, dim))).astype(
            np.float16
        )
        for i, layer in enumerate(layers)
    }
    labels = ids.astype(np.uint8).repeat(patch, axis=1).repeat(patch, axis=2)
    names = tuple(f'image_{i:03d}' for i in range(images))
    height, width = grid[0] * patch, grid[1] * patch
    return FeatureSet(names, tokens, labels, height, width, patch, f'synthetic {seed} {world}')
