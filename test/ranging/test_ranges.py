# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Contacts, edges and ranges of painted scenes against geometry done by hand."""

import dataclasses
import math

import numpy as np
import pytest
from ranged_scenes import COLUMNS, EDGE, FAR, GROUND, ROWS, SCENE, SKY, THING, detection, view

from ood_perception.postprocess.mask import only
from ood_perception.postprocess.roi import below_line, class_table, scored_region
from ood_perception.ranging import ground as contact_points
from ood_perception.ranging import ground as ground
from ood_perception.ranging.attitude import level, mounting
from ood_perception.ranging.ground import EdgeKind, Scene, ground_of
from ood_perception.ranging.ground_plane import Status, Viewpoint
from ood_perception.ranging.ranges import (
    barriers,
    nearest_by_bearing,
    ranged_detections,
    wide_enough,
)


def contact_points_of(seen, scene):
    return contact_points.contact_points_of(seen, ground_of(seen, scene))


def edge_of(seen, scene):
    return ground.edge_of(seen, ground_of(seen, scene))


def buoy(labels):
    labels[20:26, 30:34] = THING


def shore(labels):
    labels[10:20, :40] = THING


def test_contact_is_the_middle_of_the_lowest_border():
    def paint(labels):
        buoy(labels)
        labels[26, 31:33] = THING

    found = contact_points_of(detection(paint), SCENE)
    np.testing.assert_allclose(found.points, [[320.0, 270.0]])
    np.testing.assert_allclose(found.left, [[300.0, 270.0]])
    np.testing.assert_allclose(found.right, [[340.0, 270.0]])
    expected = [[300, 310, 260, 0], [310, 320, 270, 0], [320, 330, 270, 0], [330, 340, 260, 0]]
    np.testing.assert_allclose(found.outline, expected)
    assert not found.cut_off.any()
    assert not found.at_edge.any()


def test_announced_obstacles_alone_count_and_keep_their_order():
    def paint(labels):
        buoy(labels)
        labels[30:33, 5:8] = THING

    both, second = detection(paint), detection(paint, announced=slice(1, 2))
    found = contact_points_of(both, SCENE).points
    assert found.shape == (2, 2)
    np.testing.assert_array_equal(contact_points_of(second, SCENE).points, found[1:])
    assert contact_points_of(detection(), SCENE).points.shape == (0, 2)


@pytest.mark.parametrize('hidden_by', ['image', 'bonnet'])
def test_a_thing_that_goes_on_below_the_view_is_cut_off(hidden_by):
    def paint(labels):
        labels[40:, 10:20] = THING
        buoy(labels)

    visible = np.ones((ROWS, COLUMNS), bool)
    if hidden_by == 'bonnet':
        visible[44:, 15:] = False
    seen = detection(paint, visible)
    ranged = ranged_detections(seen, SCENE, view())
    by_row = dict(zip(ranged.contact_points.points[:, 1], ranged.obstacles.status, strict=True))
    assert by_row == {260.0: Status.KNOWN, 480.0: Status.AT_MOST}
    assert np.isfinite(ranged.obstacles.distance).all()
    assert ranged.borders.status.max() == Status.AT_MOST


def test_what_touches_the_shore_is_told_from_what_stands_free():
    def paint(labels):
        shore(labels)
        labels[19:21, 10:14] = THING  # moored
        labels[24:28, 25:28] = THING  # before the shore, water all round
        labels[8:22, 50:56] = THING  # a ship that rises above the edge into the sky
        labels[19:30, 30:33] = THING  # a ship whose mast stands before the shore

    seen = detection(paint)
    found = contact_points_of(seen, SCENE)
    at_edge = {
        round(point[0]): bool(touches)
        for point, touches in zip(found.points, found.at_edge, strict=True)
    }
    assert at_edge == {120: True, 265: False, 315: False, 530: False}


def test_a_broad_thing_with_water_behind_it_stands_free():
    def paint(labels):
        labels[24:30, 10:50] = THING

    assert not contact_points_of(detection(paint), SCENE).at_edge.any()


def test_edge_kinds():
    def paint(labels):
        shore(labels)  # 40 columns: the ground's end
        labels[8:22, 50:56] = THING  # a ship before the open horizon
        labels[:, 0:2] = THING  # nothing but shore in these columns

    edge = edge_of(detection(paint), Scene(SCENE.ground, SCENE.obstacle, 0.2))
    kinds = [EdgeKind.BLOCKED] * 40 + [EdgeKind.OPEN] * 24
    kinds[50:56] = [EdgeKind.HIDDEN] * 6
    assert edge.kind.tolist()[2:] == kinds[2:]
    np.testing.assert_allclose(edge.line[2:40, 2], 200.0)
    np.testing.assert_allclose(edge.line[40:, 2], 160.0)
    np.testing.assert_allclose(edge.line[:, 0], np.arange(64) * 10.0)


def test_without_ground_the_edge_is_the_end_of_the_view():
    def paint(labels):
        labels[:] = THING

    visible = np.ones((ROWS, COLUMNS), bool)
    visible[45:] = False
    edge = edge_of(detection(paint, visible), SCENE)
    assert (edge.kind == EdgeKind.NO_GROUND).all()
    np.testing.assert_allclose(edge.line[:, 2], 450.0)


def test_a_known_horizon_ends_the_ground():
    seen = detection()
    line = np.array([[0.0, 200.0], [640.0, 200.0]])
    seen = dataclasses.replace(seen, frame=dataclasses.replace(seen.frame, horizon=line))
    np.testing.assert_allclose(edge_of(seen, SCENE).line[:, 2], 200.0)


def by_hand(x, y, pitch=0.1, height=2.0):
    """Bearing and distance of a pixel (edge coordinates) by trigonometry, no roll."""
    right, down = (x - 0.5 - 319.5) / 500, (y - 0.5 - 239.5) / 500
    forward = math.cos(pitch) - math.sin(pitch) * down
    fall = math.sin(pitch) + math.cos(pitch) * down
    return math.atan2(-right, forward), height * math.hypot(right, forward) / fall


def test_obstacles_have_the_places_of_their_contacts():
    ranged = ranged_detections(detection(buoy), SCENE, view())
    bearing, distance = by_hand(320.0, 260.0)
    assert ranged.obstacles.bearing[0] == pytest.approx(bearing, abs=1e-9)
    assert ranged.obstacles.distance[0] == pytest.approx(distance, rel=1e-9)
    assert ranged.left[0] == pytest.approx(by_hand(300.0, 260.0)[0], abs=1e-9)
    assert ranged.right[0] == pytest.approx(by_hand(340.0, 260.0)[0], abs=1e-9)
    point = ranged.obstacles.points[0] - (0.5, 0.2, 0.0)
    expected = distance * math.cos(bearing), distance * math.sin(bearing), 0.0
    np.testing.assert_allclose(point, expected, atol=1e-9)


def test_barriers_are_known_points_with_their_kind():
    def paint(labels):
        shore(labels)
        labels[20, 10:14] = THING  # moored
        labels[24:28, 50:54] = THING

    ranged = ranged_detections(detection(paint), SCENE, view(pitch=0.2))
    points, sigma, kind = barriers(ranged)
    assert sorted(set(kind.tolist())) == [0, 1, 2]
    assert np.count_nonzero(kind == 0) == 4
    assert np.count_nonzero(kind == 1) == 4
    assert np.count_nonzero(kind == 2) == 36
    assert np.isfinite(points).all()
    np.testing.assert_allclose(points[:, 2], 0.0, atol=1e-9)
    assert (sigma > 0).all()
    nothing = barriers(ranged_detections(detection(paint), SCENE, view(largest_ratio=0.0)))
    assert [len(part) for part in nothing] == [0, 0, 0]


def test_ranges_are_the_nearest_per_bearing():
    count = 720
    seen = view(pitch=0.2)
    ranged = ranged_detections(detection(buoy), SCENE, seen)
    ranges = nearest_by_bearing(ranged, seen, count)
    angles = -np.pi + np.arange(count) * 2 * np.pi / count
    hit = np.isfinite(ranges)
    edges = [
        math.atan2(0.2 + d * math.sin(b), 0.5 + d * math.cos(b))
        for b, d in (by_hand(x, 260.0, 0.2) for x in (300.0, 340.0))
    ]
    width = 2 * np.pi / count
    assert angles[hit].min() >= edges[1] - width
    assert angles[hit].max() <= edges[0] + width
    assert hit.sum() >= (edges[0] - edges[1]) / width - 1
    bearing, distance = by_hand(320.0, 260.0, 0.2)
    place = 0.5 + distance * math.cos(bearing), 0.2 + distance * math.sin(bearing)
    assert np.nanmin(ranges) == pytest.approx(math.hypot(*place), rel=0.01)
    free = np.isinf(ranges)
    assert free.sum() > 80, 'the rest of the view is free'
    assert np.isnan(ranges[np.abs(angles) > 1.0]).all(), 'behind and beside nothing is seen'


def test_what_has_no_distance_is_not_called_free():
    seen = view(pitch=0.2, largest_ratio=0.005)
    ranged = ranged_detections(detection(buoy), SCENE, seen)
    ranges = nearest_by_bearing(ranged, seen, 720)
    assert ranged.obstacles.status[0] == Status.NEAR_HORIZON
    ahead = int(round((ranged.obstacles.bearing[0] + np.pi) / (2 * np.pi / 720)))
    assert np.isnan(ranges[ahead])
    assert np.isinf(ranges).any()


def test_a_camera_that_looks_back_fills_bins_over_the_seam():
    seen = view(pitch=0.2)
    back = Viewpoint(
        seen.camera, mounting((0.0, 0.0, 2.0), (0.0, 0.2, math.pi)), level(0.001), **FAR
    )
    ranges = nearest_by_bearing(ranged_detections(detection(buoy), SCENE, back), back, 720)
    assert np.isfinite(ranges[0])
    assert np.isfinite(ranges[-1])
    assert np.isnan(ranges[180:540]).all()


def test_only_what_is_surely_narrow_and_whole_is_too_small():
    def paint(labels):
        labels[24:26, 4:6] = THING  # far and small
        labels[36:40, 30:34] = THING  # near and broad
        labels[46:, 60:62] = THING  # cut off by the image

    seen, above = detection(paint), view(pitch=0.2)
    ranged = ranged_detections(seen, SCENE, above)
    by_column = dict(zip(ranged.contact_points.points[:, 0], range(3), strict=True))
    small, cut = by_column[50.0], by_column[610.0]
    bearings = [by_hand(x, 260.0, 0.2)[0] for x in (40.0, 60.0)]
    width = 2 * math.tan((bearings[0] - bearings[1]) / 2) * ranged.obstacles.distance[small]
    assert wide_enough(seen, SCENE, above, width).all()
    sigma = ranged.obstacles.distance_sigma[small] / ranged.obstacles.distance[small]
    assert wide_enough(seen, SCENE, above, width * (1 + 1.99 * sigma))[small]
    keep = wide_enough(seen, SCENE, above, width * (1 + 2.01 * sigma))
    assert keep.tolist() == [index != small for index in range(3)]
    tiny = wide_enough(seen, SCENE, above, 1000.0)
    assert tiny.tolist() == [index == cut for index in range(3)], 'how broad it is, nobody knows'
    left = only(seen, np.arange(3) != small)
    assert [o.x for o in left.obstacles] == [o.x for o in seen.obstacles if o.x != 40.0]
    expected = seen.mask.copy()
    expected[24:26, 4:6] = False
    np.testing.assert_array_equal(left.mask, expected)
    unknown = view(pitch=0.2, largest_ratio=0.0)
    assert wide_enough(seen, SCENE, unknown, 1000.0).all(), 'without a distance there is no size'


def test_with_a_horizon_the_edge_is_bridged_aslant():
    """An image tilted by 0.2: a ship on the slope is filled up to the slope, not to its end."""
    slope = 10 + np.arange(COLUMNS) // 5

    def paint(labels):
        labels[:] = np.where(np.arange(ROWS)[:, None] >= slope, GROUND, SKY)
        labels[8:30, 20:40] = THING

    seen = detection(paint)
    line = np.array([[0.0, 95.0], [640.0, 95.0 + 128.0]])
    level = ground_of(seen, SCENE).behind
    known = dataclasses.replace(seen, frame=dataclasses.replace(seen.frame, horizon=line))
    aslant = ground_of(known, SCENE).behind
    assert level[39] == 18, 'the lower side'
    assert (level[20:40] == 18).all()
    assert np.abs(aslant - slope).max() <= 1
    below = below_line(line, seen.geometry, (ROWS, COLUMNS))
    region = scored_region(
        'below_edge', seen.labels, seen.visible, SCENE.ground, SCENE.bridge, below
    )
    np.testing.assert_array_equal(region.argmax(axis=0), np.maximum(aslant, below.argmax(axis=0)))


def test_columns_that_are_not_looked_at_are_no_shore():
    """Beside the image (padding) and behind a mast there is nothing to run into."""

    def paint(labels):
        buoy(labels)
        labels[8:22, 54:58] = THING  # reaches the side of what is seen, and is narrow

    visible = np.ones((ROWS, COLUMNS), bool)
    visible[:, :6] = visible[:, 58:] = visible[:, 20] = False
    seen = detection(paint, visible)
    assert seen.scored[EDGE:, 54:58].all()
    above = view(pitch=0.2)
    ranged = ranged_detections(seen, SCENE, above)
    kind = ranged.edge_line.kind
    hidden = np.flatnonzero(~visible.any(axis=0))
    assert (kind[hidden] == EdgeKind.NOT_SEEN).all()
    assert (kind[54:58] == EdgeKind.HIDDEN).all()
    assert np.isnan(ranged.edge.bearing[hidden]).all()
    points, _, kinds = barriers(ranged)
    assert len(points) == 8
    assert (kinds == 0).all()
    ranges = nearest_by_bearing(ranged, above, 720)
    place = round((by_hand(205.0, 160.0, 0.2)[0] + math.pi) / (2 * math.pi / 720))
    assert np.isnan(ranges[place])


def test_without_ground_classes_all_is_ground():
    nothing = Scene(class_table([]), class_table([]))
    seen = detection(buoy)
    ranged = ranged_detections(seen, nothing, view(pitch=0.5))
    assert (ranged.edge_line.kind == EdgeKind.OPEN).all()
    points, _, kind = barriers(ranged)
    assert len(points) == len(kind[kind == 0]) == 4
