# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
What is kept of one evaluated image: the detection on its grid, and the counts that metrics need.

One NPZ an image, written under another name and renamed, so that a killed evaluation goes on. A
file that is damaged is made again (the format checks itself).
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from ..metrics.binning import BINS, lower_edges
from ..metrics.bootstrap import ImageHistograms
from ..types import (
    BoolArray,
    Detection,
    Float64Array,
    Frame,
    Geometry,
    Int64Array,
    Obstacle,
    StageTimes,
    UInt8Array,
)
from .results import read_json, write_bytes, write_json

Arrays = dict[str, npt.NDArray[Any]]
# Raise it when a record's content changes its meaning: older records are then made again.
FORMAT = 3
_INDEX = 'index.json'


def pack_detection(detection: Detection) -> Arrays:
    """Return a detection as arrays, without the camera's image."""
    obstacles = [astuple(one) for one in detection.obstacles]
    times = detection.times
    return {
        'surprisal': detection.surprisal,
        'labels': detection.labels,
        'scored': np.packbits(detection.scored),
        'mask': np.packbits(detection.mask),
        'obstacles': np.array(obstacles, np.float64).reshape(-1, 6),
        'geometry': np.array(astuple(detection.geometry), np.float64),
        'rate': np.array(detection.false_alarm_rate),
        'stage_ms': np.array([times.preprocess_ms, times.inference_ms, times.postprocess_ms]),
    }


def unpack_detection(arrays: Mapping[str, npt.NDArray[Any]], frame: Frame) -> Detection:
    """Return the detection of pack_detection on its frame again, bit for bit."""
    shape = arrays['surprisal'].shape
    geometry = arrays['geometry']
    return Detection(
        frame=frame,
        surprisal=arrays['surprisal'],
        labels=arrays['labels'],
        scored=_unpacked(arrays['scored'], shape),
        mask=_unpacked(arrays['mask'], shape),
        obstacles=tuple(Obstacle(*map(float, row)) for row in arrays['obstacles']),
        geometry=Geometry(*map(int, geometry[:4]), *map(float, geometry[4:])),
        false_alarm_rate=float(arrays['rate']),
        times=StageTimes(*map(float, arrays['stage_ms'])),
    )


def _unpacked(bits: UInt8Array, shape: tuple[int, ...]) -> BoolArray:
    return np.unpackbits(bits, count=int(np.prod(shape))).reshape(shape).astype(bool)


def pack_counts(counts: Int64Array, shares: Float64Array) -> Arrays:
    """Return what is not zero of label_counts and share_sums: a tenth of the size."""
    places, weighted = np.flatnonzero(counts), np.flatnonzero(shares)
    return {
        'bins': places.astype(np.uint32),
        'counts': counts.ravel()[places].astype(np.uint32),
        'share_bins': weighted.astype(np.uint32),
        'shares': shares.ravel()[weighted],
    }


def unpack_counts(arrays: Mapping[str, npt.NDArray[Any]]) -> Int64Array:
    """Return int64 (2, 2, BINS) of pack_counts."""
    flat = np.zeros(4 * BINS, np.int64)
    flat[arrays['bins']] = arrays['counts']
    return flat.reshape(2, 2, BINS)


def save_record(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write a record, whole or not at all; DataError where the folder cannot be written."""
    content = io.BytesIO()
    np.savez(content, **arrays)  # type: ignore[arg-type]
    write_bytes(path, content.getvalue())


def load_record(path: Path) -> Arrays | None:
    """Return a record's arrays; None where there is none, or a damaged one."""
    try:
        with np.load(path) as content:
            return {name: content[name] for name in content.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


@dataclass(frozen=True)
class Kept:
    """One evaluated image: its name, its drive, the hash of its files, and its record."""

    name: str
    sequence: str
    content: str
    path: Path


@dataclass(frozen=True)
class Skipped:
    """One image that could not be evaluated, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class RecordSet:
    """The images of one run on one set, in the set's order."""

    kept: tuple[Kept, ...]
    skipped: tuple[Skipped, ...] = ()

    def __len__(self) -> int:
        return len(self.kept)

    def __iter__(self) -> Iterator[Arrays]:
        return (self.load(one) for one in self.kept)

    def load(self, one: Kept) -> Arrays:
        """Return an image's arrays; DataError where the file went away."""
        arrays = load_record(one.path)
        if arrays is None:
            raise DataError(f'record {one.path} is gone or damaged: run the evaluation again')
        return arrays

    def subset(self, places: Sequence[int]) -> RecordSet:
        """Return the images at `places`."""
        return RecordSet(tuple(self.kept[place] for place in places))


def records_folder(folder: Path, key: str, data: str) -> Path:
    """Return where the records of a run on a set are; data: the set's name, any characters."""
    return folder / 'images' / key / file_name(data)


def file_name(name: str) -> str:
    """Return a name with '_' in the place of what file systems may refuse."""
    return ''.join(c if c.isalnum() or c in '-_.' else '_' for c in name)


def save_index(folder: Path, records: RecordSet) -> None:
    """Write which records of a folder belong to a set."""
    write_json(
        folder / _INDEX,
        {
            'images': [
                {'name': k.name, 'sequence': k.sequence, 'content': k.content, 'file': k.path.name}
                for k in records.kept
            ],
            'skipped': [asdict(one) for one in records.skipped],
        },
    )


def load_index(folder: Path) -> RecordSet:
    """Return the records of a folder; DataError where it has no index."""
    content = read_json(folder / _INDEX)
    return RecordSet(
        tuple(
            Kept(row['name'], row['sequence'], row['content'], folder / row['file'])
            for row in content['images']
        ),
        tuple(Skipped(**row) for row in content['skipped']),
    )


def region_counts(counts: Int64Array, region: str) -> tuple[Int64Array, Int64Array, int]:
    """Return positives, negatives (BINS,) and missed of a region's label_counts (2, 2, BINS)."""
    if region == 'ground':
        return counts[1, 1], counts[1, 0], int(counts[0, 1].sum())
    both = counts.sum(axis=0)
    return both[1], both[0], 0


def region_shares(arrays: Arrays, region: str) -> Float64Array:
    """Return the weights (pack_counts) of an image's anomaly pixels in a region, (BINS,)."""
    flat = np.zeros(2 * BINS)
    flat[arrays['share_bins']] = arrays['shares']
    shares = flat.reshape(2, BINS)
    found: Float64Array = shares[1] if region == 'ground' else shares.sum(axis=0)
    return found


def pooled_counts(
    records: RecordSet, region: str
) -> tuple[Int64Array, Int64Array, int, Float64Array]:
    """Return the sums of region_counts and region_shares over all images."""
    counts, shares = np.zeros((2, 2, BINS), np.int64), np.zeros(BINS)
    for arrays in records:
        counts += unpack_counts(arrays)
        shares += region_shares(arrays, region)
    return (*region_counts(counts, region), shares)


def image_counts(records: RecordSet, region: str, starts: Int64Array) -> ImageHistograms:
    """Return the coarse counts of every image in a region; starts: see coarse_starts."""
    positives = np.empty((len(records), len(starts)), np.int64)
    negatives = np.empty_like(positives)
    missed, components = np.empty((2, len(records)), np.int64)
    shares = np.empty(positives.shape)
    for index, arrays in enumerate(records):
        shares[index] = np.add.reduceat(region_shares(arrays, region), starts)
        found, alarms, lost = region_counts(unpack_counts(arrays), region)
        positives[index] = np.add.reduceat(found, starts)
        negatives[index] = np.add.reduceat(alarms, starts)
        missed[index], components[index] = lost, int(arrays['components'])
    edges = lower_edges()[starts]
    return ImageHistograms(edges, positives, negatives, missed, shares, components)
