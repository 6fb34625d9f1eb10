# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A backbone as a graph for one picture size, ready for export; its positions are constants."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from .layers import PROJECTIONS, TOKENS, parse_layer, projected

if TYPE_CHECKING:
    from .backbones import Backbone


class BakedBackbone(nn.Module):
    """The backbone for one picture size: uint8 NHWC in, one token map per layer's name out."""

    def __init__(self, backbone: Backbone, rows: int, columns: int, layers: tuple[str, ...]):
        super().__init__()
        self.rows, self.columns, self.layers = rows, columns, layers
        self.rotary = backbone.architecture.family == 'dinov3'
        self.projection, self.final_norm = backbone.projection, backbone.final_norm
        self.wanted = [parse_layer(layer) for layer in layers]
        last = max(block for _, block in self.wanted)
        self.blocks = nn.ModuleList(list(backbone.blocks)[: last + 1])
        self.register_buffer('prefix', backbone.prefix())
        self.register_buffer('mean', backbone.mean.reshape(1, 3, 1, 1))
        self.register_buffer('scale', 1.0 / backbone.std.reshape(1, 3, 1, 1))
        if self.rotary:
            size = (1, 3, rows * backbone.patch, columns * backbone.patch)
            cosine, sine = backbone.model.rope_embeddings(torch.zeros(size))
            self.register_buffer('cosine', cosine)
            self.register_buffer('sine', sine)
        else:
            self.register_buffer('positions', backbone.positions(rows, columns))
        self.eval()

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Map uint8 (B, h, w, 3) RGB to one float (B, gh, gw, D) per layer, in their order."""
        pixels = (image.float().permute(0, 3, 1, 2) - self.mean) * self.scale
        state = self.projection(pixels).flatten(2).transpose(1, 2)
        if not self.rotary:
            state = state + self.positions
        state = torch.cat((self.prefix.expand(image.shape[0], -1, -1), state), dim=1)
        taken: dict[tuple[str, int], torch.Tensor] = {}
        for index, block in enumerate(self.blocks):
            for kind in PROJECTIONS:
                if (kind, index) in self.wanted:
                    taken[kind, index] = self._patches(projected(block, kind, state))
            if index + 1 == len(self.blocks) and (TOKENS, index) not in self.wanted:
                break  # of the last block nothing else is wanted
            state = self._block(block, state)
            if (TOKENS, index) in self.wanted:
                # the registers' norm is applied to all tokens and cut afterwards, as the models do
                taken[TOKENS, index] = self._patches(self.final_norm(state))
        return tuple(taken[layer] for layer in self.wanted)

    def _block(self, block: nn.Module, state: torch.Tensor) -> torch.Tensor:
        """Apply one block; versions of transformers differ in wrapping the result in a tuple."""
        rotary = {'position_embeddings': (self.cosine, self.sine)} if self.rotary else {}
        result = block(state, **rotary)
        return result[0] if isinstance(result, tuple) else result

    def _patches(self, state: torch.Tensor) -> torch.Tensor:
        """Return (B, rows, columns, D) of (B, 1 + R + patches, D): no class or register token."""
        tokens = state[:, self.prefix.shape[1] :]
        return tokens.reshape(tokens.shape[0], self.rows, self.columns, tokens.shape[2])
