# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The table of RPL as its YAML declares it: hosts, and the losses that are switched on."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from ood_perception.errors import ConfigError

from ..config import Recipe
from ..hosts.mobilenet_stages import MobileNetConfig
from .seeded_table import SeededTableConfig, read_rows, read_seeded_table, tupled

SEGMENTER, MOBILENET = 'segmenter', 'mobilenetv2'
HOSTS = (SEGMENTER, MOBILENET)
RESIDUAL, FROZEN = 'residual', 'frozen'
"""Scores: the energy with the residual, and that of the frozen network alone."""


@dataclass(frozen=True)
class RplRow:
    """
    One training of a block, for every seed.

    host: which frozen network it sits on. dissimilarity, contrast, context: see RplConfig.
    against: rows that it is compared with, beside the frozen network's own energy.
    """

    name: str
    host: str = SEGMENTER
    dissimilarity: bool = True
    contrast: bool = True
    context: bool = True
    against: tuple[str, ...] = ()

    def recipe(self, base: Recipe) -> Recipe:
        """Return the recipe of this training."""
        losses = {n: getattr(self, n) for n in ('dissimilarity', 'contrast', 'context')}
        return replace(base, rpl=replace(base.rpl, **losses))


@dataclass(frozen=True)
class RplTableConfig(SeededTableConfig):
    """A table; mobilenet: the host of rows that ask for it. The rest: see SeededTableConfig."""

    mobilenet: MobileNetConfig = field(default_factory=MobileNetConfig)


def load_rpl_table(path: Path) -> RplTableConfig:
    """
    Read a table; the recipe is relative to the file.

    Raises ConfigError naming the file and the unknown or missing key, row or host.
    """
    values = read_seeded_table(path, RplTableConfig, 'rpl_table.md')
    rows = read_rows(path, values['trainings'], RplRow)
    rows = tuple(replace(row, against=_names(row.against)) for row in rows)
    names = [row.name for row in rows]
    strange = [other for row in rows for other in row.against if other not in names]
    if strange:
        raise ConfigError(f'{path}: unknown {strange} in against; trainings are {names}')
    for row in rows:
        if row.host not in HOSTS:
            raise ConfigError(f'{path}: host {row.host!r}: choose one of {", ".join(HOSTS)}')
    values['trainings'] = rows
    values['mobilenet'] = MobileNetConfig(**tupled(values.get('mobilenet', {})))
    return RplTableConfig(**values)


def _names(against: str | tuple[str, ...]) -> tuple[str, ...]:
    return (against,) if isinstance(against, str) else against
