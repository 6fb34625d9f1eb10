# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Where a study's bundles come from: trained from its rows' recipes, or handed in."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from ood_perception.bundle.store import default_bundle_path, load_bundle
from ood_perception.errors import ConfigError, OodPerceptionError
from ood_perception.evaluation.results import write_text
from ood_perception.files import make_folder
from ood_perception.json_files import write_json
from ood_perception.yaml_files import dump_yaml

from ..recipe import load_recipe
from ..workflow import Workflow
from .config import LeaderboardConfig, LeaderboardRow

LOG = logging.getLogger(__name__)
MANIFEST = 'manifest.json'
TAKEN = 'taken.json'
RUNS = 'runs.yaml'
STORE = '_store'  # what the trainings of a study share; no row's folder begins so


class LeaderboardBundles:
    """
    The bundles of a study, each in a folder of its own; what two trainings agree on is made once.

    only, seeds: names of rows and seeds that are to be built, () = all. cache: of weights and
    tokens. Raises ConfigError for a name that no row has.
    """

    def __init__(
        self,
        config: LeaderboardConfig,
        only: Sequence[str] = (),
        seeds: Sequence[int] = (),
        cache: Path | None = None,
    ) -> None:
        names = [row.name for row in config.rows]
        wrong = [name for name in only if name not in names]
        if wrong:
            raise ConfigError(f'--only {wrong}: rows are {names}')
        self.config, self.cache = config, cache
        self.only, self.seeds = tuple(only), tuple(seeds)

    def asked(self, row: LeaderboardRow, seed: int) -> bool:
        """Return whether a training is to be made."""
        return (not self.only or row.name in self.only) and (
            not self.seeds or seed in self.seeds or not row.recipe
        )

    def place(self, row: LeaderboardRow, seed: int) -> Path:
        """Return where a bundle is, or will be."""
        if not row.recipe:
            return default_bundle_path()
        return self.config.folder / 'bundles' / row.folder(seed) / 'bundle'

    def runs(self) -> list[tuple[str, LeaderboardRow, int]]:
        """Return name, row and seed of every training of the study, in table order."""
        return [(name, row, seed) for row in self.config.rows for name, seed in row.runs()]

    def there(self) -> Iterator[tuple[str, Path]]:
        """Yield the run's name and the place of every bundle that there is, in table order."""
        for name, row, seed in self.runs():
            if (self.place(row, seed) / MANIFEST).is_file():
                yield name, self.place(row, seed)

    def taken(self) -> list[str]:
        """Return the runs whose bundle was handed in."""
        return [name for name, place in self.there() if (place.parent / TAKEN).is_file()]

    def take(self, entry: str) -> None:
        """
        Take over a finished bundle: '<row>=<folder>' or '<row>, seed <n>=<folder>'.

        A row without a seed means its first one. Raises ConfigError where no row has that name,
        and what load_bundle raises for a folder that is no bundle.
        """
        wanted, _, folder = entry.partition('=')
        known = {name: (row, seed) for name, row, seed in self.runs()}
        firsts = {row.name: (row, row.runs()[0][1]) for row in self.config.rows}
        row, seed = known.get(wanted) or firsts.get(wanted) or (None, 0)
        if row is None or not folder or not row.recipe:
            raise ConfigError(f'--use {entry!r}: give ROW=FOLDER with a row of {[*firsts]}')
        bundle, place = load_bundle(folder), self.place(row, seed)
        make_folder(place, lambda new: shutil.copytree(folder, new, dirs_exist_ok=True) and None)
        write_json(place.parent / TAKEN, {'bundle': bundle.sha256, 'name': bundle.manifest.name})

    def build(self) -> dict[str, str]:
        """
        Build the bundles that are asked for and were not handed in; list all in runs.yaml.

        Returns run -> reason of those that cannot be built: a head that is not there yet does not
        keep the others from the table.
        """
        reasons, runs = {}, self.runs()
        for number, (name, row, seed) in enumerate(runs, start=1):
            if not row.recipe or not self.asked(row, seed):
                continue
            if (self.place(row, seed).parent / TAKEN).is_file():
                LOG.info('%s was handed in', name)
                continue
            # Its place among all, also where --only asks for one: "1 of 1" would hide the rest.
            LOG.info('training %d of %d: %s', number, len(runs), name)
            try:
                self._build(row, seed)
            except OodPerceptionError as error:
                LOG.error('%s cannot be built: %s', name, error)
                reasons[name] = str(error).splitlines()[0]
        self._list()
        return reasons

    def _build(self, row: LeaderboardRow, seed: int) -> None:
        recipe = load_recipe(Path(row.recipe), row.changes(seed))
        bundles = self.config.folder / 'bundles'
        folder, store = bundles / row.folder(seed), bundles / STORE
        Workflow(recipe, folder, store=store, cache=self.cache).pack()

    def _list(self) -> None:
        """Write the runs that there are for `trainer evaluate --runs`, relative to the folder."""
        folder, shipped = self.config.folder, default_bundle_path()
        runs = [
            {'name': name, 'bundle': '' if place == shipped else str(place.relative_to(folder))}
            for name, place in self.there()
        ]
        write_text(folder / RUNS, dump_yaml({'runs': runs}))
