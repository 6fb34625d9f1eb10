# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The patch classifier as a part of a head: tokens to logits on the output grid."""

from __future__ import annotations

import copy

import torch
from torch import nn

from ood_perception.errors import ConfigError

from ..nets.patch_classifier import Classifier
from .upsampling import InterpolatedLinear, half_rounded, upsample


class PatchLogits(nn.Module):
    """
    Upsampled logits of all known classes.

    layers: token names, in the order of forward's arguments. logits, factor, half: as for
    PixOODHead.
    """

    def __init__(self, classifier: Classifier, logits: str, factor: int, half: bool) -> None:
        super().__init__()
        self.layers = tuple(classifier.layers)
        self.classifier = served_classifier(classifier, logits, factor, half)
        self.factor = 1 if logits == 'features' else factor  # 'features' upsamples by itself

    def forward(self, *tokens: torch.Tensor) -> torch.Tensor:
        """Return float32 (B, gh*f, gw*f, C) from float32 (B, gh, gw, D) per layer."""
        return upsample(self.classifier(torch.cat(tokens, 3)), self.factor)


def served_classifier(source: nn.Module, logits: str, factor: int, half: bool) -> nn.Module:
    """Return a copy with weights as stored; for 'features' it upsamples after its first layer."""
    classifier = copy.deepcopy(source).float()
    with torch.no_grad():
        for values in classifier.parameters() if half else ():
            values.copy_(half_rounded(values))
    if logits == 'patch':
        return classifier
    linear = [layer for layer in classifier.modules() if isinstance(layer, nn.Linear)]
    rest = nn.Identity() if len(linear) == 1 else nn.Sequential(nn.GELU(), linear[-1])
    tokens = torch.linspace(-2.0, 2.0, 3 * linear[0].in_features).reshape(1, 1, 3, -1)
    with torch.no_grad():
        if len(linear) > 2 or not torch.allclose(classifier(tokens), rest(linear[0](tokens))):
            raise ConfigError(
                "logits 'features' needs a linear or two-layer GELU classifier: use logits 'patch'"
            )
    return InterpolatedLinear(linear[0], rest, factor)
