# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
All classical baselines of one closed-set network, each as a bundle, by one command.

    trainer baselines config/train/pixood_camvid.yaml [--scores NAME ...] [--out FOLDER]

They share the network (PixOOD's patch classifier; with --set baseline.source=segmenter UEM's
segmenter, which has no etalon distance). FOLDER/runs.yaml lists them for
`trainer evaluate --runs`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ood_perception.errors import ConfigError

from .config import load_recipe
from .experiments.table_bundles import BundleTable, TableRow, build_bundles
from .heads.baselines import DISTANCE, SCORES


def baseline_table(
    recipe: Path, folder: Path, scores: Sequence[str], changes: Sequence[str] = ()
) -> BundleTable:
    """Return the table with one row a score; ConfigError for an unknown one."""
    unknown = [score for score in scores if score not in SCORES]
    if unknown:
        raise ConfigError(f'scores {unknown}: choose among {", ".join(SCORES)}')
    if not scores:
        source = load_recipe(recipe, changes).baseline.source
        scores = [s for s in SCORES if s != DISTANCE or source == 'classifier']
    rows = tuple(
        TableRow(score.replace('_', '-'), (*changes, 'head.kind=baseline', f'head.score={score}'))
        for score in scores
    )
    return BundleTable(recipe, folder, rows)


def main(arguments: Sequence[str]) -> None:
    """Run `trainer baselines`."""
    parser = argparse.ArgumentParser(
        'trainer baselines',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('recipe', type=Path, help='YAML file, see config/train')
    parser.add_argument('--scores', nargs='+', default=[], help=f'of: {", ".join(SCORES)}')
    parser.add_argument('--data', help="the data set's folder, instead of the recipe's root")
    parser.add_argument('--out', type=Path, default=Path('out/baselines'), help='%(default)s')
    parser.add_argument('--cache', type=Path, help='weights and tokens (default: user cache)')
    parser.add_argument('--threads', type=int, default=0, help='0 = as many as cores')
    parser.add_argument('--quiet', action='store_true', help='no progress bars')
    parser.add_argument('--set', action='append', default=[], metavar='SECTION.KEY=VALUE')
    options = parser.parse_args(arguments)
    if options.threads:
        import torch

        torch.set_num_threads(options.threads)
    changes = [*options.set, *([f'data.root={options.data}'] if options.data else [])]
    table = baseline_table(options.recipe, options.out, options.scores, changes)
    print(f'runs: {build_bundles(table, (), not options.quiet, options.cache)}')
