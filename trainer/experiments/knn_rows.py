# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The table of cDNP as its YAML declares it: one row a choice of references, feature and score."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ood_perception.errors import ConfigError
from ood_perception.yaml_files import read_mapping

from ..config import Recipe, load_recipe
from ..heads.knn import KnnConfig


@dataclass(frozen=True)
class KnnRow:
    """
    One variant.

    name: unique in its table; varies: what it varies, for the table's blocks. knn: its settings.
    classes: whose features are drawn, empty = all.
    """

    name: str
    varies: str = 'reference'
    knn: KnnConfig = field(default_factory=KnnConfig)
    classes: tuple[str, ...] = ()

    def key(self) -> str:
        """Return a hash of everything but name and block."""
        values = [dataclasses.asdict(self.knn), list(self.classes)]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]

    def search(self) -> tuple[Any, ...]:
        """Return what one pass over the references has in common with other rows."""
        knn = self.knn
        return knn.feature, knn.head_split, knn.coreset, self.classes


@dataclass(frozen=True)
class KnnTableConfig:
    """
    A table.

    recipe: data, backbone, view and classifier; its knn section is what rows change. folder:
    everything that is made. report: the Markdown file. sets: anomaly set -> longest side of its
    pictures at the network. reference: name of the row that others are compared with.
    """

    recipe: Recipe
    folder: Path
    report: Path
    sets: Mapping[str, int]
    rows: tuple[KnnRow, ...]
    reference: str
    resamples: int = 1000


def load_knn_table(path: Path) -> KnnTableConfig:
    """
    Read a table; the recipe is relative to the file.

    Raises ConfigError naming the file and the unknown or missing key.
    """
    values = read_mapping(path, 'table')
    known = {item.name for item in dataclasses.fields(KnnTableConfig)}
    wrong = sorted(set(values) - known)
    missing = sorted({'recipe', 'folder', 'sets', 'rows'} - set(values))
    if wrong or missing:
        raise ConfigError(f'{path}: unknown {wrong}, missing {missing}; known are {sorted(known)}')
    recipe = load_recipe(path.parent / values['recipe'])
    rows = tuple(_row(entry, recipe.knn, path) for entry in values['rows'])
    names = [row.name for row in rows]
    reference = values.get('reference', names[0] if names else '')
    if not names or len(set(names)) != len(names) or reference not in names:
        raise ConfigError(f'{path}: rows need names of their own and a reference, has {names}')
    folder = Path(values['folder'])
    return KnnTableConfig(
        recipe=recipe,
        folder=folder,
        report=Path(values.get('report', folder / 'knn_table.md')),
        sets=dict(values['sets']),
        rows=rows,
        reference=reference,
        resamples=int(values.get('resamples', 1000)),
    )


def _row(entry: Any, base: KnnConfig, path: Path) -> KnnRow:
    settings = {item.name for item in dataclasses.fields(KnnConfig)}
    own = {'name', 'varies', 'classes'}
    if not isinstance(entry, dict) or 'name' not in entry or set(entry) - settings - own:
        raise ConfigError(f'{path}: row {entry!r}: known keys are {sorted(settings | own)}')
    changes = {key: value for key, value in entry.items() if key in settings}
    return KnnRow(
        entry['name'],
        entry.get('varies', 'reference'),
        dataclasses.replace(base, **changes),
        tuple(entry.get('classes', ())),
    )
