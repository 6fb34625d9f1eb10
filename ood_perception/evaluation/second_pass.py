# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
What needs the labels once more, after the thresholds of the whole set are known.

The engine does not run again: detections come from the records, labels from their files. In memory
is one image at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ..image.geometry import to_camera, to_camera_nearest
from ..metrics.binning import BINS, binned_curve, label_counts
from ..metrics.bootstrap import RESAMPLES, percentile_interval, resample_weights
from ..metrics.pixel import scored_image, strict_threshold
from ..metrics.segmentation import (
    class_iou,
    confusion,
    mean_iou,
    mean_iou_samples,
    open_prediction,
    two_fold_samples,
)
from ..metrics.smiyc import (
    METRICS,
    FrameComponents,
    component_counts,
    component_metrics,
    component_samples,
    frame_components,
    predicted_mask,
    size_limits,
    smiyc_frame,
    smiyc_metrics,
    smiyc_samples,
)
from ..types import Detection, Float32Array, Float64Array, Frame, Int64Array, JsonDict, UInt8Array
from .measure import IGNORED, seen_labels
from .record import RecordSet, unpack_detection
from .results import group_record, interval_record, plain

ReadImage = Callable[[str], tuple[UInt8Array, UInt8Array]]
TRACKS = {
    'AnomalyTrack': 'anomaly_track',
    'ObstacleTrack': 'obstacle_track',
    'LostAndFound': 'lost_and_found',
}


def replay(records: RecordSet, read: ReadImage) -> Iterator[tuple[Detection, UInt8Array]]:
    """Yield every kept detection with its labels; read: image name -> image and labels."""
    for kept, arrays in zip(records.kept, records, strict=True):
        image, labels = read(kept.name)
        detection = unpack_detection(arrays, Frame(image, frame_id=kept.name))
        yield detection, seen_labels(detection, labels)


def component_frames(
    records: RecordSet, read: ReadImage, track: str, threshold: float, region: str = 'image'
) -> list[FrameComponents]:
    """
    Return the components of every image at a threshold on the surprisal.

    track: a key of TRACKS, whose size limits hold. region: of Measured.regions; pixels outside the
    ground are ignored, true ones, too. The mask is surprisal >= threshold: the threshold is a bin
    edge, which the benchmark's strict comparison would not change but for pixels that equal it.
    """
    limits = size_limits(TRACKS[track])
    frames = []
    for detection, labels in replay(records, read):
        surprisal = to_camera(detection.surprisal, detection.geometry)
        mask = predicted_mask(surprisal, threshold, strict=False)
        if region == 'ground':
            inside = to_camera_nearest(detection.scored, detection.geometry)
            labels = np.where(inside, labels, np.uint8(IGNORED))
        frames.append(frame_components(mask, labels, limits))
    return frames


def component_summary(
    records: RecordSet,
    read: ReadImage,
    track: str,
    threshold: float,
    seed: int = 0,
    region: str = 'image',
) -> JsonDict:
    """Return the benchmark's metrics at a threshold (the set's best F1); see component_frames."""
    frames = component_frames(records, read, track, threshold, region)
    metrics = component_metrics(frames)
    samples = component_samples(frames, resample_weights(len(frames), RESAMPLES, seed))
    return {
        'track': track,
        'threshold': plain(threshold),
        'f1': plain(metrics['mean_f1']),
        'f1_interval': interval_record(percentile_interval(samples['mean_f1'])),
        'siou': plain(metrics['siou']),
        'ppv': plain(metrics['ppv']),
        **component_counts(frames),
    }


def smiyc_group(records: RecordSet, read: ReadImage, track: str, seed: int = 0) -> JsonDict:
    """
    Return the group of the SegmentMeIfYouCan leaderboard (smiyc.py), every labelled pixel counted.

    Scores are rounded to float16 first, as a submission is. track: a key of TRACKS, whose size
    limits the component metrics take; '' leaves them out. Components are those of
    score > threshold, the threshold of the leaderboard's own best F1.
    """
    pairs = _stored(records, read)
    frames = [smiyc_frame(scored_image(*pair), float16=True) for pair in pairs]
    weights = resample_weights(len(frames), RESAMPLES, seed)
    metrics = smiyc_metrics(frames)
    values = {name: float(getattr(metrics, name)) for name in METRICS}
    threshold = float(metrics.best_f1_threshold)
    samples = smiyc_samples(frames, weights)
    facts: JsonDict = {'threshold': plain(threshold), 'track': track}
    if track and not np.isnan(threshold):
        limits = size_limits(TRACKS[track])
        components = [
            frame_components(predicted_mask(scores, threshold), labels, limits)
            for scores, labels in _stored(records, read)
        ]
        found = component_metrics(components)
        values |= {name: found[name] for name in ('siou', 'ppv', 'mean_f1')}
        samples |= component_samples(components, weights)
        facts |= component_counts(components)
    return group_record(values, samples, len(frames), facts)


def _stored(records: RecordSet, read: ReadImage) -> Iterator[tuple[Float32Array, UInt8Array]]:
    """Yield scores as the benchmark stores them (float16), and labels, both (H, W)."""
    for detection, labels in replay(records, read):
        surprisal = to_camera(detection.surprisal, detection.geometry)
        yield surprisal.astype(np.float16).astype(np.float32), labels


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
    Return the fold of every image, int64 (n,) of 0 and 1: sequences stay whole.

    Two sequences are the two folds (StreetHazards' towns t5 and t6). Of more, the first ones up to
    half the images are fold 0; a single one is cut in the middle.
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
    records: RecordSet, read: ReadImage, names: Sequence[str], seed: int = 0
) -> JsonDict:
    """
    Return the group of closed-set and open-set mean IoU; see results.py.

    read: image name -> image and open_set_truth. names: of the known classes, which are the
    bundle's. The whole image is scored, whatever the region of interest.
    """
    known = len(names)
    folds = two_folds([kept.sequence for kept in records.kept])
    thresholds = _thresholds(records, read, folds, known)
    closed, opened = _confusions(records, read, thresholds[1 - folds], known)
    per_fold = [opened[folds == fold] for fold in (0, 1)]
    once = [np.ones((1, len(matrices))) for matrices in per_fold]
    values = {
        'mean_iou': float(mean_iou(closed.sum(axis=0))),
        'open_mean_iou': float(two_fold_samples(per_fold, once, known)[0]),
    }
    values['lost'] = values['mean_iou'] - values['open_mean_iou']
    facts = {
        'folds': [
            {
                'images': len(matrices),
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
    records: RecordSet, read: ReadImage, folds: Int64Array, known: int
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
    records: RecordSet, read: ReadImage, thresholds: Float64Array, known: int
) -> tuple[Int64Array, Int64Array]:
    """Return confusion matrices, closed (n, C, C) and open (n, C + 1, C + 1); thresholds: (n,)."""
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
    """Draw the images of each fold again, so that both keep their numbers."""
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
