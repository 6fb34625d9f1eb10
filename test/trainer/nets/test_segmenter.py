# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The segmenter as it is served in one graph: norms folded, weights as float16 holds them."""

from __future__ import annotations

import pytest

torch = pytest.importorskip('torch', reason='the trainer needs torch')

from torch import nn  # noqa: E402

from trainer.heads.upsampling import halve  # noqa: E402
from trainer.nets.segmenter import Segmenter, SegmenterConfig, fold_norms  # noqa: E402

LAYERS = [f'tokens_{block}' for block in range(4)]


def served(head):
    """Return a segmenter whose norms have seen something, and tokens."""
    torch.manual_seed(0)
    segmenter = Segmenter(LAYERS, 32, 3, SegmenterConfig(width=8, head=head))
    tokens = [torch.randn(2, 4, 6, 32) for _ in LAYERS]
    segmenter.train()
    for _ in range(3):
        segmenter(*(2 * one + 1 for one in tokens))
    return segmenter.requires_grad_(False).eval(), tokens


@pytest.mark.parametrize('head', ['linear', 'gmm'])
def test_folded_norms_change_nothing(head):
    segmenter, tokens = served(head)
    before = segmenter(*tokens)
    fold_norms(segmenter)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in segmenter.modules())
    torch.testing.assert_close(segmenter(*tokens), before, rtol=1e-4, atol=1e-4)
    fold_norms(segmenter)  # a second time there is nothing to do
    torch.testing.assert_close(segmenter(*tokens), before, rtol=1e-4, atol=1e-4)


def test_halved_weights_are_what_float16_holds_and_nearly_what_they_were():
    segmenter, tokens = served('gmm')
    before = segmenter(*tokens)
    halve(segmenter)
    layers = [one for one in segmenter.modules() if isinstance(one, (nn.Linear, nn.Conv2d))]
    assert layers
    for layer in layers:
        assert torch.equal(layer.weight, layer.weight.half().float())
    assert 0 < (segmenter(*tokens) - before).abs().max() < 0.01 * before.abs().max()
