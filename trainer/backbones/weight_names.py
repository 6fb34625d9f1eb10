# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
One layout of a ViT's tensor names, whichever file they come from.

It is that of the hub's DINOv2 files (``encoder.layer.<i>.attention...``). Other spellings are
brought to it name by name: facebookresearch's (``blocks.<i>.attn.qkv``) and those of newer
transformers (``q_proj``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ood_perception.errors import DataError

Array = npt.NDArray[Any]
_PREFIXES = ('module.', 'backbone.', 'dinov2_with_registers.', 'dinov2.', 'dinov3_vit.', 'vit.')
_RENAMES = (
    (r'^(model\.)?(encoder\.)?(layers?|blocks)\.(?=\d)', 'encoder.layer.'),
    (r'^(cls_token|mask_token|register_tokens)$', r'embeddings.\1'),
    (r'^storage_tokens$', 'embeddings.register_tokens'),
    (r'^pos_embed$', 'embeddings.position_embeddings'),
    (r'^patch_embed\.proj\.', 'embeddings.patch_embeddings.projection.'),
    (r'^embeddings\.patch_embeddings\.(?=weight|bias)', 'embeddings.patch_embeddings.projection.'),
    (r'^norm\.', 'layernorm.'),
    (r'\.attn\.', '.attention.'),
    (r'\.attention\.(q_proj|attention\.query)\.', '.attention.attention.query.'),
    (r'\.attention\.(k_proj|attention\.key)\.', '.attention.attention.key.'),
    (r'\.attention\.(v_proj|attention\.value)\.', '.attention.attention.value.'),
    (r'\.attention\.(o_proj|proj)\.', '.attention.output.dense.'),
    (r'\.ls([12])\.gamma$', r'.layer_scale\1.lambda1'),
    (r'\.mlp\.up_proj\.', '.mlp.fc1.'),
    (r'\.mlp\.down_proj\.', '.mlp.fc2.'),
    (r'\.intermediate\.dense\.', '.mlp.fc1.'),
    (r'(\.layer\.\d+)\.output\.dense\.', r'\1.mlp.fc2.'),
    (r'\.(layernorm_before|norm1)\.', '.norm1.'),
    (r'\.(layernorm_after|norm2)\.', '.norm2.'),
)
_UNUSED = ('rope', 'pooler', 'classifier', 'head', 'bias_mask', 'local_cls_norm', 'mask_token')
HEAD_DIM = 64  # in every S, B and L model of these families
_SIZES = {384: 's', 768: 'b', 1024: 'l'}


def common_name(name: str) -> str:
    """Return a tensor's name in the common layout, whichever of the known layouts it is from."""
    stripped = True
    while stripped:
        stripped = False
        for prefix in _PREFIXES:
            if name.startswith(prefix):
                name, stripped = name[len(prefix) :], True
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


def to_common_layout(tensors: dict[str, Array]) -> dict[str, Array]:
    """
    Rename tensors to the common layout, split fused qkv and drop what features do not need.

    tensors: name -> array (DINOv3's absent key bias may come as zeros in a fused qkv bias).
    Returns name -> float32 array.
    """
    result: dict[str, Array] = {}
    for name, value in tensors.items():
        if any(part in name for part in _UNUSED):
            continue
        common = common_name(name)
        array = np.ascontiguousarray(value, dtype=np.float32)
        if '.attention.qkv.' in common:
            for part, piece in zip(('query', 'key', 'value'), np.split(array, 3), strict=True):
                result[common.replace('.qkv.', f'.attention.{part}.')] = piece
        else:
            result[common] = array
    return result


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
