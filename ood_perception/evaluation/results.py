# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
A folder of results, and how it is read again.

    index.html                     the report            frames/*.jpg   its images
    results.json                   every number, the same bytes in every run
    results.csv, results.md        the headline numbers: one line per run, set and region
    images.csv                   one line per run, set and image
    times.json                     milliseconds per stage: differs from time to time
    images/<run>/<set>/*.npz     one record an image; <run>: hash of bundle, engine, settings
    images/<run>/<set>/index.json  the set's records in order, and what was skipped

Beside the pixel metrics a set has groups of metrics: what a benchmark of its own kind reports. A
group is an entry of a set's 'groups' in results.json, one table of the page and rows of the CSV:
{'values': name -> share of 1, 'intervals': name -> [low, high], 'bounds': name -> [low, high]
where the value is binned, 'images': how many, 'facts': what the numbers depend on}.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..files import make_file
from ..json_files import json_text
from ..metrics.bootstrap import Interval, percentile_interval
from ..texts import table_cell
from ..types import Float64Array, JsonDict

RESULTS, TIMES = 'results.json', 'times.json'


def run_key(facts: JsonDict) -> str:
    """Return a short hash of everything that a run's detections depend on, but the images."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def read_json(path: Path) -> Any:
    """Return a JSON file's content; DataError names what is missing."""
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f'{path} cannot be read ({error}): give a folder that trainer evaluate wrote'
        ) from error


def write_json(path: Path, values: Any) -> None:
    """Write strict JSON, whole or not at all; same values, same bytes; nan becomes null."""
    write_text(path, json_text(values, sort_keys=True) + '\n')


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table, whole or not at all; None becomes an empty cell, see table_cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(header)
    writer.writerows([table_cell(value) for value in row] for row in rows)
    write_text(path, text.getvalue())


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    write_bytes(path, text.encode('utf-8'))


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all; DataError where the folder cannot be written."""
    try:
        make_file(path, lambda file: file.write_bytes(data))
    except OSError as error:
        raise DataError(
            f'{path} cannot be written ({error.strerror}): is the folder writable, the disk full?'
        ) from error


def interval_record(interval: Interval) -> list[float | None]:
    """Return [low, high]."""
    return [plain(interval.low), plain(interval.high)]


def plain(value: float) -> float | None:
    """Return a number that JSON knows: nan and infinities become None."""
    return value if math.isfinite(value) else None


@dataclass(frozen=True)
class Group:
    """
    How a group is shown.

    title: of its table. metrics: name -> title of the column, in order. less_is_better: names of
    those of which less is better. by_class: all other values are columns, too, by their names:
    those that depend on the bundle's classes.
    """

    title: str
    metrics: Mapping[str, str]
    less_is_better: tuple[str, ...] = ()
    by_class: bool = False


GROUPS = {
    'inspection': Group(
        'Defects: images and regions',
        {'image_auroc': 'image AUROC', 'pixel_auroc': 'pixel AUROC', 'aupro': 'AUPRO'},
    ),
    'maritime': Group(
        'Obstacles on water',
        {
            'quality': 'Q',
            'edge_accuracy': 'water edge, mu',
            'precision': 'Pr',
            'recall': 'Re',
            'f1': 'F1',
            'mean_iou': 'mIoU',
            'iou_obstacle': 'IoU obstacle',
            'iou_water': 'IoU water',
            'iou_sky': 'IoU sky',
            'false_positive_rate': 'water flagged',
        },
        ('false_positive_rate',),
    ),
    'labels': Group(
        'Known classes: the most likely one',
        {'mean_iou': 'mIoU', 'right_pixels': 'right pixels'},
        by_class=True,
    ),
    'final_map': Group(
        'Known classes: the final map',
        {'mean_iou': 'mIoU', 'right_pixels': 'right pixels'},
        by_class=True,
    ),
    'open_set': Group(
        'Known classes, and unknown where the score says so',
        {'mean_iou': 'mIoU, closed', 'open_mean_iou': 'mIoU, open', 'lost': 'lost'},
        ('lost',),
    ),
    'smiyc': Group(
        'As the SegmentMeIfYouCan leaderboard computes it',
        {
            'average_precision': 'AP',
            'fpr95': 'FPR95',
            'auroc': 'AUROC',
            'best_f1': 'best F1',
            'siou': 'sIoU',
            'ppv': 'PPV',
            'mean_f1': 'mean F1',
        },
        ('fpr95',),
    ),
}


def group_record(
    values: Mapping[str, float],
    samples: Mapping[str, Float64Array],
    images: int,
    facts: JsonDict | None = None,
) -> JsonDict:
    """
    Return a group as JSON values.

    values: name -> share of 1, nan where undefined. samples: name -> float64 (R,), the same of
    every bootstrap resample.
    """
    return {
        'values': {name: plain(float(value)) for name, value in values.items()},
        'intervals': {
            name: interval_record(percentile_interval(samples[name])) for name in values
        },
        'bounds': {},
        'images': images,
        'facts': facts or {},
    }
