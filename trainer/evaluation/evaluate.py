# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Measure packed bundles with the node's own pipeline, and write a report.

    trainer evaluate [BUNDLE ...] --data SET ... --out FOLDER      measure
    trainer evaluate --runs FILE --data SET ... --out FOLDER       the runs that a YAML file lists
    trainer evaluate --compare FOLDER FOLDER --out FOLDER          two earlier results

FOLDER/index.html is for people; results.json, results.csv and results.md hold the same numbers.
Sets of anomalies give AP, FPR95, AUROC and best F1 at label size, in the whole image and inside
the predicted ground, and open-set mIoU where they label the bundle's classes; sets with known
classes give flagged against the target rate, IoU and right pixels, with --reject of the final map,
too; products (mvtec) image AUROC, pixel AUROC and AUPRO; seas (lars, maritime) Q, the accuracy of
the water edge, Pr, Re, F1 and mIoU. Several bundles are compared with the first one. A run that
was stopped goes on where it was.

Exit status: 0 all done, 2 a mistake or a broken image (nothing is reported), 3 done, but
images were skipped (--on-error skip): they are named in the report.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ood_perception.errors import ConfigError
from ood_perception.evaluation.run import ON_ERROR, RunOptions
from ood_perception.files import check_writable
from ood_perception.fleet.pool import add_cluster, cluster_of
from ood_perception.pipeline import Settings
from ood_perception.postprocess.roi import RoiSettings

from ..datasets import list_sets
from .options import (
    add_bundle_arguments,
    add_root_argument,
    command_parser,
    engine_options,
    sea_classes,
    sets_root,
)
from .report import compare_folders, write_results
from .runs import Evaluation, RunSpec, listed_runs, named_bundle
from .sets import VARIANTS, Extras

SOME_SKIPPED = 3


def parser() -> argparse.ArgumentParser:
    """Return the parser of `trainer evaluate`."""
    result = command_parser(__doc__, epilog='sets:\n' + list_sets())
    what = result.add_argument_group('what')
    what.add_argument('bundle', nargs='*', help='[NAME=]folder or .zip; default: the shipped one')
    what.add_argument(
        '--runs', type=Path, help='YAML: name, bundle, in_distribution, views of runs'
    )
    what.add_argument('--data', nargs='+', default=[], metavar='SET', help='sets, see below')
    what.add_argument('--compare', nargs=2, type=Path, metavar='FOLDER', help='earlier results')
    add_root_argument(what)
    what.add_argument('--limit', type=int, default=0, help='first N images of each set')
    what.add_argument(
        '--out', type=Path, default=Path('out/evaluate'), help='results; %(default)s'
    )
    _how_options(result.add_argument_group('how'))
    return result


def _how_options(group: argparse._ArgumentGroup) -> None:
    add_bundle_arguments(group, 'of the served mask')
    add = group.add_argument
    add('--share', type=Path, metavar='FOLDER', help='runs of one backbone keep its outputs here')
    add('--batch', type=int, default=1, help='images per run of the engine')
    add(
        '--roi',
        choices=('ground', 'labels', 'none'),
        help='region of interest; default: ground on roads, none for products and seas',
    )
    add(
        '--known-product',
        action='store_true',
        help='score each product by its own class of the bundle; default: all classes that count '
        'as normal',
    )
    add(
        '--reject',
        default='',
        metavar='CLASS',
        help='of sets with known classes: also judge the '
        'final map, in which flagged pixels become this class',
    )
    add(
        '--variant',
        nargs='+',
        default=[],
        choices=VARIANTS,
        help="also measure sets of anomalies as the SegmentMeIfYouCan leaderboard's own code does",
    )
    add('--on-error', default='fail', choices=ON_ERROR, help='a broken image')
    add('--worst', type=int, default=6, help='frames to show per set')
    add('--seed', type=int, default=0, help='of the bootstrap')
    add('--quiet', action='store_true', help='no progress bars')
    add_cluster(group)


def main(arguments: Sequence[str]) -> int:
    """Run `trainer evaluate`; return the exit status."""
    options = parser().parse_args(arguments)
    check_writable(options.out)
    if options.compare:
        page = compare_folders(*options.compare, options.out, options.seed)
        print(f'report: {page}')
        return 0
    if not options.data:
        raise ConfigError(f'--data is missing; known sets:\n{list_sets()}')
    cluster = cluster_of(options, options.engine, options.threads)
    if cluster:
        options.threads = cluster.threads
    extras = Extras(
        limit=options.limit,
        variants=tuple(options.variant),
        seed=options.seed,
        sea=sea_classes(options),
        roi_given=options.roi is not None,
        known_product=options.known_product,
        reject=options.reject,
    )
    evaluation = Evaluation(
        sets_root(options).absolute(),
        options.out,
        engine_options(options),
        RunOptions(options.batch, options.on_error, not options.quiet),
        extras=extras,
        weights=options.weights,
        shared=options.share,
        cluster=cluster,
    )
    results = evaluation.results(_specs(options), options.data)
    text, page = write_results(results, options.out, options.worst)
    print(f'{text}\nreport: {page}')
    return SOME_SKIPPED if results.skipped else 0


def _specs(options: argparse.Namespace) -> list[RunSpec]:
    """Return the runs that the options ask for, each with a name of its own."""
    settings = Settings(
        options.false_alarm_rate,
        tuple(options.in_distribution),
        RoiSettings(options.roi or RoiSettings.mode),
        views=options.views,
    )
    specs = listed_runs(options.runs, settings) if options.runs else []
    places = options.bundle or ([] if specs else [''])
    specs += [named_bundle(place, settings) for place in places]
    names = [spec.name for spec in specs]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ConfigError(f'runs {repeated} appear twice: name them, as in NAME=FOLDER')
    return specs
