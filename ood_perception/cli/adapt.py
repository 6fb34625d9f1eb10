# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The program adapt_bundle: a bundle made a vehicle's own from one clean drive."""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ood_perception.adapt.adaptation import (
    AdaptOptions,
    adapt,
    card,
    kept_folder,
    of_all_classes,
)
from ood_perception.adapt.drive import Drive, of_images, open_drive
from ood_perception.adapt.levels import LEVELS
from ood_perception.adapt.recordings import CleanWork, clean_drive
from ood_perception.adapt.writing import check_target
from ood_perception.bundle.store import load_bundle
from ood_perception.bundle.weights.completion import complete
from ood_perception.engines import create_engine
from ood_perception.errors import ConfigError, OodPerceptionError, exit_status
from ood_perception.files import check_writable
from ood_perception.fleet.pool import add_cluster, cluster_of
from ood_perception.fleet.recordings import is_fleet
from ood_perception.loader import open_model
from ood_perception.parameters.options import add_parameters, chosen_parameters
from ood_perception.parameters.table import DEFAULTS
from ood_perception.texts import tell

PARAMETERS = ('weights', 'engine', 'precision', 'threads', 'in_distribution', 'roi.mode')


def adapt_bundle(argv: Sequence[str] | None = None) -> int:
    """
    Adapt a bundle to your camera from one clean drive, without labels; write a bundle.

    Exit status: 0 written, 1 not, with the reason, 130 stopped: the same command goes on.
    """
    arguments = _parser().parse_args(argv)
    return exit_status('error', lambda: _stoppable(arguments))


def _stoppable(arguments: argparse.Namespace) -> int:
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        tell('adapt_bundle: stopped, no bundle was written; the same command goes on from here')
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=adapt_bundle.__doc__)
    add = parser.add_argument
    add(
        'parent', nargs='?', help='folder, .zip or shipped name; default: as --params, or the road'
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        '--clean',
        nargs='+',
        help='a ROS 2 bag, a folder of images or a video; or several recordings, a folder of '
        'them, a pattern, a .txt with one a line, URLs',
    )
    source.add_argument('--normal', nargs='+', type=Path, help='1 to 20 images of a new place')
    add('--bundle', dest='out', type=Path, required=True, help='folder of the new bundle')
    add('--frames', type=int, default=200, help='most frames to take, evenly spread; default 200')
    add('--topics', nargs='+', default=[], help='of a bag, or name=topic; default: every camera')
    add('--contamination', type=float, default=AdaptOptions.contamination, help='fraction of '
        'the predicted ground that is assumed to be none, and cut off; default 0.001')  # fmt: skip
    add('--level', default='auto', choices=('auto', *LEVELS), help='what to adapt; default: as '
        'objects pasted on left-out stretches are found best, curves unless resolved')  # fmt: skip
    add_cluster(parser.add_argument_group('several recordings'))
    add('--overwrite', action='store_true', help='replace an earlier bundle')
    add_parameters(parser, PARAMETERS)
    return parser


def _run(arguments: argparse.Namespace) -> int:
    start = time.monotonic()
    if arguments.frames < 1:
        raise ConfigError(f'--frames {arguments.frames}: give 1 or more')
    options = AdaptOptions(arguments.contamination, level=arguments.level)
    check_target(arguments.out, arguments.overwrite)
    check_writable(arguments.out, '--bundle')
    arguments.bundle = arguments.parent
    # all views are seen: the sample tells them apart, so either choice of `views` is calibrated
    values = {**chosen_parameters(arguments, ('bundle', *PARAMETERS), tell), 'views': True}
    if arguments.normal:
        drive = of_images(arguments.normal)
        options = dataclasses.replace(options, views=1)
    elif arguments.ray or len(arguments.clean) > 1 or is_fleet(arguments.clean[0]):
        values, drive = _fleet(arguments, values)
    else:
        drive = open_drive(arguments.clean[0], arguments.frames, arguments.topics)
    model = open_model(values, tell, create=of_all_classes)
    with model.engine:
        bundle = adapt(model, drive, arguments.out, options)
    try:
        whole = complete(bundle, arguments.weights or None)
        engine = create_engine(whole, model.engine.options)
    except OodPerceptionError:
        shutil.rmtree(arguments.out)  # nothing that no engine serves is left behind
        raise
    print(card(bundle.manifest.calibration))
    with engine:
        print(f'golden vectors kept: {" ".join(engine.description.values())}')
    seconds = time.monotonic() - start
    print(f'{seconds:.0f} s; bundle: {arguments.out}, sha256 {bundle.sha256}')
    return 0


def _fleet(arguments: argparse.Namespace, values: dict[str, Any]) -> tuple[dict[str, Any], Drive]:
    """Let workers see several recordings; return what the model is opened with, and the drive."""
    engine, threads = str(values.get('engine', '')), int(values.get('threads') or 0)
    cluster = cluster_of(arguments, engine, threads)
    if cluster:
        values = {**values, 'threads': cluster.threads}
    bundle = load_bundle(values.get('bundle', DEFAULTS['bundle']))
    topics = tuple(arguments.topics)
    work = CleanWork(values, bundle.sha256, arguments.level, arguments.frames, topics)
    return values, clean_drive(arguments.clean, work, kept_folder(arguments.out), cluster, tell)


if __name__ == '__main__':
    sys.exit(adapt_bundle())
