# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The numbers of an evaluation's document as rows of CSV: shares of 1, one metric a row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ood_perception.types import JsonDict

from .markdown import TITLES
from .tables import metric_rows, set_names

CSV_HEADER = (
    *('run', 'set', 'region', 'metric', 'value', 'low_95', 'high_95'),
    *('bound_low', 'bound_high', 'pictures'),
)


def csv_rows(document: JsonDict) -> Iterator[list[Any]]:
    """Yield one row per run, set, region or group, and metric, as shares of 1; see CSV_HEADER."""
    for data in set_names(document):
        for run, region, record in metric_rows(document, data):
            for name in TITLES:
                if name in record:
                    interval = record['intervals'].get(name, [None, None])
                    bounds = record['bounds'][name]
                    values = [record[name], *interval, *bounds, record['pictures']]
                    yield [run, data, region, name, *values]
        for one in document['runs']:
            for name, group in one['sets'][data]['groups'].items():
                for metric, value in group['values'].items():
                    bounds = group['bounds'].get(metric, [None, None])
                    values = [value, *group['intervals'][metric], *bounds, group['pictures']]
                    yield [one['name'], data, name, metric, *values]
            for row in one['sets'][data].get('rows', []):
                metric = f'flagged at {row["promised"]:g}, {row["group"]}, {row["class_name"]}'
                values = [row['observed'], *row['interval'], None, None, row['pictures']]
                yield [one['name'], data, 'labelled', metric, *values]


PICTURE_COLUMNS = (
    *('name', 'sequence', 'average_precision', 'average_precision_missed', 'objects'),
    *('objects_found', 'anomaly_missed', 'normal_flagged', 'false_alarms', 'mean_iou'),
)


def picture_rows(document: JsonDict) -> Iterator[list[Any]]:
    """Yield one row per run, set and picture: run, set, PICTURE_COLUMNS."""
    for run in document['runs']:
        for data, one in run['sets'].items():
            for picture in one['pictures']:
                yield [run['name'], data, *(picture.get(name) for name in PICTURE_COLUMNS)]
