# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Write the files that a benchmark with hidden labels takes, with the node's own pipeline.

    trainer submission [BUNDLE] --data smiyc_obstacle/all --method NAME --out FOLDER
    trainer submission [BUNDLE] --data lars/test --method NAME --out FOLDER --water Water --sky Sky

SegmentMeIfYouCan gets surprisal (-log10 of the p-value) as float16, LaRS colours: a pixel is an
obstacle where the mask says so, or where its class is neither water nor sky. A run that was
stopped goes on where it was; files of another bundle or other settings are not mixed in.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ood_perception.bundle.store import load_bundle
from ood_perception.bundle.weights.completion import complete
from ood_perception.engines.base import EngineOptions
from ood_perception.errors import ConfigError
from ood_perception.evaluation.maritime import SeaClasses, sea_labels
from ood_perception.evaluation.results import write_text
from ood_perception.image.geometry import camera_window, to_camera, to_camera_nearest
from ood_perception.json_files import json_text
from ood_perception.loader import open_pipeline
from ood_perception.pipeline import Pipeline, Settings
from ood_perception.postprocess.roi import RoiSettings
from ood_perception.types import Detection, Frame

from ..data.images import read_image
from ..datasets import EvaluationSet, open_set
from .options import add_engine_arguments
from .submission_files import (
    SCORE_FORMATS,
    Float32Array,
    Target,
    target_of,
    write_lars,
    write_scores,
)


def score_map(detection: Detection) -> Float32Array:
    """
    Return float32 (H, W) surprisal at the picture's size, finite everywhere.

    Outside the region of interest, and where the network does not see, it is 0: most normal.
    """
    scores = to_camera(detection.surprisal, detection.geometry)
    region = np.zeros(scores.shape, bool)
    rows, columns = camera_window(detection.geometry)
    region[rows, columns] = to_camera_nearest(detection.scored, detection.geometry)[rows, columns]
    scores[~region] = 0
    return scores


def write_submission(
    pipeline: Pipeline,
    data: EvaluationSet,
    target: Target,
    out: Path,
    facts: dict[str, Any],
    sea: SeaClasses | None = None,
    progress: bool = False,
) -> int:
    """
    Write one file for every frame of the set; return how many were written now.

    facts: what the files depend on; kept beside them, and a folder of other facts is refused
    with ConfigError. Raises DataError for the first picture that cannot be read.
    """
    record = out / f'{"_".join(target.folder.parts)}.json'
    _claim(record, facts)
    table = (sea or SeaClasses()).table(pipeline.manifest) if data.kind == 'maritime' else None
    written = 0
    frames = list(zip(data.pictures.names, data.pictures.images, strict=True))
    for name, image in tqdm(frames, desc=data.title, unit='picture', disable=not progress):
        path = target.path(out, name)
        if path.is_file():
            continue
        detection = pipeline.run([Frame(read_image(image), frame_id=name)])[0]
        if table is None:
            write_scores(path, score_map(detection))
        else:
            write_lars(path, sea_labels(detection, table))
        written += 1
    return written


def _claim(record: Path, facts: dict[str, Any]) -> None:
    """Write down what the files depend on; ConfigError where other files are there already."""
    text = json_text(facts, indent=2, sort_keys=True, default=str) + '\n'
    if record.is_file():
        if record.read_text(encoding='utf-8') != text:
            raise ConfigError(
                f'{record} says that its files come from another bundle or other settings; '
                'give another --method or --out, or remove them'
            )
        return
    write_text(record, text)


def parser() -> argparse.ArgumentParser:
    """Return the parser of `trainer submission`."""
    result = argparse.ArgumentParser(
        'trainer submission',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = result.add_argument
    add('bundle', nargs='?', default='', help='folder, .zip or shipped name; default: the road')
    add('--data', required=True, metavar='SET', help='smiyc_..., lars/...; see docs/datasets.md')
    add('--method', required=True, help='name on the leaderboard')
    add('--root', type=Path, help='folder of the sets; default: OOD_DATA')
    add('--out', type=Path, default=Path('out/submission'), help='default: %(default)s')
    add('--format', default='hdf5', choices=SCORE_FORMATS, help='of scores; default: %(default)s')
    add('--ground', action='store_true', help='scores outside the predicted ground become 0')
    add('--water', nargs='+', default=list(SeaClasses.water), help="the bundle's water classes")
    add('--sky', nargs='+', default=list(SeaClasses.sky), help="the bundle's sky classes")
    add('--in-distribution', nargs='+', default=[], help="default: the bundle's")
    add('--false-alarm-rate', type=float, default=Settings.false_alarm_rate,
        help='of the mask (LaRS)')  # fmt: skip
    add('--minimum-area', type=float, default=0.0, help='of obstacles in pixels (LaRS)')
    add_engine_arguments(result)
    add('--quiet', action='store_true', help='no progress bar')
    return result


def main(arguments: Sequence[str]) -> int:
    """Run `trainer submission`."""
    options = parser().parse_args(arguments)
    data = open_set(options.data, options.root or Path(os.environ.get('OOD_DATA', '.')))
    target = target_of(data.name, data.kind, options.method, options.format)
    settings = Settings(
        options.false_alarm_rate,
        tuple(options.in_distribution),
        RoiSettings('ground' if options.ground else 'none'),
        options.minimum_area,
    )
    sea = SeaClasses(tuple(options.water), tuple(options.sky))
    bundle = complete(load_bundle(options.bundle), options.weights or None)
    engine_options = EngineOptions(
        options.engine,
        options.precision,
        options.threads,
        compiled_classes=settings.in_distribution,
    )
    pipeline = open_pipeline(bundle, engine_options, settings)
    with pipeline.engine as engine:
        facts = {
            'bundle': bundle.manifest.name,
            'bundle_sha256': bundle.sha256,
            'engine': dict(engine.description),
            'settings': asdict(settings),
            # The splits of a track share its folder, those of LaRS do not.
            'set': data.name if data.kind == 'maritime' else target.folder.name,
            'licence': data.licence,
        }
        if data.kind == 'maritime':
            facts['classes'] = asdict(sea)
        written = write_submission(
            pipeline, data, target, options.out, facts, sea, not options.quiet
        )
    place = options.out / target.folder
    print(f'{place}: {len(data)} files, {written} written now')
    return 0
