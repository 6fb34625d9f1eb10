# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""AP, AUROC and FPR95 of a recording's labelled frames; memory does not grow with pixels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ood_perception.evaluation.results import interval_record, plain
from ood_perception.image.geometry import camera_window
from ood_perception.metrics.binning import BINS, binned_metrics, label_counts, lower_edges
from ood_perception.metrics.bootstrap import RESAMPLES, PictureHistograms, metric_intervals
from ood_perception.postprocess.output_maps import OutputMaps
from ood_perception.types import JsonDict, UInt8Array

# Intervals are wide; they are drawn from bins that are 64 times as coarse as those of the values.
_COARSE = BINS // 64
METRICS = ('average_precision', 'average_precision_missed', 'auroc', 'fpr95')


class LabelledFrames:
    """
    Counts of the labelled frames: fine ones of all together, coarse ones of each (8 KiB).

    The values carry bounds on what the order inside bins can change (see bins.py). The frame is
    the unit of the bootstrap. Pixels that the network does not see are left out.
    """

    def __init__(self) -> None:
        self._positives = np.zeros(BINS, np.int64)
        self._negatives = np.zeros(BINS, np.int64)
        self._each: list[npt.NDArray[np.int32]] = []
        self._missed: list[int] = []

    def __len__(self) -> int:
        return len(self._missed)

    def add(self, maps: OutputMaps, labels: UInt8Array) -> None:
        """Add a frame; labels: uint8 (H, W), 1 anomaly, 0 normal, else ignored."""
        seen = camera_window(maps.detection.geometry)
        surprisal = maps.surprisal()[seen]
        scored = ~np.isnan(surprisal)
        counts = label_counts(np.nan_to_num(surprisal, copy=False), labels[seen], scored)
        normal, anomaly = counts[1]
        self._negatives += normal
        self._positives += anomaly
        self._each.append(counts[1].reshape(2, _COARSE, -1).sum(2).astype(np.int32))
        self._missed.append(int(counts[0, 1].sum()))

    def record(self, seed: int = 0) -> JsonDict:
        """Return the metrics, their bounds and their 95 % intervals; None where undefined."""
        exact = binned_metrics(self._positives, self._negatives, sum(self._missed))
        counts = np.stack(self._each)
        pictures = PictureHistograms(
            lower_edges()[:: BINS // _COARSE],
            counts[:, 1].astype(np.int64),
            counts[:, 0].astype(np.int64),
            np.array(self._missed, np.int64),
        )
        intervals = metric_intervals(pictures, RESAMPLES, seed)
        found = {name: getattr(exact, name) for name in METRICS}
        return {
            'frames': len(self),
            'anomaly_pixels': exact.positives,
            'normal_pixels': exact.negatives,
            'anomaly_pixels_outside_the_region': exact.missed,
            'metrics': {name: plain(values[0]) for name, values in found.items()},
            'bounds': {name: [plain(v) for v in values[1:]] for name, values in found.items()},
            'intervals': {name: interval_record(intervals[name]) for name in METRICS},
        }
