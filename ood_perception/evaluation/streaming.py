# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Pixel metrics of data sets of any size: constant memory, mergeable, with exact bounds.

Scores are counted in bins that are the leading bits of their float32, put in order. So bins need
no range and no second pass, any finite or infinite score of either sign has one, and processes
share them. Only the order inside a bin is lost: bounds.py says what that can change. With 20 bits
a bin is 1/2048 to 1/4096 of its score wide. AUPRO: streaming_aupro.py.
"""

from __future__ import annotations

from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from ..bundle.cache import make_file
from ..errors import ConfigError, DataError
from ..types import Float32Array
from .bounds import BinnedMetrics, bounded_metrics
from .curves import Curve
from .histograms import Int64Array
from .pixels import ScoredPicture

BITS = 20
_FORMAT = 1


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

    def metrics(self) -> BinnedMetrics:
        """Return the metrics with their bounds."""
        return bounded_metrics(self.curve(), self.missed)

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
