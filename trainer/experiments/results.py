# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Results of single rows on disk, so that a table continues where it was stopped."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ood_perception.evaluation.reports import interval_record, metrics_record
from ood_perception.evaluation.results import write_json
from ood_perception.metrics.bootstrap import (
    RESAMPLES,
    PictureHistograms,
    paired_difference,
    picture_histograms,
)
from ood_perception.metrics.pixel import ScoredPicture, pixel_metrics, pool

from .rows import Row

# of PictureHistograms; its weights of components are not kept
_ARRAYS = ('edges', 'positives', 'negatives', 'missed')


@dataclass(frozen=True)
class ResultFolder:
    """
    One JSON and one NPZ file per (row, set).

    path: the folder. data_key: hash of the evaluated data and of the fitting data; results of
    other data are not taken up again. resamples, seed: of the bootstrap.
    """

    path: Path
    data_key: str
    resamples: int = RESAMPLES
    seed: int = 0

    def _file(self, row: Row, data: str, suffix: str) -> Path:
        return self.path / f'{row.key()}-{data}{suffix}'

    def load(self, row: Row, data: str) -> dict[str, Any] | None:
        """Return the record of a row on a set, None where it has to be computed."""
        path = self._file(row, data, '.json')
        if not path.is_file() or not self._file(row, data, '.npz').is_file():
            return None
        record: dict[str, Any] = json.loads(path.read_text(encoding='utf-8'))
        return record if record['data_key'] == self.data_key else None

    def save(
        self, row: Row, data: str, regions: Mapping[str, Sequence[ScoredPicture]]
    ) -> dict[str, Any]:
        """Compute and write the metrics of a row on a set, per region; return the record."""
        record: dict[str, Any] = {
            'row': dataclasses.asdict(row),
            'data_key': self.data_key,
            'regions': {},
        }
        arrays: dict[str, Any] = {}
        for region, pictures in regions.items():
            binned = picture_histograms(pictures)
            exact = pixel_metrics(pool(pictures))
            record['regions'][region] = metrics_record(exact, binned, self.resamples, self.seed)
            arrays |= {f'{region}.{name}': getattr(binned, name) for name in _ARRAYS}
        self.path.mkdir(parents=True, exist_ok=True)
        with _replacing(self._file(row, data, '.npz')) as temporary:
            np.savez_compressed(temporary, **arrays)
        write_json(self._file(row, data, '.json'), record)
        return record

    def histograms(self, row: Row, data: str, region: str) -> PictureHistograms:
        """Return the stored per-picture histograms of a saved row."""
        with np.load(self._file(row, data, '.npz')) as arrays:
            return PictureHistograms(*(arrays[f'{region}.{name}'] for name in _ARRAYS))

    def difference(self, first: Row, second: Row, data: str, region: str) -> dict[str, Any]:
        """Return the paired 95 % interval of first - second per metric, and what it resolves."""
        intervals = paired_difference(
            self.histograms(first, data, region),
            self.histograms(second, data, region),
            self.resamples,
            self.seed,
        )
        return {
            name: {'interval': interval_record(value), 'resolved': value.excludes_zero}
            for name, value in intervals.items()
        }


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Offer a name beside the file, renamed at the end: a kill leaves no half file."""
    temporary = path.with_name(f'.{path.name}.{os.getpid()}{path.suffix}')
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
