# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Frozen ViT backbones of Hugging Face transformers behind one interface.

The architecture is read from the tensors' names and shapes, so a weight file is enough: DINOv2
S/B/L-14 with and without registers, DINOv3 S/B/L-16 and plain ViT. Nothing is asked of a hub.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ood_perception.errors import DataError, DependencyError, required
from ood_perception.requirements import install_command

from .base import IMAGENET, PROJECTIONS, TOKENS, Backbone, BackboneChoice, Layer
from .weight_names import HEAD_DIM, Architecture, architecture_of, common_name
from .weights import Weights

HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
# what versions of transformers call the projections of an attention
_PROJECTION_NAMES = {'queries': 'q_proj query', 'keys': 'k_proj key', 'values': 'v_proj value'}


class VitBackbone(Backbone):
    """
    A frozen ViT that gives patch tokens, all layers of one width.

    architecture: read from the weights.
    """

    kinds = (TOKENS, *PROJECTIONS)

    def __init__(self, model: nn.Module, architecture: Architecture, choice: BackboneChoice):
        mean, std = HALF if architecture.family == 'vit' else IMAGENET
        size = (architecture.name, architecture.patch, architecture.depth)
        super().__init__(model, *size, (choice.mean or mean, choice.std or std))
        self.architecture = architecture
        self.dim, self.heads = architecture.dim, architecture.heads

    def width(self, layer: Layer) -> int:
        """Return the channels of a layer."""
        return self.dim

    @property
    def blocks(self) -> nn.ModuleList:
        """The transformer's blocks, where transformers keeps them."""
        for path in ('encoder.layer', 'layers', 'model.layer', 'layer'):
            try:
                return self.model.get_submodule(path)  # type: ignore[return-value]
            except AttributeError:
                continue
        raise DependencyError('this version of transformers keeps its blocks in an unknown place')

    @property
    def final_norm(self) -> nn.Module:
        """The LayerNorm behind the last block."""
        return self.model.norm if self.architecture.family == 'dinov3' else self.model.layernorm

    @property
    def projection(self) -> nn.Module:
        """The patch embedding's convolution."""
        embedding = self.model.embeddings.patch_embeddings
        return getattr(embedding, 'projection', embedding)

    def _bake(self, height: int, width: int, layers: tuple[tuple[str, int], ...]) -> nn.Module:
        return BakedBackbone(self, height // self.patch, width // self.patch, layers)

    def positions(self, rows: int, columns: int) -> torch.Tensor:
        """Return the position embedding of a patch grid, float32 (1, rows * columns, D)."""
        stored = self.model.embeddings.position_embeddings[:, 1:].float()
        side = self.architecture.grid
        grid = stored.reshape(1, side, side, -1).permute(0, 3, 1, 2)
        if (rows, columns) != (side, side):
            # DINOv2 was published without antialiasing, its variant with registers with it
            smooth = self.architecture.registers > 0
            grid = functional.interpolate(
                grid, (rows, columns), mode='bicubic', align_corners=False, antialias=smooth
            )
        return grid.permute(0, 2, 3, 1).reshape(1, rows * columns, -1).contiguous()

    def prefix(self) -> torch.Tensor:
        """Return class and register tokens as they enter the blocks, float32 (1, 1 + R, D)."""
        embeddings = self.model.embeddings
        parts = [embeddings.cls_token.float()]
        if self.architecture.family != 'dinov3':
            parts[0] = parts[0] + embeddings.position_embeddings[:, :1].float()
        if self.architecture.registers:
            parts.append(embeddings.register_tokens.float())
        return torch.cat(parts, dim=1)


class BakedBackbone(nn.Module):
    """The backbone for one image size: uint8 NHWC in, one token map per layer's name out."""

    def __init__(
        self,
        backbone: VitBackbone,
        rows: int,
        columns: int,
        layers: tuple[tuple[str, int], ...],
    ):
        super().__init__()
        self.rows, self.columns, self.wanted = rows, columns, layers
        self.rotary = backbone.architecture.family == 'dinov3'
        self.projection, self.final_norm = backbone.projection, backbone.final_norm
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


def build(architecture: Architecture, choice: BackboneChoice | None = None) -> VitBackbone:
    """Build a backbone with random weights (torch's seed), from nothing but its architecture."""
    if architecture.dim % HEAD_DIM and architecture.dim > HEAD_DIM:
        raise DataError(f'unknown backbone: width {architecture.dim} is no multiple of {HEAD_DIM}')
    remedy = f'backbones need transformers: {install_command("train")}'
    transformers = required('transformers', remedy)
    common = {
        'hidden_size': architecture.dim,
        'num_hidden_layers': architecture.depth,
        'num_attention_heads': architecture.heads,
        'patch_size': architecture.patch,
        'image_size': max(1, architecture.grid) * architecture.patch,
    }
    model = _model(transformers, architecture, common)
    return VitBackbone(model, architecture, choice or BackboneChoice())


def _model(transformers: Any, architecture: Architecture, common: dict[str, int]) -> nn.Module:
    """Make the model of transformers for an architecture."""
    hidden = architecture.hidden
    if architecture.family == 'dinov3':
        config = transformers.DINOv3ViTConfig(
            **common,
            intermediate_size=hidden,
            num_register_tokens=architecture.registers,
            layer_norm_eps=1e-5,
        )
        return transformers.DINOv3ViTModel(config)
    if architecture.family == 'vit':
        config = transformers.ViTConfig(**common, intermediate_size=hidden, layer_norm_eps=1e-12)
        return transformers.ViTModel(config, add_pooling_layer=False)
    common['mlp_ratio'] = hidden // architecture.dim
    if architecture.registers:
        config = transformers.Dinov2WithRegistersConfig(
            **common, num_register_tokens=architecture.registers
        )
        return transformers.Dinov2WithRegistersModel(config)
    return transformers.Dinov2Model(transformers.Dinov2Config(**common))


def load_vit(weights: Weights, choice: BackboneChoice) -> VitBackbone:
    """Build the ViT that the weights are of, filled; DataError for an incomplete file."""
    backbone = build(architecture_of(weights.tensors), choice)
    _fill(backbone, weights)
    return backbone


def _fill(backbone: Backbone, weights: Weights) -> None:
    """Copy the tensors into the model, matching names through the common layout."""
    expected = {common_name(n): p for n, p in backbone.model.state_dict().items()}
    missing = [n for n in expected if n not in weights.tensors and 'mask_token' not in n]
    if missing:
        raise DataError(
            f'{weights.path} lacks {len(missing)} tensors of {backbone.name}: {missing[:3]}'
        )
    for name, target in expected.items():
        if 'mask_token' in name:
            continue
        value = torch.from_numpy(np.array(weights.tensors[name]))
        if value.shape != target.shape:
            raise DataError(
                f'{weights.path}: tensor {name} is {tuple(value.shape)}, expected '
                f'{tuple(target.shape)}'
            )
        target.copy_(value)


def projected(block: nn.Module, kind: str, state: torch.Tensor) -> torch.Tensor:
    """Return a block's queries, keys or values (B, T, D) of the state that enters the block."""
    parts = dict(block.named_modules())
    norm = parts.get('norm1', parts.get('layernorm_before'))
    names = _PROJECTION_NAMES[kind].split()
    inner = [(n.split('.')[-1], m) for n, m in parts.items() if n.startswith('attention.')]
    found = [module for name, module in inner if name in names]
    if norm is None or len(found) != 1:
        raise DependencyError(
            f'this version of transformers keeps the {kind} of its attention in an unknown place'
        )
    return found[0](norm(state))
