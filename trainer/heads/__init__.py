# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""One file per head; the table of the kinds that a recipe can name (head.kind)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from ood_perception.errors import ConfigError

if TYPE_CHECKING:
    from .base import HeadStages

HEADS = {
    'pixood': ('pixood_stages', 'PixOODStages'),
    'uem': ('uem_stages', 'UemStages'),
    'rpl': ('rpl_stages', 'RplStages'),
    'baseline': ('baseline_stages', 'BaselineStages'),
    'knn': ('knn_stages', 'KnnStages'),
    'nflowjs': ('nflowjs_stages', 'NflowjsStages'),
    'fusion': ('fusion_stages', 'FusionStages'),
}


def head_stages(kind: str) -> type[HeadStages]:
    """Return the stages of a kind of head; ConfigError for an unknown one."""
    if kind not in HEADS:
        raise ConfigError(f'head kind {kind!r}: choose one of {", ".join(HEADS)}')
    module, name = HEADS[kind]
    stages: type[HeadStages] = getattr(importlib.import_module(f'.{module}', __name__), name)
    return stages
