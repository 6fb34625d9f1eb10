# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
The program ood: every program of the package as a subcommand, each with its own --help.

Nothing but the chosen command is imported: help and completion are quick.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module, resources
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from ood_perception import __version__
from ood_perception.texts import tell

MISTAKE, STOPPED = 2, 130
SHELLS = ('bash', 'zsh')


class Command(NamedTuple):
    """A subcommand: the function 'module:name' that takes its words, its text, its older name."""

    function: str
    text: str
    program: str = ''


_ROS, _CLI = 'ood_perception.ros', 'ood_perception.cli'
TRAINER = ':trainer'  # a word of the trainer's own command line, wherever that is installed
COMMANDS = {
    'doctor': Command(f'{_CLI}.doctor:main', 'what this machine has and lacks, what to install'),
    'demo': Command(f'{_ROS}.tools.demo:main', 'frames through the real node, a page out'),
    'node': Command(f'{_ROS}.node:main', 'the node; --ros-args -p ...', 'road_anomaly_node'),
    'inspect': Command(
        f'{_CLI}.bundle:inspect_bundle', 'what a bundle is, after a check', 'inspect_bundle'
    ),
    'compile': Command(
        f'{_CLI}.bundle:compile_bundle', 'complete, compile and check a bundle', 'compile_bundle'
    ),
    'bench': Command(
        f'{_CLI}.bundle:bench_bundle', 'latency of bundles on this machine', 'bench_bundle'
    ),
    'pick': Command(f'{_CLI}.pick:pick', 'which bundle meets a rate on this machine'),
    'bench-node': Command(f'{_ROS}.tools.bench_node:main', "the node's own share, over DDS"),
    'evaluate-bag': Command(
        f'{_CLI}.evaluate_bag:evaluate_bag', 'a recording, losslessly, without ROS', 'evaluate_bag'
    ),
    'adapt': Command(
        f'{_CLI}.adapt:adapt_bundle',
        'a bundle for your own camera, from a clean drive',
        'adapt_bundle',
    ),
    'play-bag': Command(
        f'{_ROS}.tools.bag_player:main', 'publish the frames of a recording', 'bag_player'
    ),
    'compare-live': Command(
        f'{_ROS}.tools.live_comparison:main',
        "the node's masks against evaluate-bag's",
        'live_comparison',
    ),
    'train': Command(TRAINER, 'a recipe to a bundle'),
    'features': Command(TRAINER, 'one stage of train: tokens'),
    'finetune': Command(TRAINER, 'one stage of train: the backbone'),
    'fit': Command(TRAINER, 'one stage of train: the head'),
    'calibrate': Command(TRAINER, 'one stage of train: the calibration curve'),
    'export': Command(TRAINER, 'one stage of train: ONNX'),
    'pack': Command(TRAINER, 'one stage of train: the bundle'),
    'scenes': Command(TRAINER, 'split images by sequence'),
    'sign': Command(TRAINER, 'sign a bundle, by a key of minisign'),
    'quantize': Command(TRAINER, 'give a bundle its int8 precision'),
    'evaluate': Command(TRAINER, 'measure bundles on labelled sets'),
    'operating-point': Command(TRAINER, 'choose rate and area from clean frames'),
    'image-threshold': Command(TRAINER, 'the score from which a part is defective'),
    'submission': Command(TRAINER, 'files for benchmarks with hidden labels'),
    'pareto': Command(TRAINER, 'rate against average precision, a page'),
    'study': Command(TRAINER, 'many trainings, one table'),
    'adapt-study': Command(TRAINER, 'several cameras: target rates before and after adapting'),
    'cost': Command(TRAINER, 'what a training will take'),
    'completion': Command(f'{_CLI}.ood:completion', 'print the completion of bash or zsh'),
}


def parser() -> argparse.ArgumentParser:
    """Return the parser of the first word; what follows is the subcommand's."""
    width = max(map(len, COMMANDS)) + 2
    rows = [f'  {name:{width}}{command.text}' for name, command in COMMANDS.items()]
    result = argparse.ArgumentParser(
        'ood',
        description='Out-of-distribution perception for cameras: one program, many commands.',
        epilog='commands (each has --help):\n' + '\n'.join(rows),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument('--version', action='version', version=f'ood {__version__}')
    result.add_argument('command', metavar='command', help='one of those below')
    result.add_argument('words', nargs=argparse.REMAINDER, metavar='...', help="the command's own")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; return its exit status, 2 where there is no such command."""
    options = parser().parse_args(argv)
    older = {command.program: name for name, command in COMMANDS.items() if command.program}
    name = older.get(options.command, options.command)
    if name not in COMMANDS:
        tell(f'ood: there is no command {name!r}: use one of {", ".join(COMMANDS)}')
        return MISTAKE
    return run(name, options.words)


def run(name: str, words: list[str]) -> int:
    """Run the command of a known name on its words; return its exit status."""
    target = COMMANDS[name].function
    if target == TRAINER:
        target, words = f'{_trainer()}.__main__:main', [name, *words]
    module, _, function = target.partition(':')
    sys.argv[0] = f'ood {name}'  # what argparse calls the program
    try:
        return getattr(import_module(module), function)(words) or 0
    except ModuleNotFoundError as error:
        if (error.name or '').startswith('ood_perception'):
            raise
        tell(f'ood {name}: the package {error.name} is missing: `ood doctor` says what to install')
        return MISTAKE
    except KeyboardInterrupt:
        tell(f'ood {name}: stopped')
        return STOPPED


def completion(argv: Sequence[str] | None = None) -> int:
    """Print a script that completes commands, options and files: eval "$(ood completion bash)"."""
    arguments = argparse.ArgumentParser(description=completion.__doc__)
    arguments.add_argument('shell', choices=SHELLS, nargs='?', default='bash')
    shell = arguments.parse_args(argv).shell
    script = resources.files('ood_perception.cli').joinpath('completion.sh').read_text('utf-8')
    head = 'autoload -U +X bashcompinit && bashcompinit\n' if shell == 'zsh' else ''
    print(head + script.replace('@COMMANDS@', ' '.join(COMMANDS)), end='')
    return 0


def _trainer() -> str:
    """Return the trainer's package: the one of the same checkout, else the installed one."""
    checkout = Path(__file__).parents[2] / 'trainer' / '__init__.py'
    found = find_spec('trainer')  # PyPI has an unrelated package of that name
    if found and found.origin and Path(found.origin) == checkout:
        return 'trainer'
    return 'ood_perception_trainer'


if __name__ == '__main__':
    sys.exit(main())
