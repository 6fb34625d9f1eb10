# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Adapt a bundle to several cameras, with several numbers of frames: what a target rate gives then.

Each pair is one run of adapt_bundle, whose bundle stays in --out/bundles: the same command goes on
from there. adaptation.md has, for every target, what the parent and each level flag of stretches
that they were not fitted on. Cameras with fewer frames than asked for stand there with their own.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ood_perception.adapt.levels import LEVELS
from ood_perception.bundle.store import load_bundle
from ood_perception.cli.adapt import adapt_bundle
from ood_perception.errors import ConfigError
from ood_perception.evaluation.results import write_text
from ood_perception.files import check_writable
from ood_perception.json_files import write_json
from ood_perception.reports.html import render
from ood_perception.types import JsonDict

from .options import command_parser, tell


def parser() -> argparse.ArgumentParser:
    """Return the command line; what it does not know is adapt_bundle's."""
    result = command_parser(__doc__)
    add = result.add_argument
    add('parent', help='folder, .zip or shipped name')
    add('--clean', nargs='+', required=True, metavar='NAME=DRIVE', help='bag, folder or video')
    add('--frames', nargs='+', type=int, default=[20, 50, 200], help='default: 20 50 200')
    add('--out', type=Path, default=Path('out/adaptation'), help='default: %(default)s')
    return result


def main(arguments: Sequence[str]) -> int:
    """Run the command line; return 0, or 3 where a camera was refused."""
    options, passed_on = parser().parse_known_args(arguments)
    drives = dict(_named(text) for text in options.clean)
    check_writable(options.out)
    rows, refused = [], []
    for name, drive in drives.items():
        counts: set[int] = set()
        for frames in sorted(options.frames):
            out = options.out / 'bundles' / f'{name}_{frames}'
            words = [options.parent, '--clean', drive, '--frames', str(frames)]
            if out.exists():
                tell(f'{out} is there: taken as it is')
            elif adapt_bundle([*words, '--bundle', str(out), *passed_on]):
                refused.append(f'{name}, {frames} frames')
                continue
            row = {'camera': name, **load_bundle(out).manifest.calibration}
            if row['frames'] not in counts:  # it has no more
                rows.append(row)
            counts.add(row['frames'])
    _write(options, rows, refused)
    return 3 if refused else 0


def _named(text: str) -> tuple[str, str]:
    name, equals, drive = text.partition('=')
    if not (name and equals and drive) or '/' in name:
        raise ConfigError(f'--clean {text}: write NAME=DRIVE')
    return name, drive


def _write(options: argparse.Namespace, rows: list[JsonDict], refused: list[str]) -> None:
    write_json(options.out / 'adaptation.json', {'rows': rows, 'refused': refused})
    targets = rows[0]['levels'][LEVELS[0]]['rates'] if rows else []
    text = render(
        'adaptation.md.j2',
        parent=options.parent,
        rows=rows,
        levels=LEVELS,
        targets=[rate['target'] for rate in targets],
        refused=refused,
    )
    write_text(options.out / 'adaptation.md', text)
    tell(f'{len(rows)} rows: {options.out / "adaptation.md"}')
