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
from pathlib import Path
from typing import Any

from ood_perception.adapt.adaptation import AdaptOptions, of_all_classes, seen_frames
from ood_perception.adapt.blocks import FEWEST_BLOCKS
from ood_perception.adapt.curves import RATES
from ood_perception.adapt.drive import Drive, open_drive
from ood_perception.adapt.gaussian import gaussian_head
from ood_perception.adapt.levels import LEVELS, Pasted, labelled
from ood_perception.adapt.observe import Observer, SeenFrame
from ood_perception.cli.adapt import PARAMETERS
from ood_perception.engines.plan import head_of
from ood_perception.errors import ConfigError, DataError
from ood_perception.evaluation.results import write_text
from ood_perception.files import check_writable
from ood_perception.json_files import write_json
from ood_perception.loader import open_model
from ood_perception.parameters.options import add_parameters, chosen_parameters
from ood_perception.reports.html import render
from ood_perception.settings import chosen_classes
from ood_perception.texts import tell
from ood_perception.types import JsonDict

from ..datasets import EvaluationSet, open_set
from .adapted_cameras import Camera, Parent, contamination_of, drift_of, rates_of
from .options import add_root_argument, command_parser, sets_root


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
        parent, cameras = _seen(options, bundle, drives, sets, result['refused'])
        _study(parent, cameras, options, result)
        result['drift'] += drift_of(parent, cameras, options.contamination)
        _write(options, result)
    return 3 if result['refused'] else 0


def _named(texts: Sequence[str], option: str) -> list[tuple[str, str]]:
    pairs = []
    for text in texts:
        name, equals, value = text.partition('=')
        if not (name and equals and value):
            raise ConfigError(f'{option} {text}: write NAME=...')
        pairs.append((name, value))
    return pairs


def _seen(
    options: argparse.Namespace,
    bundle: str,
    drives: dict[str, Drive],
    sets: dict[str, EvaluationSet],
    refused: list[str],
) -> tuple[Parent, list[Camera]]:
    """Return what a bundle sees of every camera."""
    values = {**chosen_parameters(options, PARAMETERS, tell), 'bundle': bundle, 'views': True}
    model = open_model(values, tell, create=of_all_classes)
    with model.engine:
        manifest = model.bundle.manifest
        head = head_of(manifest, model.engine.options)
        gaussian = gaussian_head(model.bundle, head)
        chosen = chosen_classes(manifest, model.pipeline.settings)
        parent = Parent(manifest.name, head.compiled_classes, tuple(chosen), gaussian)
        cameras = []
        for name, drive in drives.items():
            observer = Observer(model, gaussian.layers if gaussian else (), options.out / 'frames')
            frames, pasted = seen_frames(observer, drive, drive.count)
            known = _labelled(observer, drive, frames, sets[name]) if name in sets else []
            observer.close()
            if len(frames) < FEWEST_BLOCKS or not any(len(one.cells) for one in frames):
                refused.append(f'{name}, {len(frames)} frames, {manifest.name}')
                continue
            cameras.append(Camera(name, frames, pasted, known).without_anomalies())
            tell(f'{manifest.name}: {len(frames)} frames of {name} are seen')
    return parent, cameras


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


def _study(
    parent: Parent, cameras: Sequence[Camera], options: argparse.Namespace, result: JsonDict
) -> None:
    for camera in cameras:
        counts = sorted({min(count, len(camera.frames)) for count in options.frames})
        for count in counts:
            result['rows'].append(rates_of(parent, camera, count, options.contamination))
        middle = counts[len(counts) // 2]
        result['contamination'] += contamination_of(parent, camera, middle, options.contamination)
        tell(f'{parent.name} to {camera.name}: {", ".join(map(str, counts))} frames')


def _write(options: argparse.Namespace, result: JsonDict) -> None:
    write_json(options.out / 'adaptation.json', result)
    text = render('adaptation.md.j2', levels=LEVELS, targets=RATES, **result)
    write_text(options.out / 'adaptation.md', text)
    tell(f'{len(result["rows"])} rows: {options.out / "adaptation.md"}')
