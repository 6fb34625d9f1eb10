# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What a file of ViT weights tells about its model, by the tensors' names and shapes alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ood_perception.errors import DataError

HEAD_DIM = 64  # in every S, B and L model of these families
_SIZES = {384: 's', 768: 'b', 1024: 'l'}


@dataclass(frozen=True)
class Architecture:
    """What a weight file tells about its model; grid = positions per side of its embedding."""

    family: str
    dim: int
    depth: int
    patch: int
    hidden: int
    registers: int
    grid: int

    @property
    def heads(self) -> int:
        """The attention heads of a block."""
        return max(1, self.dim // HEAD_DIM)

    @property
    def name(self) -> str:
        """The usual name, such as dinov2-s14 or dinov2-reg-b14."""
        suffix = '-reg' if self.family == 'dinov2' and self.registers else ''
        return f'{self.family}{suffix}-{_SIZES.get(self.dim, self.dim)}{self.patch}'


def architecture_of(tensors: dict[str, Any]) -> Architecture:
    """Read the architecture from tensors in the common layout; DataError where it is unknown."""
    names = [n for n in tensors if n.startswith('encoder.layer.')]
    projection = tensors['embeddings.patch_embeddings.projection.weight']
    depth = 1 + max((int(n.split('.')[2]) for n in names), default=-1)
    if f'encoder.layer.{depth - 1}.mlp.fc1.weight' not in tensors:
        raise DataError(
            'unknown backbone: its blocks have no two-layer MLP; use an S, B or L model'
        )
    positions = tensors.get('embeddings.position_embeddings')
    registers = tensors.get('embeddings.register_tokens')
    if positions is None:
        family = 'dinov3'
    else:
        scaled = 'encoder.layer.0.layer_scale1.lambda1' in tensors
        family = 'dinov2' if scaled else 'vit'
    return Architecture(
        family=family,
        dim=int(projection.shape[0]),
        depth=depth,
        patch=int(projection.shape[2]),
        hidden=int(tensors['encoder.layer.0.mlp.fc1.weight'].shape[0]),
        registers=0 if registers is None else int(registers.shape[1]),
        grid=0 if positions is None else round((positions.shape[1] - 1) ** 0.5),
    )
