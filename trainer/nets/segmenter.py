# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
The closed-set segmenter on the frozen ViT: tokens of four layers -> decoder feature -> logits.

It serves every head that needs a decoder feature or closed-set logits (UEM, RPL, NFlowJS, the
baselines). Trained by segmenter_training.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ood_perception.errors import ConfigError, DataError

from .fpn import PRESETS, UPSAMPLING, Decoder
from .gmm import GmmHead, GmmSettings

HEADS = ('linear', 'gmm')


@dataclass(frozen=True)
class SegmenterConfig:
    """
    How the segmenter is built and trained (defaults: the `cpu` preset).

    head: 'linear' or 'gmm'. width: of the decoder feature. preset: of the decoder, see fpn.
    steps, batch: 6000 picture-steps by default. warmup: steps of rising rate; then it falls
        linearly (UEM: polynomial of power 1 to 1e-7). pixel_step: every s-th row and column.
    matmul: 'f32' or 'bf16' arithmetic of the decoder. select_every: steps between measurements of
        mean IoU on the selection pictures; the best state is kept.
    online: draw fresh views in every step and run the backbone on them (the `paper` preset, for a
        GPU), instead of the cached bank of views.
    """

    head: str = 'linear'
    width: int = 64
    preset: str = 'light'
    steps: int = 1500
    batch: int = 4
    learning_rate: float = 5e-4
    weight_decay: float = 0.0
    warmup: int = 50
    pixel_step: int = 2
    matmul: str = 'bf16'
    select_every: int = 250
    gmm: GmmSettings = field(default_factory=GmmSettings)
    online: bool = False
    seed: int = 42

    def __post_init__(self) -> None:
        choices = (('head', HEADS), ('preset', PRESETS), ('matmul', ('f32', 'bf16')))
        for name, known in choices:
            if getattr(self, name) not in known:
                raise ConfigError(
                    f'segmenter {name} {getattr(self, name)!r}: choose one of {", ".join(known)}'
                )
        if min(self.steps, self.batch, self.pixel_step, self.width, self.select_every) < 1:
            raise ConfigError(
                'segmenter steps, batch, width, pixel_step, select_every: at least 1'
            )


class Segmenter(nn.Module):
    """
    Decoder and classifier.

    layers: token names in the order of forward's arguments. dim: their width, one for all or
    one each. upsampling: cells per patch.
    align_corners: of its bilinear upsampling.
    """

    align_corners = False

    def __init__(
        self,
        layers: Sequence[str],
        dim: int | Sequence[int],
        classes: int,
        config: SegmenterConfig,
    ):
        super().__init__()
        self.config, self.classes, self.dim = config, classes, dim
        self.decoder = Decoder(layers, dim, config.width, config.preset)
        self.classifier: nn.Module = (
            GmmHead(config.width, classes, config.gmm)
            if config.head == 'gmm'
            else nn.Linear(config.width, classes)
        )

    @property
    def layers(self) -> tuple[str, ...]:
        """The token maps that it reads."""
        return self.decoder.layers

    @property
    def upsampling(self) -> int:
        """Cells of the feature per patch along each axis."""
        return UPSAMPLING

    @property
    def trunk_width(self) -> int:
        """Width of the last tokens."""
        return self.dim if isinstance(self.dim, int) else self.dim[-1]

    @property
    def feature_width(self) -> int:
        """Width of the feature that enters the classifier."""
        return self.config.width

    def feature(self, *tokens: torch.Tensor) -> torch.Tensor:
        """Map float (B, gh, gw, D) per layer to the decoder feature (B, 4 gh, 4 gw, width)."""
        feature: torch.Tensor = self.decoder(*tokens).permute(0, 2, 3, 1)
        return feature

    def forward(self, *tokens: torch.Tensor) -> torch.Tensor:
        """Map float (B, gh, gw, D) per layer to logits (B, 4 gh, 4 gw, C)."""
        logits: torch.Tensor = self.classifier(self.feature(*tokens).float())
        return logits


def save_segmenter(path: Path, segmenter: Segmenter) -> None:
    """Write a segmenter as safetensors; its configuration is in the metadata."""
    values = {
        'layers': segmenter.layers,
        'dim': segmenter.dim,
        'classes': segmenter.classes,
        'config': asdict(segmenter.config),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.contiguous() for name, value in segmenter.state_dict().items()}
    save_file(tensors, path, metadata={'segmenter': json.dumps(values)})


def load_segmenter(path: Path) -> Segmenter:
    """Read what save_segmenter wrote; DataError where it is something else."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework='pt') as stream:
            values = json.loads((stream.metadata() or {})['segmenter'])
        config = dict(values['config'])
        config['gmm'] = GmmSettings(**config['gmm'])
        segmenter = Segmenter(
            values['layers'], values['dim'], values['classes'], SegmenterConfig(**config)
        )
        segmenter.load_state_dict(load_file(path))
    except (OSError, SafetensorError, KeyError, TypeError) as error:
        raise DataError(f'{path} is no segmenter of this trainer: {error}') from error
    return segmenter.requires_grad_(False).eval()
