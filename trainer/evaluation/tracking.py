# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
What m-of-n persistence saves in false obstacles and costs in delay, measured on sequences.

Three kinds: pictures of a split that is held out, moved as before a driving camera, without and
with an object pasted on their road; and, as it was recorded, a split that is a sequence by itself.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ood_perception.bundle.cache import make_file
from ood_perception.bundle.completion import complete
from ood_perception.bundle.manifest import Manifest
from ood_perception.bundle.store import default_bundle_path, load_bundle
from ood_perception.demo.sources import spread
from ood_perception.engines import create_engine
from ood_perception.engines.base import EngineOptions
from ood_perception.errors import ConfigError
from ood_perception.evaluation.persistence import PersistenceMeter, PersistenceResult
from ood_perception.evaluation.reports import markdown_table
from ood_perception.evaluation.results import write_json
from ood_perception.metrics.false_obstacles import normal_cells
from ood_perception.pipeline import Pipeline, Settings
from ood_perception.settings import chosen_classes

from ..datasets import load_pictures
from ..datasets.camvid import CLASSES
from ..outliers import load_cutouts
from .engine_choice import add_engine_arguments
from .sequences import Motion, Step, drive, moved, with_object

PAIRS = ('1/1', '1/3', '2/2', '2/3', '3/3', '3/5', '4/6', '5/8')
HEADER = (
    'm of n',
    'false, each frame anew, per frame',
    'false, each once, per minute',
    'objects detected',
    'of these announced',
    'frames shown of those detected',
    'delay, frames: median, worst',
)


def parse_pair(text: str) -> tuple[int, int]:
    """Read 'm/n'; ConfigError for anything else."""
    m, _, n = text.partition('/')
    if not (m.isdigit() and n.isdigit()):
        raise ConfigError(f'--pairs {text!r}: write m/n, such as 3/5')
    return int(m), int(n)


def still_sequences(
    root: Path, split: str, count: int, motion: Motion, ground: Sequence[int]
) -> Iterator[Iterator[Step]]:
    """Yield two sequences a picture: without an object, and with one where there is room."""
    pictures = load_pictures('camvid', root / 'camvid', split)
    cutouts = load_cutouts(root / 'outlier_objects', 'selection')
    for index in spread(len(pictures.names), count):
        image, labels = pictures.read(index)
        name = pictures.names[index]
        yield moved(image, labels, None, name, motion)
        pasted = with_object(image, labels, cutouts, name, ground)
        if pasted is not None:
            yield moved(pasted[0], labels, pasted[1], name, motion)


def measure(
    pipeline: Pipeline, sequences: Iterator[Iterator[Step]], pairs: Sequence[tuple[int, int]]
) -> list[PersistenceResult]:
    """Run every frame once and give it to one meter for each m, n."""
    manifest = pipeline.manifest
    names = [spec.name for spec in manifest.classes]
    chosen = [names.index(name) for name in chosen_classes(manifest, pipeline.settings)]
    meters = [PersistenceMeter(m, n) for m, n in pairs]
    for number, sequence in enumerate(sequences, start=1):
        for place, step in enumerate(sequence):
            detection = pipeline.run([step.frame])[0]
            normal = normal_cells(
                step.labels, chosen, len(names), detection.geometry, pipeline.grid_size
            )
            for meter in meters:
                if place == 0:
                    meter.begin(step.thing is not None)
                if step.thing is None:
                    meter.add_clean(detection, normal)
                else:
                    meter.add_object(detection, step.thing)
        print(f'sequence {number} done', file=sys.stderr)
    return [meter.result() for meter in meters]


def table(results: Sequence[PersistenceResult], fps: float) -> str:
    """Return one line for each m of n as Markdown."""
    return markdown_table(HEADER, [_line(result, fps) for result in results])


def _line(r: PersistenceResult, fps: float) -> list[str]:
    per_minute = r.announced / r.frames * fps * 60 if r.frames else float('nan')
    delays = f'{np.median(r.delays):g}, {max(r.delays)}' if r.delays else '-'
    return [
        'off' if r.window == 1 else f'{r.required} of {r.window}',
        f'{r.shown / max(r.frames, 1):.3f}',
        f'{per_minute:.0f} ({r.announced} seen)',
        f'{r.detected} of {r.objects}' if r.objects else '-',
        f'{r.told} of {r.detected}' if r.objects else '-',
        f'{100 * r.told_frames / r.seen_frames:.0f} %' if r.seen_frames else '-',
        delays,
    ]


def parser() -> argparse.ArgumentParser:
    """Return the parser of `trainer tracking`."""
    result = argparse.ArgumentParser('trainer tracking', description=__doc__)
    add = result.add_argument
    add('bundle', nargs='?', default='', help='folder, .zip or shipped name; default: the road')
    add('--root', type=Path, help='folder of camvid/ and outlier_objects/; default: OOD_DATA')
    add('--split', default='test', help='CamVid split whose pictures are moved')
    add('--stills', type=int, default=20, help='pictures of it')
    add('--frames', type=int, default=12, help='frames made of each')
    add('--fps', type=float, default=10.0, help='their frames a second')
    add('--drive', default='val', help="CamVid split that is a sequence by itself; '': none")
    add('--drive-fps', type=float, default=15.0, help='its frames a second')
    add('--pairs', nargs='+', default=PAIRS, help='m/n to compare, 1/1 = off')
    add('--rate', type=float, default=0.01, help='false_alarm_rate')
    add('--area', type=float, default=0.0, help='minimum_area in camera pixels')
    add_engine_arguments(result)
    add('--out', type=Path, default=Path('out/tracking'), help='folder of the report')
    return result


def main(arguments: Sequence[str]) -> None:
    """Run `trainer tracking`."""
    options = parser().parse_args(arguments)
    pairs = [parse_pair(text) for text in options.pairs]
    motion = Motion(options.frames, options.fps)
    root = options.root or Path(os.environ.get('OOD_DATA', '.'))
    bundle = complete(
        load_bundle(options.bundle or default_bundle_path()), options.weights or None
    )
    _check_classes(bundle.manifest)
    engine_options = EngineOptions(options.engine, options.precision, options.threads)
    settings = Settings(false_alarm_rate=options.rate, minimum_area=options.area)
    with create_engine(bundle, engine_options) as engine:
        pipeline = Pipeline(bundle, engine, settings)
        names = [spec.name for spec in bundle.manifest.classes]
        ground = [names.index(name) for name in bundle.manifest.ground_classes]
        stills = still_sequences(root, options.split, options.stills, motion, ground)
        results = {f'moved pictures of camvid/{options.split}': measure(pipeline, stills, pairs)}
        rates = [options.fps]
        if options.drive:
            pictures = load_pictures('camvid', root / 'camvid', options.drive)
            recorded = iter([drive(pictures, options.drive_fps)])
            results[f'camvid/{options.drive} as recorded'] = measure(pipeline, recorded, pairs)
            rates.append(options.drive_fps)
    _report(options, bundle.manifest.name, results, rates)


def _check_classes(manifest: Manifest) -> None:
    names = tuple(spec.name for spec in manifest.classes)
    if names != CLASSES.names:
        raise ConfigError(
            f'bundle {manifest.name} knows {", ".join(names)}; the sequences are labelled with '
            f'{", ".join(CLASSES.names)}: take a bundle trained on CamVid'
        )


def _report(
    options: argparse.Namespace,
    bundle: str,
    results: dict[str, list[PersistenceResult]],
    rates: Sequence[float],
) -> None:
    """Print the tables and write tracking.json and tracking.md."""
    parts = [f'bundle {bundle}, rate {options.rate:g}, minimum area {options.area:g}\n']
    record: dict[str, Any] = {'bundle': bundle, 'rate': options.rate, 'area': options.area}
    for (name, rows), fps in zip(results.items(), rates, strict=True):
        frames = rows[0].frames if rows else 0
        parts.append(f'## {name}: {frames} clean frames at {fps:g} a second\n\n{table(rows, fps)}')
        record[name] = {'fps': fps, 'rows': [asdict(row) for row in rows]}
    text = '\n'.join(parts)
    write_json(options.out / 'tracking.json', record)
    make_file(options.out / 'tracking.md', lambda path: _write_text(path, text))
    print(text)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding='utf-8')
