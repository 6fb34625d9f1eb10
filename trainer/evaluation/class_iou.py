# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
How well the labels of a bundle agree with labelled pictures, through the node's own pipeline.

    trainer class-iou [BUNDLE ...] --data maritime/test maritime_samples --reject obstacle

Two maps are judged at label size: the most likely class, and, with --reject CLASS, the final map
in which flagged pixels become CLASS. Prints IoU per class and the share of other classes' pixels
that the map calls CLASS. Where labels are another network's answer, it is agreement, no accuracy.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from ood_perception.bundle.completion import complete
from ood_perception.bundle.manifest import Manifest
from ood_perception.bundle.store import default_bundle_path, load_bundle
from ood_perception.engines import create_engine
from ood_perception.engines.base import EngineOptions
from ood_perception.errors import ConfigError
from ood_perception.evaluation.reports import markdown_table
from ood_perception.evaluation.results import write_json
from ood_perception.geometry import to_camera_nearest
from ood_perception.metrics.segmentation import class_iou, confusion
from ood_perception.pipeline import Pipeline, Settings
from ood_perception.roi import RoiSettings
from ood_perception.types import Detection, Frame

from ..datasets import EvaluationSet, open_set
from .engine_choice import add_engine_arguments

UInt8Array = npt.NDArray[np.uint8]
LIKELY, FINAL = 'most likely class', 'final map'


@dataclass
class Agreement:
    """
    One map on one set: pixels counted by label and map.

    confusion: int64 (C, C), rows = labels. classes: names.
    """

    bundle: str
    data: str
    map_name: str
    classes: tuple[str, ...]
    pictures: int = 0
    confusion: npt.NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.confusion = np.zeros((len(self.classes),) * 2, np.int64)

    def add(self, labels: UInt8Array, found: UInt8Array) -> None:
        """Count one picture; labels and found: uint8 (H, W), labels with IGNORED."""
        self.confusion += confusion(found, labels, len(self.classes))
        self.pictures += 1

    def record(self, reject: str = '') -> dict[str, Any]:
        """Return the figures as JSON values; reject: see the module."""
        iou = class_iou(self.confusion)
        total = max(int(self.confusion.sum()), 1)
        values: dict[str, Any] = {
            'bundle': self.bundle,
            'data': self.data,
            'map': self.map_name,
            'pictures': self.pictures,
            'mean_iou': float(np.nanmean(iou)),
            'pixel_accuracy': float(np.trace(self.confusion)) / total,
            'iou': {
                name: None if np.isnan(value) else float(value)
                for name, value in zip(self.classes, iou, strict=True)
            },
        }
        if reject:
            place = self.classes.index(reject)
            others = np.delete(self.confusion, place, axis=0)
            wrong = others[:, place] / np.maximum(others.sum(1), 1)
            names = [name for name in self.classes if name != reject]
            values['called_' + reject] = dict(zip(names, wrong.tolist(), strict=True))
        return values


def agreements(
    pipeline: Pipeline,
    bundle: str,
    data: EvaluationSet,
    reject: str = '',
    overlays: Path | None = None,
    progress: bool = False,
) -> list[Agreement]:
    """
    Return the agreement of both maps with a set's labels (of the first alone without reject).

    overlays: folder for one picture each: camera, labels, most likely class, final map.
    Raises ConfigError where bundle and set know other classes.
    """
    names = tuple(spec.name for spec in pipeline.manifest.classes)
    if not data.labelled or names != data.pictures.classes.names:
        known = data.pictures.classes.names if data.labelled else 'no labels'
        raise ConfigError(
            f'bundle {pipeline.manifest.name} knows {list(names)}, {data.name} has {known}: '
            'agreement needs the same classes in the same order'
        )
    if reject and reject not in names:
        raise ConfigError(f'--reject {reject}: no such class; known are {", ".join(names)}')
    kinds = (LIKELY, FINAL) if reject else (LIKELY,)
    results = [Agreement(bundle, data.name, kind, names) for kind in kinds]
    colors = np.array([spec.color for spec in pipeline.manifest.classes], np.uint8)
    for name, image, labels in _pictures(data, progress):
        detection = pipeline.run([Frame(image, frame_id=name)])[0]
        maps = _maps(detection, names.index(reject) if reject else None)
        for result, found in zip(results, maps, strict=True):
            result.add(labels, found)
        if overlays is not None:
            _write_overlay(overlays / f'{name}.jpg', image, [labels, *maps], colors)
    return results


def _pictures(data: EvaluationSet, progress: bool) -> Iterator[tuple[str, UInt8Array, UInt8Array]]:
    names = tqdm(data.pictures.names, desc=data.name, unit='picture', disable=not progress)
    for index, name in enumerate(names):
        yield name, *data.pictures.read(index)


def _maps(detection: Detection, reject: int | None) -> list[UInt8Array]:
    """Return the maps at the picture's size, uint8 (H, W)."""
    maps = [to_camera_nearest(detection.labels, detection.geometry)]
    if reject is not None:
        final = np.where(detection.mask, reject, detection.labels).astype(np.uint8)
        maps.append(to_camera_nearest(final, detection.geometry))
    return maps


def _write_overlay(
    path: Path, image: UInt8Array, maps: Sequence[UInt8Array], colors: UInt8Array
) -> None:
    table = np.zeros((256, 3), np.uint8)
    table[: len(colors)] = colors
    panels = [image, *(cv2.addWeighted(image, 0.45, table[one], 0.55, 0) for one in maps)]
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.hstack(panels)[:, :, ::-1])


def agreement_table(records: Sequence[dict[str, Any]]) -> str:
    """Return one line per bundle, set and map, in per cent."""
    classes = list(records[0]['iou'])
    rejected = [key for key in records[0] if key.startswith('called_')]
    header = ['bundle', 'set', 'map', 'pictures', 'mean IoU', *(f'IoU {name}' for name in classes)]
    header.append('right pixels')
    for key in rejected:
        header += [f'{name} called {key[7:]}' for name in records[0][key]]
    lines = []
    for record in records:
        wrong = [value for key in rejected for value in record[key].values()]
        values = [record['mean_iou'], *record['iou'].values(), record['pixel_accuracy'], *wrong]
        facts = [record['bundle'], record['data'], record['map'], str(record['pictures'])]
        lines.append([*facts, *('' if v is None else f'{100 * v:.1f}' for v in values)])
    return markdown_table(header, lines)


def parser() -> argparse.ArgumentParser:
    """Return the parser of `trainer class-iou`."""
    result = argparse.ArgumentParser(
        'trainer class-iou',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = result.add_argument
    add('bundle', nargs='*', help='folder, .zip or shipped name; default: the shipped one')
    add('--data', nargs='+', required=True, metavar='SET', help='sets with known classes')
    add('--root', type=Path, help='folder of the sets; default: OOD_DATA')
    add('--reject', default='', metavar='CLASS', help='flagged pixels become this class')
    add('--false-alarm-rate', type=float, default=0.01, help='default: %(default)s')
    add('--minimum-area', type=float, default=0.0, help='of obstacles, in pixels of the picture')
    add('--in-distribution', nargs='+', default=[], help="default: the bundle's")
    add('--overlays', type=Path, help='folder for pictures to look at')
    add('--report', type=Path, help='Markdown file for the table')
    add('--json', type=Path, help='file for the figures')
    add_engine_arguments(result)
    add('--quiet', action='store_true', help='no progress bar')
    return result


def main(arguments: Sequence[str]) -> None:
    """Run `trainer class-iou`."""
    options = parser().parse_args(arguments)
    root = options.root or Path(os.environ.get('OOD_DATA', '.'))
    sets = [open_set(name, root) for name in options.data]
    records = []
    for place in options.bundle or [str(default_bundle_path())]:
        records += _of_bundle(place, sets, options)
    text = agreement_table(records)
    print(text)
    if options.report:
        options.report.parent.mkdir(parents=True, exist_ok=True)
        options.report.write_text(text, encoding='utf-8')
    if options.json:
        write_json(options.json, records)


def _of_bundle(
    place: str, sets: Sequence[EvaluationSet], options: argparse.Namespace
) -> list[dict[str, Any]]:
    bundle = complete(load_bundle(place), options.weights or None)
    settings = Settings(
        options.false_alarm_rate,
        tuple(options.in_distribution),
        RoiSettings('none'),
        options.minimum_area,
    )
    engine_options = EngineOptions(
        *(options.engine, options.precision, options.threads),
        compiled_classes=settings.in_distribution,
    )
    with create_engine(bundle, engine_options) as engine:
        pipeline = Pipeline(bundle, engine, settings)
        manifest: Manifest = pipeline.manifest
        found = []
        for data in sets:
            folder = options.overlays and options.overlays / manifest.name / data.name
            found += agreements(
                *(pipeline, manifest.name, data, options.reject, folder, not options.quiet)
            )
    return [one.record(options.reject) for one in found]
