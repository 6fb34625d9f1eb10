# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Adapt bundles to cameras, with several numbers of frames: what a target rate gives then.

Every camera is seen once by every bundle, as many frames as the largest of --frames, evenly
spread; the rest is computed from what is kept in --out/frames, from where a stopped run goes on.
adaptation.md has, for every target, what the parent and each level flag of stretches that they
were not fitted on; what is found of labelled anomalies; what is still found where some frames hold
objects; when the drift test warns. Nothing is written that serves: adapt_bundle does that.

Exit status: 0, or 3 where a camera was refused.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from ood_perception.adapt.adaptation import AdaptOptions, observer_of, seen_frames
from ood_perception.adapt.blocks import FEWEST_BLOCKS
from ood_perception.adapt.curves import RATES
from ood_perception.adapt.drive import Drive, open_drive
from ood_perception.adapt.levels import LEVELS, Pasted, labelled
from ood_perception.adapt.observe import Observer, SeenFrame
from ood_perception.cli.adapt import PARAMETERS as OF_ADAPT
from ood_perception.errors import ConfigError, DataError
from ood_perception.evaluation.results import write_text
from ood_perception.files import check_writable
from ood_perception.json_files import write_json
from ood_perception.loader import Model, open_model
from ood_perception.parameters.options import add_parameters, chosen_parameters
from ood_perception.reports.html import render
from ood_perception.texts import tell

from ..datasets import EvaluationSet, open_set
from .adapted_cameras import OBJECTS, Camera, Parent, contamination_of, drift_of, rates_of
from .options import add_root_argument, command_parser, sets_root

PARAMETERS = (*OF_ADAPT, 'views')


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    result = command_parser(__doc__)
    add = result.add_argument
    add('parents', nargs='+', help='folders, .zips or shipped names')
    add('--clean', nargs='+', required=True, metavar='NAME=DRIVE', help='bag, folder or video')
    add('--anomalies', nargs='+', default=[], metavar='NAME=SET', help='labels of a --clean NAME: '
        'a set of `evaluate` with images of the same names')  # fmt: skip
    add('--frames', nargs='+', type=int, default=[20, 50, 200], help='default: 20 50 200')
    add('--contamination', type=float, default=AdaptOptions.contamination, help='see adapt_bundle')
    add('--out', type=Path, default=Path('out/adaptation'), help='default: %(default)s')
    add_root_argument(result)
    add_parameters(result, PARAMETERS)
    return result


def main(arguments: Sequence[str]) -> int:
    """Run the command line; return the exit status."""
    options = parser().parse_args(arguments)
    AdaptOptions(options.contamination)
    if min(options.frames) < 1:
        raise ConfigError(f'--frames {min(options.frames)}: give 1 or more')
    drives = {
        name: open_drive(text, max(options.frames))
        for name, text in _named(options.clean, '--clean')
    }
    anomalies = dict(_named(options.anomalies, '--anomalies'))
    if unknown := sorted(set(anomalies) - set(drives)):
        raise ConfigError(f'--anomalies {unknown[0]}=...: no --clean has that name')
    sets = {name: open_set(text, sets_root(options)) for name, text in anomalies.items()}
    check_writable(options.out)
    result: dict[str, list[Any]] = {'rows': [], 'contamination': [], 'drift': [], 'refused': []}
    for bundle in options.parents:
        _study(options, bundle, drives, sets, result)
    tell(f'{len(result["rows"])} rows: {options.out / "adaptation.md"}')
    return 3 if result['refused'] else 0


def _named(texts: Sequence[str], option: str) -> list[tuple[str, str]]:
    pairs = []
    for text in texts:
        name, equals, value = text.partition('=')
        if not (name and equals and value):
            raise ConfigError(f'{option} {text}: write NAME=...')
        pairs.append((name, value))
    return pairs


def _study(
    options: argparse.Namespace,
    bundle: str,
    drives: dict[str, Drive],
    sets: dict[str, EvaluationSet],
    result: dict[str, list[Any]],
) -> None:
    """Add what a bundle gives on every camera to the result, and write it camera by camera."""
    model = open_model({**chosen_parameters(options, PARAMETERS, tell), 'bundle': bundle}, tell)
    with model.engine:
        parent = Parent.of(model)
        cameras: list[Camera] = []
        for name, drive in drives.items():
            camera = _seen(options.out / 'frames', model, name, drive, sets.get(name))
            if len(camera.frames) < FEWEST_BLOCKS or not any(len(f.cells) for f in camera.frames):
                result['refused'].append(f'{name}, {len(camera.frames)} frames, {parent.name}')
                continue
            for count in sorted({min(count, len(camera.frames)) for count in options.frames}):
                result['rows'].append(rates_of(parent, camera, count, options.contamination))
            result['contamination'] += contamination_of(parent, camera, options.contamination)
            cameras.append(camera.without_tokens())
            _write(options, result)
            tell(f'{parent.name}: {len(camera.frames)} frames of {name}')
    result['drift'] += drift_of(parent, cameras, options.contamination)
    _write(options, result)


def _seen(
    folder: Path, model: Model, name: str, drive: Drive, data: EvaluationSet | None
) -> Camera:
    """Return what a bundle sees of a camera, the cells of labelled anomalies left out."""
    observer, _ = observer_of(model, 'auto', folder)
    with closing(observer):
        frames, pasted = seen_frames(observer, drive, drive.count, OBJECTS)
        known = _labelled(observer, drive, frames, data) if data else []
    return Camera(name, frames, pasted, known).without_anomalies()


def _labelled(
    observer: Observer, drive: Drive, frames: Sequence[SeenFrame], data: EvaluationSet
) -> list[Pasted]:
    """Return the frames that a set labels; DataError where it labels no anomaly of them."""
    places = {Path(name).stem: index for name, index in data.places.items()}
    found = []
    for place, frame in enumerate(drive.frames()):
        index = places.get(Path(frame.frame_id).stem)
        if index is not None:
            labels = data.images.read(index)[1]
            found.append(labelled(observer, frame, frames[place], labels, place))
    if not any(one.found.any() for one in found):
        raise DataError(f'--anomalies ...={data.name}: it labels no anomaly of these frames')
    return found


def _write(options: argparse.Namespace, result: dict[str, list[Any]]) -> None:
    write_json(options.out / 'adaptation.json', result)
    text = render('adaptation.md.j2', levels=LEVELS, targets=RATES, **result)
    write_text(options.out / 'adaptation.md', text)
