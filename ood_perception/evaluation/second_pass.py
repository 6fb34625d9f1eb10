# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
What needs the labels once more, after the thresholds of the whole set are known.

The engine does not run again: detections come from the records, labels from their files. In memory
is one picture at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from ..image.geometry import to_camera, to_camera_nearest
from ..metrics.bootstrap import RESAMPLES, percentile_interval, resample_weights
from ..metrics.components import (
    FrameComponents,
    component_metrics,
    component_samples,
    frame_components,
    predicted_mask,
    size_limits,
)
from ..metrics.pixel import scored_picture
from ..metrics.smiyc import METRICS, smiyc_frame, smiyc_metrics, smiyc_samples
from ..types import Detection, Float32Array, Frame, JsonDict, UInt8Array
from .groups import group_record
from .measure import IGNORED, seen_labels
from .record import RecordSet, unpack_detection
from .results import interval_record, plain

ReadPicture = Callable[[str], tuple[UInt8Array, UInt8Array]]
TRACKS = {
    'AnomalyTrack': 'anomaly_track',
    'ObstacleTrack': 'obstacle_track',
    'LostAndFound': 'lost_and_found',
}


def replay(records: RecordSet, read: ReadPicture) -> Iterator[tuple[Detection, UInt8Array]]:
    """Yield every kept detection with its labels; read: picture name -> picture and labels."""
    for kept, arrays in zip(records.kept, records, strict=True):
        image, labels = read(kept.name)
        detection = unpack_detection(arrays, Frame(image, frame_id=kept.name))
        yield detection, seen_labels(detection, labels)


def component_frames(
    records: RecordSet, read: ReadPicture, track: str, threshold: float, region: str = 'image'
) -> list[FrameComponents]:
    """
    Return the components of every picture at a threshold on the surprisal.

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
    read: ReadPicture,
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
        'f1': plain(metrics.mean_f1),
        'f1_interval': interval_record(percentile_interval(samples['mean_f1'])),
        'siou': plain(metrics.siou),
        'ppv': plain(metrics.ppv),
        'true': metrics.true,
        'predicted': metrics.predicted,
    }


def smiyc_group(records: RecordSet, read: ReadPicture, track: str, seed: int = 0) -> JsonDict:
    """
    Return the group of the SegmentMeIfYouCan leaderboard (smiyc.py), every labelled pixel counted.

    Scores are rounded to float16 first, as a submission is. track: a key of TRACKS, whose size
    limits the component metrics take; '' leaves them out. Components are those of
    score > threshold, the threshold of the leaderboard's own best F1.
    """
    pairs = _stored(records, read)
    frames = [smiyc_frame(scored_picture(*pair), float16=True) for pair in pairs]
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
        values |= {'siou': found.siou, 'ppv': found.ppv, 'mean_f1': found.mean_f1}
        samples |= component_samples(components, weights)
        facts |= {'true': found.true, 'predicted': found.predicted}
    return group_record(values, samples, len(frames), facts)


def _stored(records: RecordSet, read: ReadPicture) -> Iterator[tuple[Float32Array, UInt8Array]]:
    """Yield scores as the benchmark stores them (float16), and labels, both (H, W)."""
    for detection, labels in replay(records, read):
        surprisal = to_camera(detection.surprisal, detection.geometry)
        yield surprisal.astype(np.float16).astype(np.float32), labels
