# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The heads, and the table of the kinds that a recipe can name (head.kind)."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ood_perception.errors import ConfigError

if TYPE_CHECKING:
    from ..training_data import TrainingData
    from .base import HeadFit


class HeadKind(NamedTuple):
    """
    A row of the table.

    module: of this package, and fit: the HeadFit in it. sections: of the recipe that the head is
    read from, beside `head`; of a fusion its members' come on top.
    """

    module: str
    fit: str
    sections: tuple[str, ...]


_PATCHES = ('classifier', 'patches', 'condensation')
_SEGMENTER = ('views', 'segmenter', 'on_the_fly')
_MIXES = ('outliers', 'mixes')
HEADS = {
    'pixood': HeadKind('pixood.fit', 'PixOODFit', _PATCHES),
    'uem': HeadKind('uem.fit', 'UemFit', (*_SEGMENTER, *_MIXES, 'uem')),
    'rpl': HeadKind('rpl.fit', 'RplFit', (*_SEGMENTER, *_MIXES, 'rpl')),
    'baseline': HeadKind('baselines.fit', 'BaselineFit', (*_PATCHES, *_SEGMENTER, 'baseline')),
    'knn': HeadKind('knn.fit', 'KnnFit', (*_PATCHES, 'knn')),
    'nflowjs': HeadKind('nflowjs.fit', 'NflowjsFit', (*_SEGMENTER, *_MIXES, 'flow', 'nflowjs')),
    'distilled': HeadKind(
        'distilled.fit', 'DistilledFit', ('baseline', 'patches', 'views', *_MIXES, 'distilled')
    ),
    'fusion': HeadKind('fusion.fit', 'FusionFit', ('fusion',)),
}


def head_kind(kind: str) -> HeadKind:
    """Return the row of a kind of head; ConfigError for an unknown one."""
    if kind not in HEADS:
        raise ConfigError(f'head kind {kind!r}: choose one of {", ".join(HEADS)}')
    return HEADS[kind]


def head_fit(
    kind: str, data: TrainingData, sections: Mapping[str, Any], store: Path, seed: int
) -> HeadFit:
    """
    Return how a kind of head is fitted to data.

    sections: of the recipe, by name: at least those of the kind's row, and `head`. store: where
    what is fitted is kept. seed: of the trainings. ConfigError for what cannot be.
    """
    row = head_kind(kind)
    made: type[HeadFit] = getattr(importlib.import_module(f'.{row.module}', __name__), row.fit)
    return made(data, sections, store, seed)
