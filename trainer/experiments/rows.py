# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Declared variants of the method: one row each of the selection and ablation tables."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ood_perception.errors import ConfigError

from ..heads.pixood_config import METHODS
from ..heads.pixood_module import CALIBRATIONS, SELECTIONS

SCORES = ('pixood', 'distance', 'max_logit', 'max_softmax')
CLASSIFIERS = ('mlp', 'linear')
_CHOICES = {
    'score': SCORES,
    'selection': SELECTIONS,
    'calibration': CALIBRATIONS,
    'method': METHODS,
    'classifier': CLASSIFIERS,
}
_FIT_FIELDS = ('classifier', 'layers', 'seed', 'method', 'etalons', 'reinitialise', 'purity')


@dataclass(frozen=True)
class Row:
    """
    One variant.

    name: unique in its table; varies: what it varies, for the table's blocks.
    score: 'pixood' (Neyman-Pearson ratio of logit and distance), or one of its ingredients alone.
    selection: 'min' over classes, 'gated' by the arg-max class, 'unified'.
    classes: the in-distribution classes; empty = all.
    calibration: 'held-out' table, or the 'paper' one.
    method, etalons (K), reinitialise, purity: the condensation.
    classifier, layers: the classifier and the blocks that it reads; distances use the last one.
    resolution: of the evaluated pictures, as a multiple of their set's longest side.
    upsampling: f. seed: of every fit.
    """

    name: str
    varies: str = 'reference'
    score: str = 'pixood'
    selection: str = 'min'
    classes: tuple[str, ...] = ('Road', 'Pavement')
    calibration: str = 'held-out'
    method: str = 'condensation'
    etalons: int = 200
    reinitialise: bool = True
    purity: float = 0.9
    classifier: str = 'mlp'
    layers: tuple[int, ...] = (5, 8, 11)
    resolution: float = 1.0
    upsampling: int = 7
    seed: int = 0

    def __post_init__(self) -> None:
        for field, known in _CHOICES.items():
            if getattr(self, field) not in known:
                raise ConfigError(
                    f'row {self.name!r}: {field} {getattr(self, field)!r} is unknown; '
                    f'choose one of {", ".join(known)}'
                )
        if not 1 <= self.upsampling <= 7:
            raise ConfigError(f'row {self.name!r}: upsampling {self.upsampling} is not in 1..7')

    def fit_key(self) -> str:
        """Return a hash of everything that the fitted model depends on, but the data."""
        return _hash({field: getattr(self, field) for field in _FIT_FIELDS})

    def key(self) -> str:
        """Return a hash of everything that the row's scores depend on, but the data."""
        values = dataclasses.asdict(self)
        return _hash({field: values[field] for field in values if field not in ('name', 'varies')})


def _hash(values: Mapping[str, Any]) -> str:
    """Hash plain values by their sorted JSON."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def rows_from(base: Mapping[str, Any], declared: Sequence[Mapping[str, Any]]) -> list[Row]:
    """
    Make rows of a configuration: `base` values, overridden by each declared row's.

    Raises ConfigError for an unknown key, a value of the wrong type or a name that repeats.
    """
    rows = [_row({**base, **values}) for values in declared]
    names = [row.name for row in rows]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated or not rows:
        raise ConfigError(f'rows must be there and have names of their own; repeated: {repeated}')
    return rows


def _row(values: Mapping[str, Any]) -> Row:
    """Check the keys and types of one row."""
    fields = {field.name: field for field in dataclasses.fields(Row)}
    unknown = sorted(set(values) - set(fields))
    if unknown or 'name' not in values:
        raise ConfigError(
            f'row {values.get("name")!r}: unknown keys {unknown}; known are {sorted(fields)}'
        )
    checked: dict[str, Any] = {}
    for key, value in values.items():
        wanted = type(getattr(Row, key, ''))
        if wanted is tuple and isinstance(value, (list, tuple)):
            value = tuple(value)
        elif wanted is float and isinstance(value, int):
            value = float(value)
        if type(value) is not wanted:
            raise ConfigError(
                f'row {values["name"]!r}: {key} is {value!r}, expected a {wanted.__name__}'
            )
        checked[key] = value
    return Row(**checked)
