# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
From clean frames alone: how often false obstacles come at which parameters, and which to choose.

Clean means: nothing unknown in the pictures. Known classes outside in_distribution (cars, people)
are flagged by design; with --labels only obstacles that are mostly in-distribution by the labels
count, without labels all do. Every frame's obstacles count anew unless --persistence says that
the frames follow each other: then an obstacle counts once, when it is announced.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ood_perception.bundle.completion import complete
from ood_perception.bundle.manifest import Manifest
from ood_perception.bundle.store import default_bundle_path, load_bundle
from ood_perception.engines import ENGINES, create_engine
from ood_perception.engines.base import EngineOptions
from ood_perception.errors import ConfigError
from ood_perception.evaluation.alarm_rates import AlarmRates, Wanted, alarm_rates
from ood_perception.evaluation.alarms import PATCHES, RATES, AlarmCounter, normal_cells
from ood_perception.geometry import geometry_for
from ood_perception.pipeline import Pipeline, Settings
from ood_perception.roi import MODES, RoiSettings
from ood_perception.settings import chosen_classes
from ood_perception.tracking import Persistence
from ood_perception.types import Frame

from .clean_frames import CleanFrames, open_clean
from .operating_point_report import Answer, answer, write_report

_TELL_EVERY = 50


@dataclass(frozen=True)
class Grid:
    """What is counted: false-alarm rates, minimum areas in camera pixels, and how."""

    rates: tuple[float, ...]
    areas: tuple[float, ...]
    persistence: Persistence | None


def patch_area(manifest: Manifest, frame: Frame) -> float:
    """Return the camera pixels that one patch of the backbone covers on this picture."""
    size = manifest.input
    shape = (frame.image.shape[0], frame.image.shape[1])
    geometry = geometry_for(shape, (size.height, size.width), size.policy, size.anchor)
    return float(size.patch**2 / (geometry.scale_x * geometry.scale_y))


def usual_areas(patch: float) -> tuple[float, ...]:
    """Return minimum areas for a patch of this many camera pixels, rounded to two digits."""
    return tuple(float(f'{share * patch:.2g}') for share in PATCHES)


def count_source(pipeline: Pipeline, source: CleanFrames, grid: Grid, block: int) -> AlarmRates:
    """Run the pipeline once over a source and return its false obstacles over the grid."""
    manifest = pipeline.manifest
    names = [spec.name for spec in manifest.classes]
    chosen = [names.index(name) for name in chosen_classes(manifest, pipeline.settings)]
    counter = AlarmCounter(grid.rates, grid.areas, grid.persistence)
    for number, (frame, labels) in enumerate(source.frames(), start=1):
        detection = pipeline.run([frame])[0]
        normal = None
        if labels is not None:
            size = pipeline.grid_size
            normal = normal_cells(labels, chosen, len(names), detection.geometry, size)
        counter.add(detection, normal)
        if number % _TELL_EVERY == 0:
            print(f'{source.name}: {number} of {source.count} frames', file=sys.stderr)
    return alarm_rates(counter.result(), block)


def parser() -> argparse.ArgumentParser:
    """Return the parser of `trainer operating-point`."""
    result = argparse.ArgumentParser('trainer operating-point', description=__doc__)
    add = result.add_argument
    add('bundle', nargs='?', default='', help='folder or .zip; default: the shipped bundle')
    add('--clean', required=True, help='camvid/<split>, a folder of pictures, or a ROS 2 bag')
    add('--check', help='held-out clean frames, same forms: predicted against observed')
    add('--labels', nargs='?', const='', help='count only what the labels call in-distribution: '
        "alone for a split's own, or a folder of PNGs with the bundle's class ids")  # fmt: skip
    add('--root', type=Path, help='folder of the splits; default: OOD_DATA')
    add('--wanted', default='1/hour', help="acceptable false obstacles, default '1/hour'")
    add('--fps', type=float, default=0.0, help='frames a second that the node will process; '
        "default: the bag's own, 10 for pictures")  # fmt: skip
    add('--persistence', nargs=2, type=int, metavar=('M', 'N'), help='the frames follow each '
        'other: count an obstacle once, announced after m of n frames (1 5: at once)')  # fmt: skip
    add('--block', type=int, default=10, help='consecutive frames that are taken as one draw')
    add('--rates', nargs='+', type=float, default=RATES, help='false-alarm rates of the grid')
    add('--areas', nargs='+', type=float, default=(), help='minimum areas in camera pixels; '
        f'default: {", ".join(f"{p:g}" for p in PATCHES)} patches')  # fmt: skip
    add('--in-distribution', nargs='+', default=[], help="default: the bundle's")
    add('--roi', default='ground', choices=[m for m in MODES if m != 'polygon'])
    add('--engine', default='auto', choices=('auto', *ENGINES))
    add('--precision', default='auto', help='auto, f32, bf16, int8')
    add('--threads', type=int, default=0, help='0: all cores')
    add('--weights', default='', help="origin of the backbone's weights")
    add('--out', type=Path, default=Path('out/operating_point'), help='folder of the report')
    return result


def run(options: argparse.Namespace) -> Answer:
    """Do what the command line asks for; write the report and return the answer."""
    wanted = Wanted.parse(options.wanted)
    persistence = None
    if options.persistence:
        persistence = Persistence(options.persistence[1], options.persistence[0])
    if options.fps < 0:
        raise ConfigError(f'--fps {options.fps:g}: give frames a second above 0')
    bundle = complete(
        load_bundle(options.bundle or default_bundle_path()), options.weights or None
    )
    manifest = bundle.manifest
    root = options.root or Path(os.environ.get('OOD_DATA', '.'))
    names = tuple(spec.name for spec in manifest.classes)
    texts = [options.clean, *([options.check] if options.check else [])]
    sources = [open_clean(t, root, options.fps or 10.0, options.labels, names) for t in texts]
    fps = options.fps or sources[0].fps or 10.0
    patch = patch_area(manifest, next(sources[0].frames())[0])
    grid = Grid(tuple(options.rates), tuple(options.areas) or usual_areas(patch), persistence)
    engine_options = EngineOptions(options.engine, options.precision, options.threads)
    with create_engine(bundle, engine_options) as engine:
        settings = Settings(
            in_distribution=tuple(options.in_distribution), roi=RoiSettings(mode=options.roi)
        )
        pipeline = Pipeline(bundle, engine, settings)
        measured = [count_source(pipeline, source, grid, options.block) for source in sources]
        chosen = chosen_classes(manifest, settings)
    result = answer(measured[0], wanted, fps, patch, persistence)
    facts: dict[str, Any] = {
        'bundle': manifest.name,
        'bundle_sha256': bundle.sha256,
        'clean': sources[0].name,
        'labels': sources[0].labelled,
        'in_distribution': list(chosen),
        'roi': options.roi,
        'fps': fps,
        'persistence': options.persistence,
    }
    checked = (sources[1].name, measured[1]) if options.check else None
    write_report(options.out, facts, measured[0], result, checked)
    return result


def main(arguments: Sequence[str]) -> int:
    """Run `trainer operating-point`; 1 when the wanted rate cannot be promised."""
    options = parser().parse_args(arguments)
    result = run(options)
    print(result.text)
    print(f'report: {options.out / "operating_point.md"}')
    return 0 if result.choice else 1
