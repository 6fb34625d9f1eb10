# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""AP of a study's rows by the size of objects and by where they stand."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from ood_perception.evaluation.second_pass import replay
from ood_perception.image.geometry import to_camera, to_camera_nearest
from ood_perception.metrics.by_object import EDGES, ROW, SIZE, ObjectCounts, object_counts

from ..evaluation.runs import SetRun
from ..evaluation.sets import label_reader

TITLES = {
    SIZE: 'By size of object (square root of its area, % of the image width)',
    ROW: 'By the lowest row of the object (% of the image height: the less, the farther)',
}


def bin_titles(kind: str) -> list[str]:
    """Return the titles of a kind's bins, such as 'below 1', '1 to 2', '4 and above'."""
    edges = [f'{100 * edge:g}' for edge in EDGES[kind]]
    between = [f'{low} to {high}' for low, high in pairwise(edges)]
    return [f'below {edges[0]}', *between, f'{edges[-1]} and above']


def object_record(seeds: Mapping[int, SetRun], region: str) -> dict[str, Any]:
    """
    Return kind -> {average_precision, objects}: one value a bin, AP as the mean over seeds.

    seeds: seed -> its run. region: of Measured.regions. AP: None for a bin without objects.
    """
    counts = [_counts(run, region) for run in seeds.values()]
    return {
        kind: {
            'average_precision': _means([one.average_precision(kind) for one in counts]),
            'objects': counts[0].objects[kind].tolist(),
        }
        for kind in EDGES
    }


def _means(values: list[list[float | None]]) -> list[float | None]:
    columns = [[v for v in column if v is not None] for column in zip(*values, strict=True)]
    return [float(np.mean(column)) if column else None for column in columns]


def _counts(run: SetRun, region: str) -> ObjectCounts:
    """Return one run's pixels, all images together."""
    total: ObjectCounts | None = None
    for detection, labels in replay(run.records, label_reader(run.data)):
        geometry = detection.geometry
        inside = np.ones(labels.shape, bool)
        if region == 'ground':
            inside = to_camera_nearest(detection.scored, geometry)
        counts = object_counts(to_camera(detection.surprisal, geometry), labels, inside)
        total = counts if total is None else total + counts
    assert total is not None  # a set holds an image
    return total
