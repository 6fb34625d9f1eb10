# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Obstacles and the ground's edge of one detection, as seen from a known viewpoint."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ood_perception.errors import CalibrationError
from ood_perception.image.geometry import Points
from ood_perception.ranging.attitude import Attitude, Mounting, dip, up_from_horizon
from ood_perception.ranging.camera_model import CameraModel
from ood_perception.ranging.ground import (
    ContactPoints,
    Edge,
    EdgeKind,
    Scene,
    contact_points_of,
    edge_of,
    ground_of,
)
from ood_perception.ranging.ground_plane import Places, Status, Viewpoint, directions, locate
from ood_perception.ranging.lens import Vectors
from ood_perception.types import BoolArray, Detection, UInt8Array

# A horizon needs as many columns, over as much of the width.
_LEAST_COLUMNS = 8
_LEAST_SPREAD = 0.3


@dataclass(frozen=True)
class RangedDetections:
    """
    All that one detection says about places.

    contacts, edge_line: the same in the image.
    obstacles: where the obstacles meet the ground, in the order of detection.obstacles; left,
        right: bearings of their ends, radians, float64 (N,).
    borders: the obstacles' lower borders, column by column. edge: the ground's far edge likewise.
    border_spans, edge_spans: float64 (M, 2), bearings of each column's right and left end.
    """

    contact_points: ContactPoints
    obstacles: Places
    left: Vectors
    right: Vectors
    borders: Places
    border_spans: Points
    edge_line: Edge
    edge: Places
    edge_spans: Points


def ranged_detections(detection: Detection, scene: Scene, view: Viewpoint) -> RangedDetections:
    """Return the places of the detection's obstacles and of the ground's edge."""
    ground = ground_of(detection, scene)
    contact_points, edge = contact_points_of(detection, ground), edge_of(detection, ground)
    lines = (contact_points.outline, edge.line)
    # One call each: the cost is that of the calls, not of the points.
    spots = [contact_points.points, *(_middles(line) for line in lines)]
    whole = locate(view, np.concatenate(spots))
    cuts = (
        contact_points.cut_off,
        contact_points.outline_cut_off,
        edge.kind == EdgeKind.NO_GROUND,
    )
    places = [_bounded(p, cut) for p, cut in zip(_parts(whole, spots), cuts, strict=True)]
    sides = [contact_points.left, contact_points.right]
    sides += [line[:, columns] for line in lines for columns in ([0, 2], [1, 2])]
    bearings, _ = directions(view, np.concatenate(sides))
    left, right, *ends = np.split(bearings, np.cumsum([len(side) for side in sides])[:-1])
    return RangedDetections(
        contact_points=contact_points,
        obstacles=places[0],
        left=left,
        right=right,
        borders=places[1],
        border_spans=np.column_stack([ends[1], ends[0]]),
        edge_line=edge,
        edge=places[2],
        edge_spans=np.column_stack([ends[3], ends[2]]),
    )


def attitude_from_edge(
    detection: Detection, scene: Scene, camera: CameraModel, place: Mounting, height: float
) -> Attitude:
    """
    Return the attitude by the ground's far edge where it is open: there it is the horizon.

    height: of the camera above the plane, about, in metres. Sigma is the edge's scatter: it knows
    nothing of an edge that lies wrong as a whole. Raises CalibrationError where too little open
    edge is seen.
    """
    edge = edge_of(detection, ground_of(detection, scene))
    line = edge.line[edge.kind == EdgeKind.OPEN]
    line = line[line[:, 2] > 0.5]  # where the ground leaves the image there is no horizon
    width = detection.geometry.camera_width
    if len(line) < _LEAST_COLUMNS or np.ptp(line[:, 0]) < _LEAST_SPREAD * width:
        raise CalibrationError(
            f'the open edge of the ground is seen in {len(line)} of {len(edge.kind)} columns: too '
            f'little for a horizon, it must reach over {_LEAST_SPREAD:.0%} of the width'
        )
    rays = camera.rays(_middles(line)) @ place.rotation.T
    return up_from_horizon(rays[np.isfinite(rays).all(axis=1)], dip(height))


def wide_enough(detection: Detection, scene: Scene, view: Viewpoint, minimum: float) -> BoolArray:
    """
    Return which obstacles may be at least `minimum` metres wide, bool (N,).

    Only what is narrower with two standard deviations of its distance to spare, and whole, is
    not: an obstacle without a distance, or one that is cut off, is wide enough.
    """
    contact_points = contact_points_of(detection, ground_of(detection, scene))
    places = locate(view, contact_points.points)
    bearings, _ = directions(view, np.concatenate([contact_points.left, contact_points.right]))
    left, right = np.split(bearings, 2)
    widest = 2 * np.tan(np.remainder(left - right, 2 * np.pi) / 2)
    widest *= places.distance + 2 * places.distance_sigma
    return ~(widest < minimum) | contact_points.cut_off


def barriers(ranged: RangedDetections) -> tuple[Points, Vectors, UInt8Array]:
    """
    Return the points of the plane that a path must not cross, with a known distance alone.

    Returns float64 (K, 3) in base coordinates, the distances' sigmas in metres, (K,), and what
    each is, uint8 (K,): 0 an obstacle on open ground, 1 one at the ground's end, 2 the ground's
    blocked end itself.
    """
    owners = ranged.contact_points.outline[:, 3].astype(np.intp)
    kinds = ranged.contact_points.at_edge.astype(np.uint8)[owners]
    ends = np.isin(ranged.edge_line.kind, (EdgeKind.BLOCKED, EdgeKind.NO_GROUND))
    kind = np.concatenate([kinds, np.full(np.count_nonzero(ends), 2, np.uint8)])
    points = np.concatenate([ranged.borders.points, ranged.edge.points[ends]])
    sigma = np.concatenate([ranged.borders.distance_sigma, ranged.edge.distance_sigma[ends]])
    held = np.isfinite(points).all(axis=1)
    return points[held], sigma[held], kind[held]


def nearest_by_bearing(ranged: RangedDetections, view: Viewpoint, count: int) -> Vectors:
    """
    Return the range of the nearest obstacle or blocked edge per bearing, metres, float64 (count,).

    Bin i is centred on -pi + i 2 pi / count; bearing and range are those from the base frame's
    origin in the level plane. Infinity: the ground is free to its open end. NaN: not looked at, or
    something stands there that is not announced, or whose distance is not known.
    """
    ends = np.isin(ranged.edge_line.kind, (EdgeKind.BLOCKED, EdgeKind.NO_GROUND))
    nearest, seen, unknown = np.full(count, np.inf), np.zeros(count, bool), np.zeros(count, bool)
    hidden, all_of = ranged.edge_line.kind == EdgeKind.HIDDEN, len(ranged.border_spans)
    for places, spans, stops, hides in (
        (ranged.edge, ranged.edge_spans, ends, hidden),
        (
            ranged.borders,
            ranged.border_spans,
            *np.array([[True], [False]]).repeat(all_of, 1),
        ),
    ):
        level = places.points @ view.level_in_base.T
        ranges = np.hypot(level[:, 0], level[:, 1])
        known = np.isfinite(ranges)
        # As seen from the base's origin, where the point is known; else as from the camera.
        shift = np.where(known, np.arctan2(level[:, 1], level[:, 0]) - places.bearing, 0.0)
        bins, column = _bins(spans + shift[:, None], count)
        seen[bins] = True
        unknown[bins[(hides | (stops & ~known))[column]]] = True
        hit = (stops & known)[column]
        np.minimum.at(nearest, bins[hit], ranges[column[hit]])
    return np.where(~seen | (unknown & np.isinf(nearest)), np.nan, nearest)


Indices = npt.NDArray[np.intp]


def _bins(spans: Points, count: int) -> tuple[Indices, Indices]:
    """
    Return the bins that arcs touch, and which arc each of them is from; NaN arcs touch none.

    spans: float64 (N, 2), arcs counter-clockwise from start to end, radians.
    """
    owners = np.flatnonzero(np.isfinite(spans).all(axis=1))
    places = np.floor((spans[owners] + np.pi) * (count / (2 * np.pi)) + 0.5).astype(np.intp)
    first, last = places[:, 0], places[:, 1]
    # An arc over the seam behind the base comes in the wrong order: a column is narrower than pi.
    last = np.where(last < first - count // 2, last + count, np.maximum(first, last))
    lengths = last - first + 1
    steps = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return (np.repeat(first, lengths) + steps) % count, np.repeat(owners, lengths)


def _bounded(places: Places, cut_off: BoolArray) -> Places:
    """Return the places with the status AT_MOST for known ones that are cut off."""
    status = places.status.copy()
    status[cut_off & (status == Status.KNOWN)] = Status.AT_MOST
    return dataclasses.replace(places, status=status)


def _middles(spans: Points) -> Points:
    """Return the middles of left, right, y, ...: (N, 2)."""
    return np.column_stack([(spans[:, 0] + spans[:, 1]) / 2, spans[:, 2]])


def _parts(places: Places, groups: list[Points]) -> list[Places]:
    """Return the places of each group of points, which were located in one go."""
    parts, start = [], 0
    for group in groups:
        piece = slice(start, start + len(group))
        start = piece.stop
        values = {f.name: getattr(places, f.name)[piece] for f in dataclasses.fields(places)}
        parts.append(Places(**values))
    return parts
