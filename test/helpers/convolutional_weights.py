# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Convolutional backbones with random weights."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from trainer.backbones.base import BackboneChoice
from trainer.backbones.convolutional import ConvolutionalBackbone


def convolutional(
    path: Path | None = None, name: str = 'mobilenet_v2', stride: int = 16, patch: int = 0
) -> ConvolutionalBackbone:
    """Return a random backbone through which an image's differences come; path: kept there."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        backbone = ConvolutionalBackbone(BackboneChoice(name=name, stride=stride, patch=patch))
        for module in backbone.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_var.uniform_(0.1, 0.4)
                module.bias.uniform_(-0.1, 0.5)
    if path is not None:
        state = backbone.model.state_dict()
        save_file({k: v.contiguous() for k, v in state.items()}, path)
    return backbone
