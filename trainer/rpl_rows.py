# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The table of RPL as its YAML declares it: hosts, and the losses that are switched on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ood_perception.errors import ConfigError

from .config import Recipe, load_recipe
from .hosts.mobilenet_stages import MobileNetConfig
from .workbench import read_yaml

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
class RplTableConfig:
    """
    A table; as UemTableConfig.

    recipe: data, backbone, view and schedules. folder: everything that is made. report: the
    Markdown file. sets: anomaly set -> longest side of its pictures at the network.
    mobilenet: the host of rows that ask for it.
    """

    recipe: Recipe
    folder: Path
    report: Path
    sets: Mapping[str, int]
    trainings: tuple[RplRow, ...]
    mobilenet: MobileNetConfig
    seeds: tuple[int, ...] = (42,)
    resamples: int = 1000
    pixel_step: int = 1


def load_rpl_table(path: Path) -> RplTableConfig:
    """
    Read a table; the recipe is relative to the file.

    Raises ConfigError naming the file and the unknown or missing key.
    """
    values = read_yaml(path)
    known = {item.name for item in fields(RplTableConfig)}
    wrong = sorted(set(values) - known)
    missing = sorted({'recipe', 'folder', 'sets', 'trainings'} - set(values))
    if wrong or missing:
        raise ConfigError(f'{path}: unknown {wrong}, missing {missing}; known are {sorted(known)}')
    folder = Path(values['folder'])
    rows = tuple(_row(entry, path) for entry in values['trainings'])
    names = [row.name for row in rows]
    strange = [other for row in rows for other in row.against if other not in names]
    if len(set(names)) != len(names) or not names or strange:
        raise ConfigError(f'{path}: trainings {names} need names of their own; unknown {strange}')
    host = values.get('mobilenet', {})
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in host.items()}
    return RplTableConfig(
        recipe=load_recipe(path.parent / values['recipe']),
        folder=folder,
        report=Path(values.get('report', folder / 'rpl_table.md')),
        sets=dict(values['sets']),
        trainings=rows,
        mobilenet=MobileNetConfig(**options),
        seeds=tuple(values.get('seeds', (42,))),
        resamples=int(values.get('resamples', 1000)),
        pixel_step=int(values.get('pixel_step', 1)),
    )


def _row(entry: Any, path: Path) -> RplRow:
    known = {item.name for item in fields(RplRow)}
    if not isinstance(entry, dict) or 'name' not in entry or set(entry) - known:
        raise ConfigError(f'{path}: training {entry!r}: known keys are {sorted(known)}')
    against = entry.get('against', [])
    others = (against,) if isinstance(against, str) else tuple(against)
    row = RplRow(**{**entry, 'against': others})
    if row.host not in HOSTS:
        raise ConfigError(f'{path}: host {row.host!r}: choose one of {", ".join(HOSTS)}')
    return row
