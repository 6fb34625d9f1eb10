# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Build the bundles of a table of variants, each a recipe with a few values changed.

    trainer table-bundles config/train/table_bundles.yaml [--only ROW ...]

Rows share the feature cache and one store: what two recipes agree on, such as a classifier, is
made once. What is there is found again: a build that was stopped goes on.
At the end FOLDER/runs.yaml lists the runs for `trainer evaluate --runs`.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ood_perception.bundle.manifest import Manifest
from ood_perception.bundle.store import default_bundle_path, load_bundle
from ood_perception.errors import ConfigError
from ood_perception.evaluation.results import write_text

from ..config import load_recipe
from ..workflow import Workflow

LOG = logging.getLogger(__name__)
ALL = 'all'
STORE = '_store'  # no row's folder begins so
_ROW_KEYS = ('name', 'set', 'in_distribution')


@dataclass(frozen=True)
class TableRow:
    """
    One row.

    name: in the table. changes: 'section.key=value' of the recipe, () = the shipped bundle.
    in_distribution: the normal classes, () = the bundle's own, ('all',) = all that it models.
    """

    name: str
    changes: tuple[str, ...] = ()
    in_distribution: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """The row's folder name."""
        return '-'.join(''.join(c if c.isalnum() else ' ' for c in self.name.lower()).split())


@dataclass(frozen=True)
class BundleTable:
    """The file: the recipe, where bundles go, the rows in the table's order."""

    recipe: Path
    folder: Path
    rows: tuple[TableRow, ...]


def load_bundle_table(path: Path) -> BundleTable:
    """Read the YAML; ConfigError names the file, the row and what is expected."""
    try:
        content = yaml.safe_load(path.read_text(encoding='utf-8'))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f'{path} cannot be read: {error}') from error
    if not isinstance(content, dict) or set(content) != {'recipe', 'folder', 'rows'}:
        raise ConfigError(f'{path}: expected the keys recipe, folder and rows')
    rows = tuple(_row(entry, f'{path}: row {n}') for n, entry in enumerate(content['rows'], 1))
    folders = [row.folder for row in rows]
    if len(set(folders)) != len(rows):
        raise ConfigError(f'{path}: two rows have the same name: {folders}')
    return BundleTable(path.parent / content['recipe'], Path(content['folder']), rows)


def _row(entry: Any, place: str) -> TableRow:
    if not isinstance(entry, dict) or 'name' not in entry or set(entry) - set(_ROW_KEYS):
        raise ConfigError(f'{place} is {entry!r}: expected {", ".join(_ROW_KEYS)}')
    chosen = entry.get('in_distribution') or ()
    if isinstance(chosen, str):
        chosen = (chosen,)
    return TableRow(str(entry['name']), tuple(entry.get('set') or ()), tuple(chosen))


def build_bundles(
    table: BundleTable,
    only: Sequence[str] = (),
    progress: bool = True,
    cache: Path | None = None,
) -> Path:
    """
    Build what is missing of the chosen rows (default: all); return the list of runs, a YAML file.

    Raises ConfigError for a name in `only` that no row has, and for a recipe that cannot be.
    """
    unknown = sorted(set(only) - {row.name for row in table.rows})
    if unknown:
        raise ConfigError(f'no rows {unknown}; rows are {[row.name for row in table.rows]}')
    chosen = [row for row in table.rows if not only or row.name in only]
    # All recipes are read before the first is built: a mistake shows at once.
    recipes = {row.name: load_recipe(table.recipe, row.changes) for row in chosen}
    runs = []
    for number, row in enumerate(chosen, 1):
        LOG.info('row %d of %d: %s', number, len(chosen), row.name)
        if row.changes:
            folder, store = table.folder / row.folder, table.folder / STORE
            recipe = recipes[row.name]
            workflow = Workflow(recipe, folder, store=store, cache=cache, progress=progress)
            manifest = workflow.pack()
        else:
            manifest = load_bundle(default_bundle_path()).manifest
        runs.append(_run(row, manifest))
    path = table.folder / 'runs.yaml'
    write_text(path, yaml.safe_dump({'runs': runs}, sort_keys=False, allow_unicode=True))
    return path


def _run(row: TableRow, manifest: Manifest) -> dict[str, Any]:
    """Return a row as `trainer evaluate --runs` reads it."""
    run: dict[str, Any] = {'name': row.name}
    if row.changes:
        run['bundle'] = f'{row.folder}/bundle'
    if row.in_distribution == (ALL,):
        run['in_distribution'] = [spec.name for spec in manifest.classes if spec.modelled]
    elif row.in_distribution:
        run['in_distribution'] = list(row.in_distribution)
    return run


def main(arguments: Sequence[str]) -> None:
    """Run `trainer table-bundles`."""
    parser = argparse.ArgumentParser(
        'trainer table-bundles',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('table', type=Path, help='YAML file, see config/train')
    parser.add_argument('--only', nargs='+', default=[], metavar='ROW', help='rows by name')
    parser.add_argument('--threads', type=int, default=0, help='0 = as many as cores')
    parser.add_argument('--quiet', action='store_true', help='no progress bars')
    options = parser.parse_args(arguments)
    if options.threads:
        import torch

        torch.set_num_threads(options.threads)
    runs = build_bundles(load_bundle_table(options.table), options.only, not options.quiet)
    print(f'runs: {runs}')
