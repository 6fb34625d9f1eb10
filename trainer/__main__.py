# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The command line of the trainer: from labelled images to a bundle, stage by stage."""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from ood_perception.errors import DependencyError, exit_status
from ood_perception.requirements import install_command

from .evaluation.options import add_training_arguments, apply_training_arguments

STAGES = {
    'features': 'extract the tokens of all splits into the cache',
    'finetune': 'tune the backbone, where the recipe asks for it (finetuning.epochs)',
    'fit': 'fit classifier, etalons and densities',
    'calibrate': 'fit the calibration curve of the served head',
    'export': 'write the ONNX stages, weights included',
    'pack': 'write the bundle',
    'train': 'all of it: pack and everything before',
}
# command: its function, in this package or with a whole name elsewhere, and what it does
COMMANDS = {
    'build': (
        'ood_perception.cli.bundle:compile_bundle',
        'build the engine of a bundle, here or ahead of time for named GPUs',
    ),
    'adapt': (
        'ood_perception.cli.adapt:adapt_bundle',
        "adapt a bundle to a vehicle's own camera from one clean drive (the program adapt_bundle)",
    ),
    'adapt-study': (
        '.evaluation.adaptation:main',
        'adapt a bundle to several cameras: what target rates give before and after',
    ),
    'pick': (
        'ood_perception.cli.pick:pick',
        'which shipped bundle meets a rate on this machine (the command ood pick)',
    ),
    'scenes': ('.data.scenes:main', 'split images by scene: write scenes.csv'),
    'quantize': (
        '.export.int8.quantize:main',
        'give a bundle its int8 precision, with what it costs',
    ),
    'sign': ('.export.sign:main', 'sign a bundle, by a key of minisign'),
    'evaluate': (
        '.evaluation.evaluate:main',
        'measure bundles on labelled sets: numbers, tables, a page; compare results',
    ),
    'pareto': (
        '.evaluation.pareto:main',
        'page of rate against average precision, from evaluate and pick',
    ),
    'operating-point': (
        '.evaluation.operating_point:main',
        'choose rate and minimum area from clean frames',
    ),
    'image-threshold': (
        '.evaluation.image_threshold:main',
        'image score from which a part is defective, from flawless parts',
    ),
    'submission': (
        '.evaluation.submission:main',
        'write the files for benchmarks with hidden labels',
    ),
    'cost': ('.cost:main', 'what a training will cost: time, memory, disk, network'),
    'study': (
        '.study.study:main',
        'trainings of recipes with changes on sets of '
        'anomalies, one table: every YAML file of rows in config/train',
    ),
}
ALIASES = {
    'leaderboard': 'study',
    'baselines': 'study',
    'table-bundles': 'study',
    'class-iou': 'evaluate',
}


def program() -> str:
    """Return what this program was called as: `ood` or by its own name."""
    return 'ood' if sys.argv[0].startswith('ood ') else 'ood_trainer'


def parser(prog: str) -> argparse.ArgumentParser:
    """Return the parser of the stages (the other commands have their own)."""
    result = argparse.ArgumentParser(
        prog,
        description=__doc__,
        epilog='other commands, each with its own --help: '
        + '; '.join(f'{name}: {text}' for name, (_, text) in COMMANDS.items()),
    )
    commands = result.add_subparsers(dest='stage', required=True, metavar='stage')
    for name, text in STAGES.items():
        command = commands.add_parser(name, help=text, description=f'{name}: {text}.')
        command.add_argument('recipe', type=Path, help='YAML file, see config/train')
        command.add_argument('--data', help="the data set's folder, instead of the recipe's root")
        command.add_argument('--out', type=Path, help='artifacts (default: out/train/<name>)')
        command.add_argument(
            '--feature-store',
            metavar='URL',
            help='tokens are also kept there (s3://bucket/folder)',
        )
        command.add_argument('--bundle', type=Path, help='the bundle (default: <out>/bundle)')
        add_training_arguments(command)
        command.add_argument(
            '--set',
            action='append',
            default=[],
            metavar='SECTION.KEY=VALUE',
            help='change the recipe, such as condensation.etalons=200 (may be repeated)',
        )
    return result


def run_stage(options: argparse.Namespace) -> None:
    """Run one stage and the stages before it."""
    from ood_perception.bags.remote import recording_path
    from ood_perception.files import check_writable

    from .distributed import processes, rank
    from .recipe import load_recipe
    from .workflow import Workflow

    apply_training_arguments(options)
    changes = list(options.set)
    if options.data:
        changes.append(f'data.root={options.data}')
    recipe = load_recipe(options.recipe, changes)
    folder = options.out or Path('out') / 'train' / recipe.name
    check_writable(folder)
    remote = recording_path(options.feature_store) if options.feature_store else None
    workflow = Workflow(recipe, folder, options.bundle, cache=options.cache, remote=remote)
    with processes():
        if options.stage == 'features':
            for split in (recipe.data.train, *recipe.data.calibration):
                workflow.data.features(split)
        elif options.stage in ('pack', 'train'):
            workflow.calibrate()
            if rank() == 0:  # the first of several processes packs
                workflow.pack()
                print(f'bundle: {workflow.bundle_folder}')
        else:
            print(f'{options.stage}: {getattr(workflow, options.stage)().folder}')


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status (2 for a user's mistake)."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    prog = program()
    return exit_status(prog, lambda: _run(prog, arguments), mistake=2)


def _run(prog: str, arguments: Sequence[str]) -> int:
    try:
        name = ALIASES.get(arguments[0], arguments[0]) if arguments else ''
        if name in COMMANDS:
            module, _, function = COMMANDS[name][0].partition(':')
            sys.argv[0] = f'{prog} {arguments[0]}'  # what argparse calls the command
            command = getattr(importlib.import_module(module, __package__), function)
            return command(arguments[1:]) or 0
        run_stage(parser(prog).parse_args(arguments))
    except ModuleNotFoundError as error:
        raise DependencyError(
            f'the package {error.name} is missing: {install_command("train")}'
        ) from error
    except KeyboardInterrupt:
        print(f'{prog}: stopped; the same command goes on from here', file=sys.stderr)
        return 130
    return 0


if __name__ == '__main__':
    sys.exit(main())
