# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
AP, AUROC and FPR95 of a set of any size without binning: every score, sorted in pieces on disk.

Detections come from the records, labels from their files. In memory is one picture at a time, and
one piece of the score axis.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..geometry import to_camera, to_camera_nearest
from ..types import BoolArray, Float32Array
from .pixels import scored_picture
from .record import RecordSet
from .second_pass import ReadPicture, replay

# Scores of one piece of the axis that are sorted together: 16 MB.
PIECE = 1 << 22


def exact_metrics(
    records: RecordSet, read: ReadPicture, region: str, folder: Path
) -> dict[str, float]:
    """
    Return AP, AUROC and FPR95 without any binning, the same as pixels.pool would give.

    Every picture's sorted scores go to files under `folder` (removed at the end, 4 bytes a pixel);
    then the score axis is walked from above in pieces of about PIECE scores.
    """
    with tempfile.TemporaryDirectory(prefix='.exact', dir=folder) as place:
        spilled = _spill(records, read, region, Path(place))
        return _walk(spilled)


Spilled = list[tuple[Float32Array, Float32Array]]


def _spill(records: RecordSet, read: ReadPicture, region: str, folder: Path) -> Spilled:
    """Write each picture's positives and negatives, ascending; return them memory-mapped."""
    spilled = []
    for index, (detection, labels) in enumerate(replay(records, read)):
        inside: BoolArray | None = None
        if region == 'ground':
            inside = to_camera_nearest(detection.scored, detection.geometry)
        surprisal = to_camera(detection.surprisal, detection.geometry)
        scores = scored_picture(surprisal, labels, inside)
        maps = []
        for name, values in (('positives', scores.positives), ('negatives', scores.negatives)):
            path = folder / f'{index}.{name}.npy'
            np.save(path, values)
            maps.append(np.load(path, mmap_mode='r'))
        spilled.append((maps[0], maps[1]))
    return spilled


def _walk(spilled: Spilled) -> dict[str, float]:
    """Sum precision and rank from the highest scores down, piece by piece."""
    count = sum(a.size for a, _ in spilled)
    other = sum(b.size for _, b in spilled)
    if not count:
        return dict.fromkeys(('average_precision', 'auroc', 'fpr95'), float('nan'))
    found = alarms = 0
    precision = rank = 0.0
    fpr95 = float('nan')
    for positives, negatives in _pieces(spilled):
        # Every distinct positive score of the piece is a point of the curve.
        scores, first = np.unique(positives, return_index=True)
        taken = np.diff(first, append=positives.size)
        hits = found + positives.size - first
        wrong = alarms + negatives.size - np.searchsorted(negatives, scores, 'left')
        above = alarms + negatives.size - np.searchsorted(negatives, scores, 'right')
        precision += float(np.sum(taken * (hits / (hits + wrong))))
        rank += float(np.sum(taken * (other - 0.5 * (wrong + above))))
        reached = np.flatnonzero(hits >= 0.95 * count)
        if np.isnan(fpr95) and reached.size and other:
            fpr95 = float(wrong[reached[-1]] / other)
        found, alarms = found + positives.size, alarms + negatives.size
    return {
        'average_precision': precision / count,
        'auroc': rank / count / other if other else float('nan'),
        'fpr95': fpr95,
    }


def _pieces(spilled: Spilled) -> Iterator[tuple[Float32Array, Float32Array]]:
    """Yield sorted positives and negatives with scores in [low, high), from the highest down."""
    cuts = _cuts(spilled)
    for low, high in zip(cuts[-2::-1], cuts[:0:-1], strict=True):
        yield (
            _between([a for a, _ in spilled], low, high),
            _between([b for _, b in spilled], low, high),
        )


def _cuts(spilled: Spilled) -> npt.NDArray[np.float64]:
    """Return ascending scores, -inf and inf at the ends, that cut the axis into even pieces."""
    parts = [values for pair in spilled for values in pair if values.size]
    total = sum(part.size for part in parts)
    pieces = max(1, -(-total // PIECE))
    # A thousand ranks a picture tell where the pooled quantiles are, closely enough for pieces.
    chosen = [min(part.size, 1000) for part in parts]
    ranks = [
        np.linspace(0, part.size - 1, n).astype(np.int64)
        for part, n in zip(parts, chosen, strict=True)
    ]
    sample = np.concatenate([part[r] for part, r in zip(parts, ranks, strict=True)])
    shared = [np.full(n, part.size / n) for part, n in zip(parts, chosen, strict=True)]
    weights = np.concatenate(shared)
    order = np.argsort(sample, kind='stable')
    shares = np.cumsum(weights[order]) / total
    places = np.searchsorted(shares, np.arange(1, pieces) / pieces)
    inner = np.unique(sample[order][np.minimum(places, sample.size - 1)].astype(np.float64))
    return np.concatenate([[-np.inf], inner, [np.inf]])


def _between(parts: list[Float32Array], low: float, high: float) -> Float32Array:
    """Return the scores in [low, high) of sorted parts, sorted."""
    slices = [
        part[np.searchsorted(part, low, 'left') : np.searchsorted(part, high, 'left')]
        for part in parts
    ]
    joined = np.concatenate(slices) if slices else np.empty(0, np.float32)
    joined.sort()
    return joined
