# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A study as its YAML declares it: one row a training recipe with changes, and seeds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from ood_perception.errors import ConfigError
from ood_perception.typed_values import build
from ood_perception.yaml_files import read_mapping


@dataclass(frozen=True)
class LeaderboardRow:
    """
    One training, for every seed.

    name: in the table. recipe: YAML file, '' = the shipped bundle. set: 'section.key=value'
    changes. seeds: of its trainings, () = the study's; the table shows their mean. against: rows
    that it is compared with, beside the study's reference. view: the further view whose scores
    alone count, '' = all views.
    """

    name: str
    recipe: str = ''
    set: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    against: tuple[str, ...] = ()
    view: str = ''

    def changes(self, seed: int) -> tuple[str, ...]:
        """Return the changes of the recipe for one seed."""
        return (*self.set, f'seed={seed}')

    def folder(self, seed: int) -> str:
        """Return the name of the folder of one seed's training."""
        words = ''.join(c if c.isalnum() else ' ' for c in self.name.lower()).split()
        return '-'.join([*words, 'seed', str(seed)])

    def runs(self) -> list[tuple[str, int]]:
        """Return (name of the run, seed) of every training; the shipped bundle has one."""
        seeds = self.seeds if self.recipe else self.seeds[:1]
        return [(f'{self.name}, seed {seed}', seed) for seed in seeds]


@dataclass(frozen=True)
class LeaderboardConfig:
    """
    A study.

    folder: bundles and records. report: the Markdown file, title: its own. sets: as
    `trainer evaluate --data` knows them, of anomalies or of known classes; 'pasted' alone is made
    of the reference's training images. set: changes of every row's recipe, before its own.
    reference: name of the row that others are compared with, '' = the first. objects: AP by size
    of object and by its row, too. images: of each set at most, evenly spaced; 0 = all.
    precision: of the engine that scores.
    """

    folder: Path
    sets: tuple[str, ...]
    rows: tuple[LeaderboardRow, ...]
    reference: str = ''
    report: Path = Path()
    title: str = 'All heads and baselines'
    seeds: tuple[int, ...] = (42,)
    set: tuple[str, ...] = ()
    objects: bool = False
    images: int = 0
    precision: str = 'f32'

    def row(self, name: str) -> LeaderboardRow:
        """Return a row by its name."""
        return next(row for row in self.rows if row.name == name)


def load_leaderboard(path: Path) -> LeaderboardConfig:
    """
    Read a study; recipes are relative to the file.

    Raises ConfigError naming the file and the unknown, missing or wrong key or row.
    """
    config: LeaderboardConfig = build(LeaderboardConfig, read_mapping(path, 'study'), str(path))
    _check(config, path)
    return replace(
        config,
        rows=tuple(_completed(row, config, path.parent) for row in config.rows),
        reference=config.reference or config.rows[0].name,
        report=config.folder / 'leaderboard.md' if config.report == Path() else config.report,
    )


def _check(config: LeaderboardConfig, path: Path) -> None:
    names = [row.name for row in config.rows]
    folders = {row.folder(0) for row in config.rows}
    others = {name for row in config.rows for name in row.against}
    wrong = sorted({*others, config.reference or names[0]} - {*names}) if names else []
    if not names or len(folders) < len(names):
        raise ConfigError(f'{path}: rows need names of their own, has {names}')
    if wrong:
        raise ConfigError(f'{path}: reference and against name {wrong}: no row; rows are {names}')


def _completed(row: LeaderboardRow, config: LeaderboardConfig, folder: Path) -> LeaderboardRow:
    """Return the row with what the study says for all of them."""
    return replace(
        row,
        recipe=str(folder / row.recipe) if row.recipe else '',
        set=(*config.set, *row.set),
        seeds=row.seeds or config.seeds,
    )
