# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Mean IoU of the known classes with `unknown` where the score says so, from the records of a set.

Each half of the set gets the threshold of the other half (metrics/segmentation.py). The labels
are read twice more; the engine does not run again. In memory is one picture, and 32 MiB of counts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..image.geometry import to_camera, to_camera_nearest
from ..metrics.binning import BINS, binned_curve, label_counts
from ..metrics.bootstrap import RESAMPLES, resample_weights
from ..metrics.pixel import strict_threshold
from ..metrics.segmentation import (
    class_iou,
    confusion,
    mean_iou,
    mean_iou_samples,
    open_prediction,
    two_fold_open_iou,
    two_fold_samples,
)
from ..types import Float64Array, Int64Array, JsonDict, UInt8Array
from .groups import group_record
from .measure import IGNORED
from .record import RecordSet
from .results import plain
from .second_pass import ReadPicture, replay


def open_set_truth(anomaly: UInt8Array, classes: UInt8Array, known: int) -> UInt8Array:
    """
    Return class ids with `known` for anomalies, IGNORED elsewhere, uint8 (H, W).

    anomaly: uint8 (H, W), 1 where a pixel is one. classes: uint8 (H, W), ids < known, else void.
    """
    truth = np.where(classes < known, classes, IGNORED).astype(np.uint8)
    truth[anomaly == 1] = known
    return truth


def two_folds(sequences: Sequence[str]) -> Int64Array:
    """
    Return the fold of every picture, int64 (n,) of 0 and 1: sequences stay whole.

    Two sequences are the two folds (StreetHazards' towns t5 and t6). Of more, the first ones up to
    half the pictures are fold 0; a single one is cut in the middle.
    """
    names = list(dict.fromkeys(sequences))
    if len(names) == 1:
        return (np.arange(len(sequences)) >= len(sequences) / 2).astype(np.int64)
    counts = np.array([sequences.count(name) for name in names])
    before = np.cumsum(counts) - counts
    second = before >= len(sequences) / 2 if len(names) > 2 else np.array([False, True])
    second[-1], second[0] = True, False
    fold = dict(zip(names, second.astype(int).tolist(), strict=True))
    return np.array([fold[name] for name in sequences], np.int64)


def open_set_group(
    records: RecordSet, read: ReadPicture, names: Sequence[str], seed: int = 0
) -> JsonDict:
    """
    Return the group of closed-set and open-set mean IoU; see groups.py.

    read: picture name -> picture and open_set_truth. names: of the known classes, which are the
    bundle's. The whole picture is scored, whatever the region of interest.
    """
    known = len(names)
    folds = two_folds([kept.sequence for kept in records.kept])
    thresholds = _thresholds(records, read, folds, known)
    closed, opened = _confusions(records, read, thresholds[1 - folds], known)
    per_fold = [opened[folds == fold] for fold in (0, 1)]
    values = {
        'mean_iou': float(mean_iou(closed.sum(axis=0))),
        'open_mean_iou': two_fold_open_iou(per_fold, known) if len(records) > 1 else float('nan'),
    }
    values['lost'] = values['mean_iou'] - values['open_mean_iou']
    facts = {
        'folds': [
            {
                'pictures': len(matrices),
                'sequences': sorted({k.sequence for k, f in zip(records.kept, folds, strict=True)
                                     if f == fold}),
                'threshold': plain(float(thresholds[1 - fold])),
                'open_mean_iou': plain(float(mean_iou(matrices.sum(axis=0), known))),
            }
            for fold, matrices in enumerate(per_fold)
        ],
        'classes': [
            {'name': name, 'iou': plain(float(iou)), 'open_iou': plain(float(open_iou))}
            for name, iou, open_iou in zip(
                names, class_iou(closed.sum(axis=0)), class_iou(opened.sum(axis=0)), strict=False
            )
        ],
    }  # fmt: skip
    return group_record(values, _samples(closed, opened, folds, known, seed), len(records), facts)


def _thresholds(
    records: RecordSet, read: ReadPicture, folds: Int64Array, known: int
) -> Float64Array:
    """
    Return the threshold that each fold's own pixels give, float64 (2,), nan without anomalies.

    Scores are counted in the bins of binning.py; the threshold is its bin's lower edge.
    """
    counts = np.zeros((2, 2, BINS), np.int64)
    for fold, (detection, truth) in zip(folds, replay(records, read), strict=True):
        # every second pixel of every second row, as the protocol has it
        scores = to_camera(detection.surprisal, detection.geometry)[::2, ::2]
        labels = np.where(truth < known, 0, np.where(truth == known, 1, IGNORED)).astype(np.uint8)
        everywhere = np.ones(scores.shape, np.bool_)
        counts[fold] += label_counts(scores, labels[::2, ::2], everywhere)[1]
    return np.array([strict_threshold(binned_curve(found, normal)) for normal, found in counts])


def _confusions(
    records: RecordSet, read: ReadPicture, thresholds: Float64Array, known: int
) -> tuple[Int64Array, Int64Array]:
    """
    Return every picture's confusion matrices: closed (n, C, C) and open (n, C + 1, C + 1).

    thresholds: float64 (n,), of every picture.
    """
    closed = np.zeros((len(records), known, known), np.int64)
    opened = np.zeros((len(records), known + 1, known + 1), np.int64)
    for index, (detection, truth) in enumerate(replay(records, read)):
        labels = to_camera_nearest(detection.labels, detection.geometry)
        scores = to_camera(detection.surprisal, detection.geometry)
        closed[index] = confusion(labels, truth, known)
        prediction = open_prediction(labels, scores, float(thresholds[index]), known)
        opened[index] = confusion(prediction, truth, known + 1)
    return closed, opened


def _samples(
    closed: Int64Array, opened: Int64Array, folds: Int64Array, known: int, seed: int
) -> dict[str, Float64Array]:
    """Draw the pictures of each fold again, so that both keep their numbers."""
    parts = [np.flatnonzero(folds == fold) for fold in (0, 1)]
    if not all(part.size for part in parts):
        nothing = np.full(RESAMPLES, np.nan)
        return dict.fromkeys(('mean_iou', 'open_mean_iou', 'lost'), nothing)
    drawn = [resample_weights(part.size, RESAMPLES, seed) for part in parts]
    weights = np.empty((RESAMPLES, len(folds)))
    for part, rows in zip(parts, drawn, strict=True):
        weights[:, part] = rows
    samples = {
        'mean_iou': mean_iou_samples(closed, weights),
        'open_mean_iou': two_fold_samples([opened[part] for part in parts], drawn, known),
    }
    return {**samples, 'lost': samples['mean_iou'] - samples['open_mean_iou']}
