# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The patch classifier as a part of a head: tokens to logits on the output grid."""

from __future__ import annotations

import torch
from torch import nn

from ..classifier import Classifier
from .pixood_module import served_classifier
from .upsampling import upsample


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
