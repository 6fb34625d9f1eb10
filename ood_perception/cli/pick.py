# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The program ood pick: which shipped bundle meets a wanted rate on this machine."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ood_perception.bench.cases import Case, camera_size
from ood_perception.bench.pick import (
    Candidate,
    candidates,
    known_figures,
    measured,
    ranked,
    to_json,
)
from ood_perception.bundle.store import load_bundle, shipped_bundles
from ood_perception.bundle.weights.completion import complete
from ood_perception.errors import ConfigError, exit_status
from ood_perception.json_files import json_text
from ood_perception.texts import tell

PRECISIONS = ('f32', 'bf16', 'int8')
NOTHING = 1


def pick(argv: Sequence[str] | None = None) -> int:
    """Measure bundles on this machine; say which meet a rate, and how good each is."""
    parser = argparse.ArgumentParser(description=pick.__doc__)
    add = parser.add_argument
    add('bundle', nargs='*', help='folders, .zip or names; default: all shipped road bundles')
    add('--hz', type=float, default=10.0, help='wanted frames a second; %(default)g')
    add('--seconds', type=float, default=120.0, help='for all measurements; %(default)g')
    add('--precision', nargs='+', default=list(PRECISIONS), choices=PRECISIONS)
    add('--threads', type=int, default=0, help='0: all cores')
    add('--camera', default='1920x1080', help='size of the camera images')
    add('--weights', default='', help="where the backbones' weights are, see compile_bundle")
    add('--json', action='store_true', help='print JSON, progress to stderr')
    arguments = parser.parse_args(argv)
    return exit_status('error', lambda: _pick(arguments))


def _pick(arguments: argparse.Namespace) -> int:
    if not arguments.hz > 0 or not arguments.seconds > 0:
        raise ConfigError(
            f'--hz {arguments.hz:g}, --seconds {arguments.seconds:g}: give numbers above 0'
        )
    names = arguments.bundle or [n for n in shipped_bundles() if n.startswith('road_')]
    figures, places, wanted = known_figures(), {}, list[Candidate]()
    for name in names:
        bundle = complete(load_bundle(name), arguments.weights or None, tell)
        places[name] = bundle.root
        wanted += candidates(name, bundle, arguments.precision, figures)
    base = Case(
        bundle='',
        threads=arguments.threads,
        weights=arguments.weights,
        camera=camera_size(arguments.camera),
    )
    found = list(measured(wanted, places, base, arguments.seconds, tell))
    answer = to_json(found, arguments.hz)
    print(json_text(answer, indent=2) if arguments.json else as_text(found, arguments.hz))
    return 0 if answer['chosen'] else NOTHING


def as_text(found: Sequence[Candidate], hz: float) -> str:
    """Return the answer for a terminal: a line a candidate, the best that meets the rate first."""
    lines = [f'{"":5} {"bundle":14} {"precision":9} {"views":5} {"Hz":>6} {"ms":>7}  AP, percent']
    for one in ranked(found, hz):
        sign = 'meets' if one.hz >= hz else ''
        ap = ', '.join(f'{name} {value:.1f}' for name, value in one.ap.items()) or 'not known'
        time = f'{one.hz:6.1f} {one.ms[0]:7.1f}' if one.ms else f'{"-":>6} {"-":>7}'
        views = 'on' if one.views else 'off'
        lines.append(
            f'{sign:5} {one.bundle:14} {one.precision:9} {views:5} {time}  {one.reason or ap}'
        )
    best = ranked(found, hz)[0]
    if best.hz < hz:
        return '\n'.join([*lines, f'nothing meets {hz:g} Hz; the fastest: {_fastest(found)}'])
    chosen = f'-p bundle:={best.bundle} -p precision:={best.precision}'
    off = '' if best.views else ' -p views:=false'
    return '\n'.join([*lines, f'for {hz:g} Hz: ood node --ros-args {chosen}{off}'])


def _fastest(found: Sequence[Candidate]) -> str:
    one = max(found, key=lambda candidate: candidate.hz)
    return f'{one.bundle} in {one.precision}, {one.hz:.1f} Hz'
