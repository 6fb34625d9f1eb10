# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
LaRS, semantic track: obstacle detection and water edge from a three-class segmentation.

All values are shares in [0, 1]; the paper and its server print them times 100.

Source: Zust et al., LaRS, ICCV 2023, and its evaluator (github.com/lojzezust/lars_evaluator,
204edd4).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import cv2
import numpy as np

from ..errors import DataError
from ..types import BoolArray, Float64Array, Int64Array, UInt8Array

OBSTACLE, WATER, SKY, IGNORED = 0, 1, 2, 255
COLOURS = ((247, 195, 37), (41, 167, 224), (90, 75, 164))  # of OBSTACLE, WATER, SKY
STATIC_OBSTACLE = 1
DYNAMIC_OBSTACLES = (11, 12, 13, 14, 15, 16, 17, 19)
COVERED = 0.7
_SEGMENT_DILATION, _EDGE_DILATION, _WATER_EROSION = 7, 11, 21


@dataclass(frozen=True)
class LarsFrame:
    """
    The counts of one frame; those of a set are their sums.

    intersections, unions: int64 (3,), pixels of obstacle, water, sky.
    found, missed, alarms: dynamic obstacles found and missed, false components on water.
    edge_correct, edge_pixels: of the water edge. edge_intersection, edge_union: its boundary IoU.
    water_alarms, water_pixels: eroded water, and what of it is predicted as obstacle.
    """

    intersections: Int64Array
    unions: Int64Array
    found: int
    missed: int
    alarms: int
    edge_correct: int
    edge_pixels: int
    edge_intersection: int
    edge_union: int
    water_alarms: int
    water_pixels: int


def lars_frame(
    prediction: UInt8Array, semantic: UInt8Array, panoptic: UInt8Array, segments: Mapping[int, int]
) -> LarsFrame:
    """
    Count one frame.

    prediction: uint8 (h, w), OBSTACLE, WATER, SKY or IGNORED (never right); resized to the ground
        truth with nearest neighbour. semantic: uint8 (H, W), the same labels.
    panoptic: uint8 (H, W, 3) RGB; a segment's number is R + 256 G + 65536 B and R its category.
    segments: number -> category of every annotated segment.
    Raises DataError when the two ground truths differ in size.
    """
    if panoptic.shape != (*semantic.shape, 3):
        raise DataError(
            f'panoptic map {panoptic.shape} and semantic map {semantic.shape} do not match; '
            'expected (H, W, 3) RGB and (H, W)'
        )
    if prediction.shape != semantic.shape:
        size = (semantic.shape[1], semantic.shape[0])
        prediction = cv2.resize(prediction, size, interpolation=cv2.INTER_NEAREST_EXACT)
    static = panoptic[..., 0] == STATIC_OBSTACLE
    found, missed, near = _dynamic_obstacles(prediction, panoptic, segments, static)
    water = semantic == WATER
    # cv2 erodes as if water went on beyond the border: the border itself does not erode.
    open_water = cv2.erode(water.astype(np.uint8), np.ones((_WATER_EROSION,) * 2, np.uint8)) > 0
    false = open_water & (prediction == OBSTACLE)
    intersections, unions = _overlaps(prediction, semantic)
    return LarsFrame(
        intersections=intersections,
        unions=unions,
        found=found,
        missed=missed,
        alarms=int(cv2.connectedComponents(false.astype(np.uint8), connectivity=8)[0]) - 1,
        **_water_edge(prediction, semantic, static, near),
        water_alarms=int(np.count_nonzero(false)),
        water_pixels=int(np.count_nonzero(open_water)),
    )


def _water_edge(
    prediction: UInt8Array, semantic: UInt8Array, static: BoolArray, near: BoolArray
) -> dict[str, int]:
    """Return the counts of the water edge, `near` dynamic obstacles left out."""
    water = semantic == WATER
    edge = _dilated(static, _EDGE_DILATION) & _dilated(water, _EDGE_DILATION)
    edge &= (static | water) & ~near
    right, pixels = edge & (prediction == semantic), int(np.count_nonzero(edge))
    on = [int(np.count_nonzero(right & (semantic == label))) for label in (OBSTACLE, WATER)]
    return {
        'edge_correct': int(np.count_nonzero(right)),
        'edge_pixels': pixels,
        'edge_intersection': min(on),
        'edge_union': pixels - max(on),
    }


def _overlaps(prediction: UInt8Array, semantic: UInt8Array) -> tuple[Int64Array, Int64Array]:
    """Return intersections and unions int64 (3,), ignored pixels left out."""
    intersections, unions = np.zeros(3, np.int64), np.zeros(3, np.int64)
    for label in (OBSTACLE, WATER, SKY):
        true = semantic == label
        predicted = (prediction == label) & (semantic != IGNORED)
        intersections[label] = np.count_nonzero(true & predicted)
        unions[label] = np.count_nonzero(true | predicted)
    return intersections, unions


def _dynamic_obstacles(
    prediction: UInt8Array, panoptic: UInt8Array, segments: Mapping[int, int], static: BoolArray
) -> tuple[int, int, BoolArray]:
    """
    Return how many dynamic obstacles are found and missed, and the pixels near any of them.

    Found: more than 0.7 of the segment's area in predicted pixels of the segment dilated by 7 x 7,
    those of static obstacles not counted.
    """
    numbers = panoptic.astype(np.int32) @ np.array([1, 256, 65536], np.int32)
    predicted = (prediction == OBSTACLE) & ~static
    near = np.zeros(static.shape, bool)
    found = missed = 0
    for number, category in segments.items():
        if category not in DYNAMIC_OBSTACLES:
            continue
        segment = numbers == number
        area = int(np.count_nonzero(segment))
        around = _around(segment, _SEGMENT_DILATION // 2)
        grown = _dilated(segment[around], _SEGMENT_DILATION)
        near[around] |= grown
        hit = int(np.count_nonzero(predicted[around] & grown)) > COVERED * area
        found, missed = found + hit, missed + (not hit)
    return found, missed, near


def _around(mask: BoolArray, margin: int) -> tuple[slice, slice]:
    """Return the bounding box of a mask with a margin, within the image."""
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    rows = slice(max(y - margin, 0), y + height + margin)
    return rows, slice(max(x - margin, 0), x + width + margin)


def _dilated(mask: BoolArray, size: int) -> BoolArray:
    grown: BoolArray = cv2.dilate(mask.astype(np.uint8), np.ones((size, size), np.uint8)) > 0
    return grown


def lars_metrics(frames: Sequence[LarsFrame]) -> dict[str, float]:
    """
    Return the metrics of a set of frames by name, in [0, 1].

    quality: Q = mean_iou x f1. edge_accuracy: mu. precision, recall, f1: of dynamic obstacles, 0
    (not nan) where nothing is there to be counted, as the evaluator has it. mean_iou: over
    obstacle, water, sky; nan when a class is neither labelled nor predicted in the whole set.
    iou_obstacle, iou_water, iou_sky. false_positive_rate: FPr. edge_iou: boundary IoU. Both and mu
    are nan without such pixels.
    """
    samples = lars_samples(frames, np.ones((1, len(frames))))
    return {name: float(values[0]) for name, values in samples.items()}


def lars_samples(frames: Sequence[LarsFrame], weights: Float64Array) -> dict[str, Float64Array]:
    """Return lars_metrics of R multisets, (R,) each; weights: float64 (R, n)."""
    if not frames:
        raise DataError('no frames: LaRS metrics need at least one')
    total = {
        field.name: weights @ np.array([getattr(f, field.name) for f in frames], np.float64)
        for field in fields(LarsFrame)
    }
    with np.errstate(invalid='ignore', divide='ignore'):
        iou = total['intersections'] / total['unions']
        edge_accuracy = total['edge_correct'] / total['edge_pixels']
        edge_iou = total['edge_intersection'] / total['edge_union']
        false_positive_rate = total['water_alarms'] / total['water_pixels']
    found = total['found']
    f1 = _or_zero(2 * found, 2 * found + total['missed'] + total['alarms'])
    return {
        'quality': iou.mean(axis=1) * f1,
        'edge_accuracy': edge_accuracy,
        'precision': _or_zero(found, found + total['alarms']),
        'recall': _or_zero(found, found + total['missed']),
        'f1': f1,
        'mean_iou': iou.mean(axis=1),
        'iou_obstacle': iou[:, OBSTACLE],
        'iou_water': iou[:, WATER],
        'iou_sky': iou[:, SKY],
        'false_positive_rate': false_positive_rate,
        'edge_iou': edge_iou,
    }


def _or_zero(part: Float64Array, whole: Float64Array) -> Float64Array:
    return np.where(whole > 0, part / np.maximum(whole, 1), 0.0)


def with_obstacles(labels: UInt8Array, flagged: BoolArray) -> UInt8Array:
    """Return the arg-max labels with the flagged pixels made OBSTACLE, as PixOOD is scored."""
    return np.where(flagged, OBSTACLE, labels).astype(np.uint8)


def coloured(prediction: UInt8Array) -> UInt8Array:
    """Return the RGB image (H, W, 3) that the server takes; other labels become black."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(COLOURS)] = COLOURS
    return table[prediction]
