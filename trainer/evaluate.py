# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Measure a packed bundle with the node's own pipeline: anomaly sets, and the promise on CamVid.

Anomaly sets: AP, FPR95, AUROC of the surprisal at label size, on the whole image and inside the
pipeline's region of interest. camvid/<split>: flagged share per true class against the promised
false-alarm rate, on the mask's grid repeated to label size, as the node publishes it.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ood_perception.bundle.completion import complete
from ood_perception.bundle.store import default_bundle_path, load_bundle
from ood_perception.engines import ENGINES, create_engine
from ood_perception.engines.base import EngineOptions
from ood_perception.errors import ConfigError
from ood_perception.evaluation.bootstrap import RESAMPLES
from ood_perception.evaluation.metrics import (
    ScoredPicture,
    picture_histograms,
    pixel_metrics,
    pool,
    scored_picture,
)
from ood_perception.evaluation.promise import POOLED, count_alarms, promise_rows
from ood_perception.evaluation.reports import (
    TITLES,
    markdown_table,
    metric_cell,
    metrics_record,
    promise_record,
    promise_table,
)
from ood_perception.geometry import camera_window, to_camera, to_camera_nearest
from ood_perception.pipeline import Pipeline, Settings
from ood_perception.types import Detection, Frame, UInt8Array

from .data import IGNORED, PictureList
from .datasets import load_pictures
from .datasets.anomaly import CLASS_MAPS, GROUND_ONLY, load_anomaly_set
from .results import write_json

CAMVID = 'camvid/'


def run_pictures(
    pipeline: Pipeline, pictures: PictureList
) -> Iterator[tuple[Detection, UInt8Array]]:
    """Yield the detection and the labels uint8 (H, W) of every picture, unseen pixels IGNORED."""
    for index, name in enumerate(pictures.names):
        image, labels = pictures.read(index)
        detection = pipeline.run([Frame(image, pictures.sequences[index], frame_id=name)])[0]
        rows, columns = camera_window(detection.geometry)
        seen = np.full_like(labels, IGNORED)
        seen[rows, columns] = labels[rows, columns]
        yield detection, seen


def evaluate_anomalies(pipeline: Pipeline, pictures: PictureList, whole: bool) -> dict[str, Any]:
    """
    Return region -> metrics with intervals.

    whole: the labels are not the road alone, so the predicted region is measured apart.
    """
    regions: dict[str, list[ScoredPicture]] = {'image' if whole else 'road': []}
    if whole:
        regions['ground'] = []
    for detection, labels in run_pictures(pipeline, pictures):
        surprisal = to_camera(detection.surprisal, detection.geometry)
        scored = to_camera_nearest(detection.scored, detection.geometry)
        for region, parts in regions.items():
            roi = scored if region == 'ground' else None
            parts.append(scored_picture(surprisal, labels, roi))
    return {
        region: metrics_record(
            pixel_metrics(pool(parts)), picture_histograms(parts), RESAMPLES, seed=0
        )
        for region, parts in regions.items()
    }


def evaluate_promise(pipeline: Pipeline, pictures: PictureList) -> dict[str, Any]:
    """
    Return the promise as {'rows', 'table'}: per class and pooled, per sequence and over all.

    The classes of the pictures and of the bundle must have the same names in the same order.
    """
    manifest = pipeline.manifest
    names = tuple(spec.name for spec in manifest.classes)
    if names != pictures.classes.names:
        raise ConfigError(
            f'bundle {manifest.name} knows {list(names)}, the pictures are labelled with '
            f'{list(pictures.classes.names)}: the promise needs the same classes'
        )
    chosen = pipeline.settings.in_distribution or manifest.in_distribution
    alarms = [
        count_alarms(
            to_camera_nearest(detection.surprisal, detection.geometry),
            labels,
            len(names),
            group=sequence,
        )
        for (detection, labels), sequence in zip(
            run_pictures(pipeline, pictures), pictures.sequences, strict=True
        )
    ]
    rows = [
        row
        for row in promise_rows(alarms, names, chosen)
        if row.class_name in (*chosen, POOLED)  # the others are flagged by design
    ]
    return {'rows': promise_record(rows), 'table': promise_table(rows)}


def evaluate_set(pipeline: Pipeline, name: str, root: Path) -> dict[str, Any]:
    """Measure one named set under `root`; ConfigError for a name that is not known."""
    if name.startswith(CAMVID):
        return evaluate_promise(
            pipeline, load_pictures('camvid', root / 'camvid', name.removeprefix(CAMVID))
        )
    if name not in CLASS_MAPS:
        raise ConfigError(
            f'unknown set {name!r}; known are {sorted(CLASS_MAPS)} and {CAMVID}<split>'
        )
    pictures = load_anomaly_set(name, root / name)
    return evaluate_anomalies(pipeline, pictures, whole=name not in GROUND_ONLY)


def anomaly_table(results: dict[str, Any]) -> str:
    """Return the anomaly sets' metrics as one Markdown table."""
    lines = [
        [name, region, *(metric_cell(record, metric) for metric in TITLES)]
        for name, regions in results.items()
        if 'table' not in regions
        for region, record in regions.items()
    ]
    return markdown_table(['set', 'region', *TITLES.values()], lines) if lines else ''


def main(arguments: Sequence[str]) -> None:
    """Run `trainer evaluate`."""
    parser = argparse.ArgumentParser('trainer evaluate', description=__doc__)
    parser.add_argument(
        'bundle', nargs='?', default='', help='folder or .zip; default: the shipped bundle'
    )
    parser.add_argument(
        '--data', nargs='+', required=True, help=f'{", ".join(CLASS_MAPS)}, {CAMVID}<split>'
    )
    parser.add_argument('--root', type=Path, help='folder of the sets; default: OOD_DATA')
    parser.add_argument('--engine', default='auto', choices=('auto', *ENGINES))
    parser.add_argument('--precision', default='auto', help='auto, f32, bf16')
    parser.add_argument('--threads', type=int, default=0, help='0: all cores')
    parser.add_argument('--in-distribution', nargs='+', default=[], help="default: the bundle's")
    parser.add_argument('--weights', default='', help="origin of the backbone's weights")
    parser.add_argument('--json', type=Path, help='also write everything to this file')
    options = parser.parse_args(arguments)
    root = options.root or Path(os.environ.get('OOD_DATA', '.'))
    bundle = load_bundle(options.bundle or default_bundle_path())
    bundle = complete(bundle, options.weights or None)
    engine_options = EngineOptions(options.engine, options.precision, options.threads)
    with create_engine(bundle, engine_options) as engine:
        settings = Settings(in_distribution=tuple(options.in_distribution))
        pipeline = Pipeline(bundle, engine, settings)
        results = {name: evaluate_set(pipeline, name, root) for name in options.data}
        facts = dict(engine.description)
    print(anomaly_table(results) + '\n'.join(r['table'] for r in results.values() if 'table' in r))
    if options.json:
        write_json(options.json, {'bundle': bundle.manifest.name, **facts, 'sets': results})
