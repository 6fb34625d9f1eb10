# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The leaderboard as its YAML declares it: one row a head, a recipe with changes and seeds."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ood_perception.errors import ConfigError
from ood_perception.yaml_files import read_mapping

from .table_bundles import TableRow


@dataclass(frozen=True)
class LeaderboardRow:
    """
    One head.

    name: in the table. recipe: YAML file, '' = the shipped bundle. set: 'section.key=value'
    changes. seeds: of its trainings; the table shows their mean.
    """

    name: str
    recipe: Path | None
    set: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (42,)

    def bundle_row(self, seed: int) -> TableRow:
        """Return the row of table_bundles that builds one seed."""
        return TableRow(f'{self.name} seed {seed}', (*self.set, f'seed={seed}'))

    def runs(self) -> list[tuple[str, int]]:
        """Return (name of the run, seed) of every training; the shipped bundle has one."""
        seeds = self.seeds if self.recipe else self.seeds[:1]
        return [(f'{self.name}, seed {seed}', seed) for seed in seeds]


@dataclass(frozen=True)
class LeaderboardConfig:
    """
    A leaderboard.

    folder: bundles and records. report: the Markdown file, title: its own. sets: as
    `trainer evaluate --data` knows them. reference: name of the row that others are compared with.
    source: the YAML file.
    """

    folder: Path
    report: Path
    sets: tuple[str, ...]
    rows: tuple[LeaderboardRow, ...]
    reference: str
    source: Path = Path('leaderboard.yaml')
    title: str = 'All heads and baselines'


def load_leaderboard(path: Path) -> LeaderboardConfig:
    """
    Read a leaderboard; recipes are relative to the file.

    Raises ConfigError naming the file and the unknown or missing key.
    """
    values = read_mapping(path, 'table')
    known = {item.name for item in fields(LeaderboardConfig)} - {'source'} | {'seeds'}
    wrong, missing = sorted(set(values) - known), sorted({'folder', 'sets', 'rows'} - set(values))
    if wrong or missing:
        raise ConfigError(f'{path}: unknown {wrong}, missing {missing}; known are {sorted(known)}')
    seeds = tuple(values.get('seeds', (42,)))
    rows = tuple(_row(entry, seeds, path) for entry in values['rows'])
    names = [row.name for row in rows]
    reference = values.get('reference', names[0] if names else '')
    if not names or len(set(names)) != len(names) or reference not in names:
        raise ConfigError(f'{path}: rows need names of their own and a reference, has {names}')
    folder = Path(values['folder'])
    report = Path(values.get('report', folder / 'leaderboard.md'))
    title = str(values.get('title', LeaderboardConfig.title))
    return LeaderboardConfig(folder, report, tuple(values['sets']), rows, reference, path, title)


def _row(entry: Any, seeds: tuple[int, ...], path: Path) -> LeaderboardRow:
    known = {item.name for item in fields(LeaderboardRow)}
    if not isinstance(entry, dict) or 'name' not in entry or set(entry) - known:
        raise ConfigError(f'{path}: row {entry!r}: known keys are {sorted(known)}')
    recipe = entry.get('recipe')
    return LeaderboardRow(
        str(entry['name']),
        path.parent / recipe if recipe else None,
        tuple(entry.get('set', ())),
        tuple(entry.get('seeds', seeds)),
    )
