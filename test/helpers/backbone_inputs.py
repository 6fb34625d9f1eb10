# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Inputs of tiny backbones."""

import torch


def picture(height: int, width: int, count: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, height, width, 3), generator=generator, dtype=torch.uint8)


def normalised(backbone, image):
    return ((image.float() - backbone.mean) / backbone.std).permute(0, 3, 1, 2)
