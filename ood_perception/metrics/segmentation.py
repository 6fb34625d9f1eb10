# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Mean IoU of the known classes: closed-set, and open-set by the two-fold protocol of DenseHybrid.

Open-set: pixels above a threshold are predicted as "anomaly"; an anomaly taken for a known class
is a false positive of that class, a known pixel taken for an anomaly a false negative. The mean is
over the known classes. The threshold for each half of the set is found on the other half: the
first with a recall above 0.95 (strictly).

Source: Grcic et al., DenseHybrid, ECCV 2022. On StreetHazards: 12 known classes, label 12 anomaly,
13 void, folds t5 and t6.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import DataError
from ..types import Float32Array, Float64Array, Int64Array, UInt8Array


def confusion(prediction: UInt8Array, truth: UInt8Array, classes: int) -> Int64Array:
    """
    Count int64 (classes, classes): [true class, predicted class].

    truth: uint8 (H, W); ids >= classes are ignored. prediction: uint8 (H, W), ids < classes where
    truth counts. Raises DataError for unequal shapes or a predicted id out of range.
    """
    if prediction.shape != truth.shape:
        raise DataError(f'prediction {prediction.shape} and truth {truth.shape} differ in size')
    valid = truth < classes
    predicted = prediction[valid]
    if predicted.size and int(predicted.max()) >= classes:
        raise DataError(
            f'predicted class {int(predicted.max())} is not one of {classes}; '
            'map the predictions to the classes of the truth first'
        )
    places = truth[valid].astype(np.int64) * classes + predicted
    return np.bincount(places, minlength=classes * classes).reshape(classes, classes)


def open_prediction(
    labels: UInt8Array, scores: Float32Array, threshold: float, known: int
) -> UInt8Array:
    """
    Return the labels with every pixel of score > threshold made `known` (the anomaly's id).

    labels: uint8 (H, W), ids < known. scores: float32 (H, W), no NaN.
    """
    if labels.shape != scores.shape or np.isnan(scores).any():
        raise DataError(
            f'labels {labels.shape} and scores {scores.shape} '
            f'(NaN: {int(np.isnan(scores).sum())}) do not match'
        )
    return np.where(scores > threshold, known, labels).astype(np.uint8)


def class_iou(matrix: Int64Array | Float64Array) -> Float64Array:
    """Return IoU (..., C) of confusion matrices (..., C, C); nan where a class never occurs."""
    hits = np.diagonal(matrix, axis1=-2, axis2=-1)
    union = matrix.sum(axis=-1) + matrix.sum(axis=-2) - hits
    with np.errstate(invalid='ignore'):
        iou: Float64Array = hits / union
    return iou


def mean_iou(matrix: Int64Array | Float64Array, known: int | None = None) -> Float64Array:
    """
    Return the mean IoU (...) of the first `known` classes (default: all) that occur.

    Open-set: hand in the matrix with the anomaly as last class and `known` = number of the others.
    nan where no class occurs. The closed-set value is that of torchmetrics' macro Jaccard index.
    """
    iou = class_iou(matrix)[..., :known]
    occurs = ~np.isnan(iou)
    with np.errstate(invalid='ignore'):
        mean: Float64Array = np.where(occurs, iou, 0.0).sum(axis=-1) / occurs.sum(axis=-1)
    return mean


def mean_iou_samples(
    matrices: Int64Array, weights: Float64Array, known: int | None = None
) -> Float64Array:
    """Return the mean IoU (R,) of R multisets, weights (R, n), of frames' matrices (n, C, C)."""
    return mean_iou(np.tensordot(weights, matrices, axes=1), known)


def two_fold_samples(
    folds: Sequence[Int64Array], weights: Sequence[Float64Array], known: int
) -> Float64Array:
    """
    Return the open-set mean IoU (R,) of R draws: each fold's, averaged with the numbers of images.

    folds: per fold (n, known + 1, known + 1), the confusion matrices of its images predicted at
    the other fold's threshold. weights: per fold float64 (R, n), so that every fold keeps its
    number of images; the thresholds stay. nan if a fold is empty.
    """
    values = [mean_iou_samples(m, w, known) for m, w in zip(folds, weights, strict=True)]
    return np.average(np.stack(values), axis=0, weights=[len(matrices) for matrices in folds])
