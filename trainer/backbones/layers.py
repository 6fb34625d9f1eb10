# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Names of what a backbone gives of a block.

'tokens_11' is block 11's output through the final LayerNorm; 'queries_11', 'keys_11' and
'values_11' are the projections of that block's attention, all heads side by side, before any
rotary embedding. A bare number means tokens.
"""

from __future__ import annotations

import torch
from torch import nn

from ood_perception.errors import ConfigError, DependencyError

TOKENS = 'tokens'
PROJECTIONS = ('queries', 'keys', 'values')
KINDS = (TOKENS, *PROJECTIONS)
Layer = int | str
# what versions of transformers call the projections of an attention
_PROJECTION_NAMES = {'queries': 'q_proj query', 'keys': 'k_proj key', 'values': 'v_proj value'}


def layer_name(layer: Layer) -> str:
    """Return the name of a layer: 'tokens_11' for 11, a name as it is."""
    return layer if isinstance(layer, str) else f'{TOKENS}_{layer}'


def parse_layer(layer: Layer) -> tuple[str, int]:
    """Return (kind, block) of a layer: ('keys', 11) for 'keys_11', ('tokens', 11) for 11."""
    kind, _, block = layer_name(layer).partition('_')
    if kind not in KINDS or not block.isdigit():
        known = ', '.join(f'{name}_<block>' for name in KINDS)
        raise ConfigError(f'layer {layer!r}: expected one of {known}, such as tokens_11')
    return kind, int(block)


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
