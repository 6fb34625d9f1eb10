# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
A folder of results, and how it is read again.

    index.html                     the report            frames/*.jpg   its pictures
    results.json                   every number, the same bytes in every run
    results.csv, results.md        the headline numbers: one line per run, set and region
    pictures.csv                   one line per run, set and picture
    times.json                     milliseconds per stage: differs from time to time
    pictures/<run>/<set>/*.npz     one record a picture; <run>: hash of bundle, engine, settings
    pictures/<run>/<set>/index.json  the set's records in order, and what was skipped
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..files import make_file
from ..json_files import json_text
from ..metrics.bootstrap import Interval
from ..texts import table_cell
from ..types import JsonDict

RESULTS, TIMES = 'results.json', 'times.json'


def run_key(facts: JsonDict) -> str:
    """Return a short hash of everything that a run's detections depend on, but the pictures."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def read_json(path: Path) -> Any:
    """Return a JSON file's content; DataError names what is missing."""
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
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
