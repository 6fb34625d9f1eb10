# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Features for tests of heads on the segmenter."""

from dataclasses import replace

import numpy as np

from trainer.augment.pasting import OUTLIER
from trainer.data.images import IGNORED
from trainer.features import FeatureSet
from trainer.nets.segmenter import SegmenterConfig

LAYERS = ('tokens_0', 'tokens_1', 'tokens_2', 'tokens_3')


SEGMENTER = SegmenterConfig(width=8, steps=30, warmup=3, select_every=10, matmul='f32')


def feature_set(images=4, dim=8, seed=0, outliers=True):
    """Tokens that carry the label of their patch: two classes left and right, outliers inside."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((images, 56, 84), np.uint8)
    labels[:, :, 42:] = 1
    labels[:, :14] = IGNORED
    if outliers:
        labels[:, 28:42, 28:56] = OUTLIER
    means = np.random.default_rng(9).normal(size=(256, dim))
    patches = labels[:, 7::14, 7::14]
    tokens = {
        name: (means[patches] + 0.3 * rng.normal(size=(*patches.shape, dim))).astype(np.float16)
        for name in LAYERS
    }
    names = tuple(f'image{i}' for i in range(images))
    return FeatureSet(names, tokens, labels, 56, 84, 14, f'set {seed} {outliers}')


class Dying:
    """Tokens that end the run, as a kill would, at the n-th read of an image."""

    def __init__(self, tokens, reads):
        self.tokens, self.shape, self.reads = tokens, tokens.shape, reads

    def __getitem__(self, index):
        self.reads -= 1
        if self.reads < 0:
            raise KeyboardInterrupt
        return self.tokens[index]


def dying(features, steps, batch):
    """Return the same set, whose last layer can be read for so many steps."""
    last = Dying(features.tokens[LAYERS[-1]], steps * batch)
    return replace(features, tokens={**features.tokens, LAYERS[-1]: last})
