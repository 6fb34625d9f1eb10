# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""From surprisal to mask to obstacles, on the score grid; and from surprisal to score."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from ood_perception.errors import ConfigError
from ood_perception.image.geometry import Points, camera_area_of_cell, grid_to_camera
from ood_perception.types import BoolArray, Detection, Float32Array, Geometry, Obstacle

_LN10 = math.log(10.0)


@dataclass(frozen=True)
class Components:
    """
    The connected components (8 neighbours) of a mask.

    patches: int32 (gh, gw), 0 = background, 1 ... n = component.
    boxes: int (n, 4): left, top, width, height in cells. areas: int (n,) in cells.
    peaks: float32 (n,), the largest surprisal of each.
    """

    patches: npt.NDArray[np.int32]
    boxes: npt.NDArray[np.int32]
    areas: npt.NDArray[np.int32]
    peaks: Float32Array


def surprisal_threshold(rate: float) -> float:
    """Return the surprisal from which pixels are flagged: -log10(rate), rate in (0, 1)."""
    if not 0.0 < rate < 1.0:
        raise ConfigError(f'false alarm rate {rate:g}: give a number inside (0, 1), such as 0.01')
    return -math.log10(rate)


def score_from_surprisal(surprisal: Float32Array, out: Float32Array | None = None) -> Float32Array:
    """
    Return score = 1 - 10^-surprisal, float32 in [0, 1], of the shape given.

    out: contiguous memory for the result, surprisal's shape. Made last, for messages and people:
    float32 cannot rank scores near 1. OpenCV's exponential is exact to 3e-7 here and as fast on
    every CPU; numpy's expm1 is ten times slower where AVX512 is missing.
    """
    score = np.multiply(surprisal, np.float32(-_LN10), out=out)
    rows: Float32Array = score if np.ndim(score) == 2 else np.reshape(score, (1, -1))
    cv2.exp(rows, rows)
    np.subtract(np.float32(1), rows, out=rows)
    return rows.reshape(np.shape(surprisal))


def make_mask(
    surprisal: Float32Array,
    scored: BoolArray,
    rate: float,
    *,
    seed_rate: float = 0.0,
    minimum_area: float = 0.0,
    cell_area: float = 1.0,
    named: BoolArray | None = None,
) -> tuple[BoolArray, Components]:
    """
    Flag the scored cells that are anomalous at the rate; what follows only removes cells.

    surprisal: float32 (gh, gw). scored: bool (gh, gw). rate: target false-alarm rate.
    seed_rate: a component stays only if one cell of it is flagged at this stricter rate, too, or
        is named; 0 = no such test. minimum_area: smallest component in camera pixels.
    cell_area: camera pixels per cell.
    named: bool (gh, gw), cells that are obstacles by their label, however usual they look.

    Returns the mask, bool (gh, gw), a subset of scored & (named | surprisal >= -log10(rate)), and
    its components.
    """
    mask = surprisal >= surprisal_threshold(rate)
    if named is not None:
        mask |= named
    mask &= scored
    components = find_components(mask, surprisal)
    keep = components.areas * cell_area >= minimum_area
    if seed_rate > 0.0:
        seeded = components.peaks >= surprisal_threshold(seed_rate)
        if named is not None:
            holding = np.zeros(len(components.areas) + 1, dtype=bool)
            holding[components.patches[named]] = True
            seeded |= holding[1:]
        keep &= seeded
    if keep.all():
        return mask, components
    return keep_components(components, keep)


def find_components(mask: BoolArray, surprisal: Float32Array) -> Components:
    """Return the components of a mask, bool (gh, gw), with their sizes and largest surprisals."""
    count, patches, stats, _ = cv2.connectedComponentsWithStats(
        mask.view(np.uint8), connectivity=8, ltype=cv2.CV_32S
    )
    peaks = np.zeros(count, dtype=np.float32)
    flagged = np.flatnonzero(mask)
    np.maximum.at(peaks, patches.reshape(-1)[flagged], surprisal.reshape(-1)[flagged])
    return Components(patches, stats[1:, :4], stats[1:, cv2.CC_STAT_AREA], peaks[1:])


def obstacles_of(components: Components, geometry: Geometry) -> tuple[Obstacle, ...]:
    """Return the components as obstacles in camera pixels, largest surprisal first."""
    size = (components.patches.shape[0], components.patches.shape[1])
    low, high = _corners(components, geometry)
    areas = components.areas * camera_area_of_cell(geometry, size)
    values = np.column_stack([low, high - low, areas, components.peaks])
    order = obstacle_order(components, geometry)
    return tuple(Obstacle(*row) for row in values[order].tolist())


def obstacle_order(components: Components, geometry: Geometry) -> npt.NDArray[np.intp]:
    """Return which component (0 ... n - 1) each obstacle of obstacles_of is, intp (n,)."""
    low, _ = _corners(components, geometry)
    return np.lexsort((low[:, 0], low[:, 1], -components.peaks))


def keep_components(components: Components, keep: BoolArray) -> tuple[BoolArray, Components]:
    """Return the mask, bool (gh, gw), and the components that `keep`, bool (n,), names."""
    numbers = np.zeros(keep.size + 1, dtype=np.int32)
    numbers[1:][keep] = np.arange(1, np.count_nonzero(keep) + 1)
    patches = numbers[components.patches]
    boxes, areas = components.boxes[keep], components.areas[keep]
    return patches > 0, Components(patches, boxes, areas, components.peaks[keep])


def component_numbers(detection: Detection, components: Components) -> npt.NDArray[np.intp]:
    """Return which component each obstacle of the detection is, intp (N,)."""
    order = obstacle_order(components, detection.geometry)
    everything = obstacles_of(components, detection.geometry)
    place = dict(zip(everything, order, strict=True))
    return np.array([place[obstacle] for obstacle in detection.obstacles], dtype=np.intp)


def only(detection: Detection, keep: BoolArray) -> Detection:
    """Return the detection with the obstacles that `keep`, bool (N,), names, in mask and list."""
    if keep.all():
        return detection
    components = find_components(detection.mask, detection.surprisal)
    kept = np.zeros(len(components.areas), dtype=bool)
    kept[component_numbers(detection, components)] = keep
    mask, _ = keep_components(components, kept)
    obstacles = tuple(o for o, stays in zip(detection.obstacles, keep, strict=True) if stays)
    return replace(detection, mask=mask, obstacles=obstacles)


def _corners(components: Components, geometry: Geometry) -> tuple[Points, Points]:
    """Return the corners of the components' boxes inside the camera image, (n, 2) each."""
    size = (components.patches.shape[0], components.patches.shape[1])
    image = (geometry.camera_width, geometry.camera_height)
    edges = components.boxes.astype(np.float64)
    low = np.clip(grid_to_camera(edges[:, :2], geometry, size), 0, image)
    high = np.clip(grid_to_camera(edges[:, :2] + edges[:, 2:], geometry, size), 0, image)
    return low, high
