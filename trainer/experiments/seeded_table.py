# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
What the tables of trained heads share: trainings with seeds, measured on sets of anomalies.

Every training and every result is made once and kept: a run that was stopped goes on, and a run of
a part is a part of the whole. uem_table.py and rpl_table.py say what a training is.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch

from ood_perception.errors import ConfigError
from ood_perception.yaml_files import read_mapping

from ..artefacts import key_of
from ..config import Recipe, load_recipe
from ..data import content_sha256
from ..heads.uem_stages import UemStages
from .results import ResultFolder
from .seeded_sets import DevSets

NEEDED = {'recipe', 'folder', 'sets', 'trainings'}


@dataclass(frozen=True)
class SeededTableConfig:
    """
    A table.

    recipe: data, backbone, view and schedules of every training, read with `changes` such as
        'uem.steps=250'. folder: everything that is made. report: the Markdown file.
    sets: anomaly set -> longest side of its pictures at the network. trainings: the rows, each
        with a name of its own. seeds: of the trainings.
    pixel_step: every s-th row and column of the labels is measured.
    """

    recipe: Recipe
    folder: Path
    report: Path
    sets: Mapping[str, int]
    trainings: tuple[Any, ...]
    seeds: tuple[int, ...] = (42,)
    resamples: int = 1000
    pixel_step: int = 1


Config = TypeVar('Config', bound=SeededTableConfig)


def read_seeded_table(path: Path, kind: type[SeededTableConfig], report: str) -> dict[str, Any]:
    """
    Return the YAML's values by the fields of `kind`, the recipe read (relative to the file).

    report: name of the Markdown file in the table's folder where none is given.

    Raises ConfigError naming the file and the unknown or missing key.
    """
    values = read_mapping(path, 'table')
    known = {item.name for item in fields(kind)} | {'changes'}
    wrong, missing = sorted(set(values) - known), sorted(NEEDED - set(values))
    if wrong or missing:
        raise ConfigError(f'{path}: unknown {wrong}, missing {missing}; known are {sorted(known)}')
    values['recipe'] = load_recipe(path.parent / values['recipe'], values.pop('changes', []))
    values['folder'] = Path(values['folder'])
    values['report'] = Path(values.get('report', values['folder'] / report))
    values['seeds'] = tuple(values.get('seeds', (42,)))
    return values


def read_rows(path: Path, entries: Sequence[Any], kind: type[Any]) -> tuple[Any, ...]:
    """
    Return the trainings as dataclasses `kind`; lists become tuples.

    Raises ConfigError for an unknown key, a missing name and two rows of one name.
    """
    known, rows = {item.name for item in fields(kind)}, []
    for entry in entries:
        if not isinstance(entry, dict) or 'name' not in entry or set(entry) - known:
            raise ConfigError(f'{path}: training {entry!r}: known keys are {sorted(known)}')
        rows.append(kind(**tupled(entry)))
    names = [row.name for row in rows]
    if len(set(names)) != len(names) or not names:
        raise ConfigError(f'{path}: trainings need names of their own, has {names}')
    return tuple(rows)


def tupled(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return YAML's values with tuples for lists, as frozen dataclasses hold them."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}


@dataclass(frozen=True)
class ScoreRow:
    """
    One result: a score of a trained module or segmenter, or a bundle's ('surprisal').

    source: hash of what the score comes from. seed: of the training. view: 'whole' or 'sliding',
    with its window and stride.
    """

    name: str
    score: str
    source: str
    seed: int = 0
    view: str = 'whole'

    def key(self) -> str:
        """Return a hash of everything but the name."""
        values = {k: v for k, v in asdict(self).items() if k != 'name'}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Part:
    """
    What of a table to run; () = all.

    limit: first pictures of each set, 0 = all. closed_set: labelled split for mean IoU, '' = none.
    sliding: windows at the pictures' own resolution (UEM's table).
    """

    only: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    sets: tuple[str, ...] = ()
    limit: int = 0
    closed_set: str = ''
    sliding: bool = False


class SeededTable:
    """
    A table at work; subclasses say what a training is.

    part: what to run. more: names beside the trainings' that --only knows. cache: of weights and
    tokens. Raises ConfigError for a name, seed or set that the table does not have.
    """

    def __init__(
        self, config: Any, part: Part, cache: Path | None = None, more: Sequence[str] = ()
    ) -> None:
        self.config, self.part, self.cache = config, part, cache
        for option, asked, known in (
            ('--only', part.only, [*(row.name for row in config.trainings), *more]),
            ('--seeds', part.seeds, list(config.seeds)),
            ('--sets', part.sets, list(config.sets)),
        ):
            wrong = [value for value in asked if value not in known]
            if wrong:
                raise ConfigError(f'{option} {wrong} is not in the table, which has {known}')
        self.seeds = tuple(s for s in config.seeds if not part.seeds or s in part.seeds)

    def asked(self, name: str) -> bool:
        """Return whether a row is to be run."""
        return not self.part.only or name in self.part.only

    @cached_property
    def reference(self) -> UemStages:
        """The training whose segmenter gives the predicted ground of all rows, trained."""
        raise NotImplementedError

    @cached_property
    def data(self) -> DevSets:
        """The sets that are asked for, with what all rows share."""
        every = self.config.sets
        chosen = {n: v for n, v in every.items() if n in (self.part.sets or every)}
        return DevSets(replace(self.config, sets=chosen), self.part.limit, self.reference)

    @cached_property
    def results(self) -> ResultFolder:
        """Where results are kept, by the data that they depend on."""
        parts = [[s.name, s.longest, content_sha256(s.pictures)] for s in self.data.sets]
        mark = [key_of(self.reference.segmenter_folder), self.config.pixel_step]
        key = hashlib.sha256(json.dumps([parts, *mark]).encode()).hexdigest()[:16]
        return ResultFolder(self.config.folder / 'results' / key, key, self.config.resamples)


def slug(name: str) -> str:
    """Return a row's name as part of a folder's."""
    return ''.join(c if c.isalnum() else '-' for c in name.lower())


def table_parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """Return the parser of a command that runs such a table."""
    parser = argparse.ArgumentParser(
        f'trainer {name}',
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    file = f'config/train/{name.replace("-", "_")}.yaml'
    parser.add_argument('table', type=Path, help=f'YAML file, see {file}')
    parser.add_argument('--only', nargs='+', default=[], metavar='NAME', help='rows by name')
    parser.add_argument('--seeds', nargs='+', type=int, default=[])
    parser.add_argument('--sets', nargs='+', default=[])
    parser.add_argument('--limit', type=int, default=0, help='first N pictures of each set')
    parser.add_argument('--closed-set', default='', metavar='SPLIT', help='mean IoU of it, too')
    parser.add_argument('--folder', type=Path, help="instead of the table's")
    parser.add_argument('--report', type=Path, help="instead of the table's")
    parser.add_argument('--cache', type=Path, help='weights and tokens (default: user cache)')
    parser.add_argument('--threads', type=int, default=0, help='0 = as many as cores')
    return parser


def table_of_options(
    options: argparse.Namespace, load: Callable[[Path], Config]
) -> tuple[Config, Part]:
    """Set torch's threads; return the table that the options name and the part of it to run."""
    if options.threads:
        torch.set_num_threads(options.threads)
    config = load(options.table)
    for name in ('folder', 'report'):
        if getattr(options, name):
            config = replace(config, **{name: getattr(options, name)})
    names = {item.name for item in fields(Part)}
    return config, Part(**tupled({k: v for k, v in vars(options).items() if k in names}))
