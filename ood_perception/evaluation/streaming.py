# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Pixel metrics of data sets of any size: constant memory, mergeable, with exact bounds.

Scores are counted in bins that are the leading bits of their float32, put in order. So bins need
no range and no second pass, any finite or infinite score of either sign has one, and processes
share them. Only the order inside a bin is lost. Each metric is given with the smallest and the
largest value that any order inside the bins allows: the exact one lies between (up to rounding,
1e-12). With 20 bits a bin is 1/2048 to 1/4096 of its score wide. AUPRO: streaming_aupro.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from ..bundle.cache import make_file
from ..errors import ConfigError, DataError
from ..types import Float32Array
from .curves import Curve
from .histograms import TRUE_POSITIVE_RATE, Float64Array, Int64Array
from .pixels import ScoredPicture

BITS = 20
_FORMAT = 1


class Bounded(NamedTuple):
    """A metric of binned scores: low <= exact value <= high; value takes each bin as one tie."""

    value: float
    low: float
    high: float


UNDEFINED = Bounded(float('nan'), float('nan'), float('nan'))


@dataclass(frozen=True)
class StreamedMetrics:
    """
    Metrics of streamed pixels, see metrics.PixelMetrics; undefined ones are nan throughout.

    best_f1_threshold: the bin edge that reaches best_f1.value, exactly.
    """

    average_precision: Bounded
    average_precision_missed: Bounded
    auroc: Bounded
    fpr95: Bounded
    best_f1: Bounded
    best_f1_threshold: float
    positives: int
    negatives: int
    missed: int


def score_bins(scores: Float32Array, bits: int = BITS) -> npt.NDArray[np.int32]:
    """Return the bin of each score (no NaN), int32 of the same shape, ordered as the scores."""
    pattern = (scores + np.float32(0)).view(np.int32)  # -0 becomes 0
    bins: npt.NDArray[np.int32] = _ordered(pattern) >> (32 - bits)
    bins += 1 << (bits - 1)
    return bins


def bin_edges(bins: Int64Array, bits: int = BITS) -> Float32Array:
    """Return float32: the lowest score of each bin."""
    ordered = ((bins - (1 << (bits - 1))) << (32 - bits)).astype(np.int32)
    return _ordered(ordered).view(np.float32)


def _ordered(pattern: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Flip the magnitude bits of negative floats: integers then ascend as the floats; and back."""
    flipped: npt.NDArray[np.int32] = pattern ^ ((pattern >> 31) & 0x7FFFFFFF)
    return flipped


class StreamedScores:
    """
    Counts of anomaly and normal pixels per bin of their score.

    Memory: 16 bytes x 2^bits (16 MiB), whatever is added. positives, negatives: int64 (2^bits,).
    """

    def __init__(self, bits: int = BITS) -> None:
        if not 10 <= bits <= 24:
            raise ConfigError(f'{bits} bits a bin: give 10 (coarse) to 24 (256 MiB)')
        self.bits = bits
        self.positives: Int64Array = np.zeros(1 << bits, np.int64)
        self.negatives: Int64Array = np.zeros(1 << bits, np.int64)
        self.missed = 0

    def add(self, picture: ScoredPicture) -> None:
        """Count the pixels of one picture (pixels.scored_picture)."""
        for counts, scores in (
            (self.positives, picture.positives),
            (self.negatives, picture.negatives),
        ):
            bins = score_bins(scores, self.bits)
            starts = np.flatnonzero(np.diff(bins, prepend=-1))  # the scores are sorted
            counts[bins[starts]] += np.diff(starts, append=bins.size)
        self.missed += picture.missed

    def merge(self, other: StreamedScores) -> None:
        """Add the counts of another process; order does not matter, nothing is lost."""
        if self.bits != other.bits:
            raise DataError(f'bins of {self.bits} and {other.bits} bits cannot be merged')
        self.positives += other.positives
        self.negatives += other.negatives
        self.missed += other.missed

    def curve(self) -> Curve:
        """Return the exact curve at the edges of the bins that hold pixels (for drawing)."""
        held = np.flatnonzero(self.positives + self.negatives)[::-1]
        found, alarms = np.cumsum(self.positives[held]), np.cumsum(self.negatives[held])
        return Curve(
            bin_edges(held, self.bits),
            found,
            alarms,
            int(self.positives.sum()),
            int(self.negatives.sum()),
        )

    def metrics(self) -> StreamedMetrics:
        """Return the metrics with their bounds."""
        curve = self.curve()
        if curve.positives == 0:
            nothing = (UNDEFINED, UNDEFINED, UNDEFINED, UNDEFINED, UNDEFINED)
            return StreamedMetrics(*nothing, float('nan'), 0, curve.negatives, self.missed)
        precision = _average_precision(curve)
        lost = curve.positives / (curve.positives + self.missed)
        best_f1, threshold = _best_f1(curve)
        defined = curve.negatives > 0
        return StreamedMetrics(
            average_precision=precision,
            average_precision_missed=Bounded(*(value * lost for value in precision)),
            auroc=_auroc(curve) if defined else UNDEFINED,
            fpr95=_fpr95(curve) if defined else UNDEFINED,
            best_f1=best_f1,
            best_f1_threshold=threshold,
            positives=curve.positives,
            negatives=curve.negatives,
            missed=self.missed,
        )

    def save(self, path: Path) -> None:
        """Write the counts to an .npz file, whole or not at all."""
        held = np.flatnonzero(self.positives + self.negatives)

        def write(temporary: Path) -> None:
            with temporary.open('wb') as file:
                np.savez_compressed(
                    file,
                    format=_FORMAT,
                    bits=self.bits,
                    missed=self.missed,
                    bins=held,
                    positives=self.positives[held],
                    negatives=self.negatives[held],
                )

        make_file(path, write)

    @staticmethod
    def load(path: Path) -> StreamedScores:
        """Read what save wrote; DataError for any other file."""
        try:
            with np.load(path, allow_pickle=False) as arrays:
                if int(arrays['format']) != _FORMAT:
                    raise DataError(f'{path} has format {int(arrays["format"])}, not {_FORMAT}')
                loaded = StreamedScores(int(arrays['bits']))
                loaded.positives[arrays['bins']] = arrays['positives']
                loaded.negatives[arrays['bins']] = arrays['negatives']
                loaded.missed = int(arrays['missed'])
        except (OSError, ValueError, KeyError, IndexError, EOFError, BadZipFile) as error:
            raise DataError(f'{path} is no file of streamed scores: {error}') from error
        return loaded


def _steps(counts: Int64Array) -> Float64Array:
    return np.diff(counts, prepend=0).astype(np.float64)


def _average_precision(curve: Curve) -> Bounded:
    """
    Bound AP: in each bin all anomalies tied above all normal pixels, or one by one below them.

    With T found before a bin of p anomalies and c alarms up to its end, the low sum is
    sum_i (T + i) / (T + i + c) = p - c sum_i 1 / (T + c + i), and 1/x is convex, so that the last
    sum is at most ln((T + c + p + 1/2) / (T + c + 1/2)).
    """
    taken, wrong = _steps(curve.found), _steps(curve.alarms)
    count = curve.positives
    before = curve.found - taken + curve.alarms
    low = taken - curve.alarms * np.log1p(taken / (before + 0.5))
    high = taken * (curve.found / np.maximum(curve.found + curve.alarms - wrong, 1))
    value = float(np.sum(taken * curve.precision)) / count
    return Bounded(value, float(np.sum(low)) / count, float(np.sum(high)) / count)


def _auroc(curve: Curve) -> Bounded:
    """Bound AUROC: the pairs inside bins are all lost, or all won; a tie counts half."""
    taken, wrong = _steps(curve.found), _steps(curve.alarms)
    pairs = float(curve.positives) * curve.negatives
    low = float(np.sum(taken * (curve.negatives - curve.alarms))) / pairs
    inside = float(np.sum(taken * wrong)) / pairs
    return Bounded(low + 0.5 * inside, low, low + inside)


def _fpr95(curve: Curve) -> Bounded:
    """Bound FPR95: the threshold lies in the first bin that ends with a recall of 0.95."""
    first = int(np.argmax(curve.recall >= TRUE_POSITIVE_RATE))
    high = float(curve.fallout[first])
    low = float(curve.fallout[first - 1]) if first else 0.0
    return Bounded(high, low, high)


def _best_f1(curve: Curve) -> tuple[Bounded, float]:
    """Bound F1: the best edge is reached; inside a bin at best its anomalies come first."""
    at_edges = 2 * curve.found / (curve.found + curve.alarms + curve.positives)
    before = curve.alarms - _steps(curve.alarms)
    high = 2 * curve.found / (curve.found + before + curve.positives)
    best = int(np.argmax(at_edges))
    value = float(at_edges[best])
    return Bounded(value, value, float(high.max())), float(curve.thresholds[best])
