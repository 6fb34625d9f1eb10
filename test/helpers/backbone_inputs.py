# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Inputs of tiny backbones."""

import torch

from trainer.backbones.base import layer_name


def photo(height: int, width: int, count: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, height, width, 3), generator=generator, dtype=torch.uint8)


def normalised(backbone, image):
    return ((image.float() - backbone.mean) / backbone.std).permute(0, 3, 1, 2)


@torch.no_grad()
def tokens_of(backbone, image, layers):
    """Return name ('tokens_11') -> float32 (B, rows, columns, C) of uint8 (B, h, w, 3)."""
    baked = backbone.baked(int(image.shape[1]), int(image.shape[2]), layers)
    return dict(zip(map(layer_name, layers), baked(image), strict=True))
