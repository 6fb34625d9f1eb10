# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The command line of the trainer: from labelled pictures to a bundle, stage by stage."""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from ood_perception.errors import OodPerceptionError

STAGES = {
    'features': 'extract the tokens of all splits into the cache',
    'finetune': 'tune the backbone, where the recipe asks for it (finetuning.epochs)',
    'fit': 'fit classifier, etalons and densities',
    'calibrate': 'fit the held-out table of the served head',
    'export': 'write the ONNX stages, weights included',
    'pack': 'write the bundle',
    'train': 'all of it: pack and everything before',
}
OTHERS = {
    'build': 'build the engine of a bundle, here or ahead of time for named GPUs',
    'scenes': 'split pictures by scene: write scenes.csv',
    'quantize': 'give a bundle its int8 precision, with what it costs',
    'baselines': 'bundles of all classical scores of one network',
    'nflowjs-patches': 'draw patches of an NFlowJS training into one picture',
}
EVALUATION = {
    'evaluate': 'measure bundles on labelled sets: numbers, tables, a page; compare results',
    'operating-point': 'choose rate and minimum area from clean frames',
    'image-threshold': 'image score from which a part is defective, from flawless parts',
    'class-iou': 'agreement of the most likely class, and of the final map, with labels',
    'submission': 'write the files for benchmarks with hidden labels',
    'tracking': 'what m-of-n persistence saves and costs, on sequences',
    'promise': 'observed against promised false-alarm rates, per class',
}
EXPERIMENTS = {
    'density-choice': "size of the GMM baseline's mixture, each drive judged by the others",
    'selection': 'choose layers, K, f and resolution on held-out pictures with pasted objects',
    'ablation': 'the table of variants on the dev sets',
    'knn-table': 'cDNP on the dev sets: references, features, k; accuracy and time',
    'leaderboard': 'all heads and baselines on the dev sets, one table',
    'uem-table': 'forms, scores and outliers of UEM on the dev sets',
    'rpl-table': 'losses and hosts of RPL on the dev sets',
    'table-bundles': 'build the bundles of a table of variants, for evaluate --runs',
}
COMMANDS = OTHERS | EVALUATION | EXPERIMENTS
MODULES = {'quantize': 'quantization'}  # commands are verbs where their module is a noun


def parser() -> argparse.ArgumentParser:
    """Return the parser of the stages (the other commands have their own)."""
    result = argparse.ArgumentParser(
        'trainer',
        description=__doc__,
        epilog='other commands, each with its own --help: '
        + '; '.join(f'{name}: {text}' for name, text in COMMANDS.items()),
    )
    commands = result.add_subparsers(dest='stage', required=True, metavar='stage')
    for name, text in STAGES.items():
        command = commands.add_parser(name, help=text, description=f'{name}: {text}.')
        command.add_argument('recipe', type=Path, help='YAML file, see config/train')
        command.add_argument('--data', help="the data set's folder, instead of the recipe's root")
        command.add_argument('--out', type=Path, help='artefacts (default: out/train/<name>)')
        command.add_argument('--bundle', type=Path, help='the bundle (default: <out>/bundle)')
        command.add_argument('--cache', type=Path, help='weights and tokens (default: user cache)')
        command.add_argument('--threads', type=int, default=0, help='0 = as many as cores')
        command.add_argument('--quiet', action='store_true', help='no progress bars')
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
    import torch

    from .config import load_recipe
    from .workflow import Workflow

    if options.threads:
        torch.set_num_threads(options.threads)
    changes = list(options.set)
    if options.data:
        changes.append(f'data.root={options.data}')
    recipe = load_recipe(options.recipe, changes)
    folder = options.out or Path('out') / 'train' / recipe.name
    workflow = Workflow(
        recipe, folder, options.bundle, cache=options.cache, progress=not options.quiet
    )
    if options.stage == 'features':
        for split in (recipe.data.train, *recipe.data.calibration):
            workflow.data.features(split)
    elif options.stage in ('pack', 'train'):
        workflow.pack()
        print(f'bundle: {workflow.bundle_folder}')
    else:
        print(f'{options.stage}: {getattr(workflow, options.stage)().folder}')


def _module(command: str) -> str:
    """Return the module of a command, relative to this package."""
    name = MODULES.get(command, command.replace('-', '_'))
    folders = {'evaluation': EVALUATION, 'experiments': EXPERIMENTS}
    places = [f'.{folder}' for folder, names in folders.items() if command in names]
    return f'{"".join(places)}.{name}'


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status (2 for a user's mistake)."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    try:
        if arguments and arguments[0] in COMMANDS:
            module = importlib.import_module(_module(arguments[0]), __package__)
            return int(module.main(arguments[1:]) or 0)
        run_stage(parser().parse_args(arguments))
    except ModuleNotFoundError as error:
        print(
            f"trainer: the package {error.name} is missing: pip install 'ood_perception[train]'",
            file=sys.stderr,
        )
        return 2
    except OodPerceptionError as error:
        print(f'trainer: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('trainer: stopped; the same command goes on from here', file=sys.stderr)
        return 130
    return 0


if __name__ == '__main__':
    sys.exit(main())
