# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""AP, AUROC and FPR95 of a recording's labelled frames; memory does not grow with pixels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ...maps import OutputMaps
from ...types import JsonDict, UInt8Array
from ..bootstrap import RESAMPLES, metric_intervals
from ..metrics import PictureHistograms
from ..reports import interval_record, plain

_BINS = 4096


class LabelledFrames:
    """
    Score histograms of the labelled frames, 32 KiB each; the frame is the unit of the bootstrap.

    Every bin edge is a threshold of the exact curve; only the order inside a bin, 0.3 % of the
    surprisal wide, is lost.
    """

    def __init__(self) -> None:
        self._edges = np.concatenate([[-np.inf], np.geomspace(2**-10, 64.0, _BINS - 1)]).astype(
            np.float32
        )
        self._positives: list[npt.NDArray[np.int32]] = []
        self._negatives: list[npt.NDArray[np.int32]] = []
        self._missed: list[int] = []

    def __len__(self) -> int:
        return len(self._missed)

    def add(self, maps: OutputMaps, labels: UInt8Array) -> None:
        """Add a frame; labels: uint8 (H, W), 1 anomaly, 0 normal, else ignored."""
        surprisal = maps.surprisal()
        scored = ~np.isnan(surprisal)
        for counts, value in ((self._positives, 1), (self._negatives, 0)):
            bins = np.searchsorted(self._edges, surprisal[scored & (labels == value)], 'right') - 1
            counts.append(np.bincount(bins, minlength=_BINS).astype(np.int32))
        self._missed.append(int(np.count_nonzero((labels == 1) & ~scored)))

    def record(self, seed: int = 0) -> JsonDict:
        """Return the metrics with 95 % intervals over frames, None where undefined."""
        pictures = PictureHistograms(
            self._edges,
            np.stack(self._positives).astype(np.int64),
            np.stack(self._negatives).astype(np.int64),
            np.array(self._missed, np.int64),
        )
        values = pictures.metrics(np.ones((1, len(self)), np.float64))
        intervals = metric_intervals(pictures, RESAMPLES, seed)
        return {
            'frames': len(self),
            'anomaly_pixels': int(pictures.positives.sum()),
            'normal_pixels': int(pictures.negatives.sum()),
            'anomaly_pixels_outside_the_region': int(pictures.missed.sum()),
            'metrics': {name: plain(float(getattr(values, name)[0])) for name in intervals},
            'intervals': {name: interval_record(value) for name, value in intervals.items()},
        }
