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
from typing import Any

import numpy as np
import numpy.typing as npt

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
