# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Small random ViTs of every family, for tests that need a backbone but no weights."""

from __future__ import annotations

from dataclasses import replace

import torch

from trainer.backbones.vit import VitBackbone, build
from trainer.backbones.weight_names import Architecture

ARCHITECTURES = {
    'dinov2': Architecture('dinov2', 16, 3, 14, 64, 0, 4),
    'dinov2-reg': Architecture('dinov2', 16, 3, 14, 64, 4, 4),
    'dinov3': Architecture('dinov3', 16, 3, 16, 64, 4, 0),
    'vit': Architecture('vit', 16, 3, 16, 64, 0, 4),
}


def tiny_backbone(family: str = 'dinov2', seed: int = 0, depth: int = 3) -> VitBackbone:
    """Return a small random backbone; every parameter is away from its neutral value."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        backbone = build(replace(ARCHITECTURES[family], depth=depth))
        with torch.no_grad():
            for parameter in backbone.parameters():
                parameter.add_(0.2 * torch.randn(parameter.shape))
    backbone.provenance = {'weights_sha256': f'{family}-{seed}'}
    return backbone
