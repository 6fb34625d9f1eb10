# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The region of interest against closed forms and its own invariants."""

import numpy as np
import pytest

from ood_perception.errors import ConfigError
from ood_perception.image.geometry import geometry_for, grid_valid
from ood_perception.postprocess import roi
from ood_perception.postprocess.roi_files import RegionMask

GRID = (54, 96)
WIDE = geometry_for((1080, 1920), (378, 672))


def whole(size=GRID):
    return np.ones(size, dtype=bool)


def test_hull_of_a_notched_road_closes_the_notch():
    road = np.zeros(GRID, dtype=bool)
    road[20:50, 10:80] = True
    road[20:35, 30:40] = False  # something stands on the road
    hull = roi.ground_hull(road)
    expected = np.zeros(GRID, dtype=bool)
    expected[20:50, 10:80] = True
    np.testing.assert_array_equal(hull, expected)


@pytest.mark.parametrize('seed', range(10))
def test_hull_holds_the_ground_and_is_convex(seed):
    rng = np.random.default_rng(seed)
    ground = np.zeros(GRID, dtype=bool)
    for _ in range(4):
        y, x = rng.integers(0, 40), rng.integers(0, 70)
        ground[y : y + rng.integers(5, 14), x : x + rng.integers(5, 26)] = True
    hull = roi.ground_hull(ground)
    assert hull[ground].all()
    # Convex along every row and column: one run of cells.
    for line in (*hull, *hull.T):
        assert np.count_nonzero(np.diff(np.pad(line, 1).astype(int))) <= 2
    inside = np.argwhere(hull)
    pairs = inside[rng.integers(0, len(inside), (200, 2))]
    middles = pairs.sum(axis=1)
    exact = middles[(middles % 2 == 0).all(axis=1)] // 2
    grown = np.pad(hull, 1)
    near = np.lib.stride_tricks.sliding_window_view(grown, (3, 3)).any(axis=(2, 3))
    assert near[tuple(exact.T)].all()  # rasterised, so to within a cell


def test_a_stray_speck_does_not_stretch_the_hull():
    road = np.zeros(GRID, dtype=bool)
    road[30:, 20:70] = True
    clean = roi.ground_hull(road)
    road[2, 90] = True
    np.testing.assert_array_equal(roi.ground_hull(road), clean)


def test_the_far_end_behind_an_obstacle_stays():
    road = np.zeros(GRID, dtype=bool)
    road[30:, 20:70] = True
    road[10:14, 40:50] = True  # 40 cells beside 1200, cut off by what lies between
    assert roi.ground_hull(road)[20, 45]


@pytest.mark.parametrize('cells', [[], [(5, 7)], [(5, 7), (5, 8)], [(5, 7), (6, 8)]])
def test_degenerate_ground(cells):
    ground = np.zeros(GRID, dtype=bool)
    for cell in cells:
        ground[cell] = True
    np.testing.assert_array_equal(roi.ground_hull(ground), ground)


def test_ground_mode_takes_the_named_classes_alone():
    labels = np.zeros(GRID, dtype=np.uint8)
    labels[30:, 20:70] = 3
    labels[30:, 70:80] = 4
    scored = roi.scored_region('ground', labels, whole(), roi.class_table([3]))
    np.testing.assert_array_equal(scored, labels == 3)
    scored = roi.scored_region('ground', labels, whole(), roi.class_table([3, 4]))
    np.testing.assert_array_equal(scored, labels > 0)


def test_labels_mode_keeps_every_cell_of_the_classes():
    labels = np.random.default_rng(0).integers(0, 11, GRID).astype(np.uint8)
    scored = roi.scored_region('labels', labels, whole(), roi.class_table([3, 4]))
    np.testing.assert_array_equal(scored, np.isin(labels, [3, 4]))


@pytest.mark.parametrize('mode', roi.MODES)
@pytest.mark.parametrize('policy', ['fit', 'fill'])
def test_nothing_is_scored_outside_image_or_inside_the_bonnet(mode, policy):
    bonnet = ((0.2, 1.0), (0.2, 0.7), (0.8, 0.7), (0.8, 1.0))
    settings = roi.RoiSettings(
        mode,
        polygons={'front': (((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)),)},
        ignore_polygons={'': (bonnet,)},
        masks={'': RegionMask('all', np.ones((72, 96), bool))},
    )
    geometry = geometry_for((720, 960), (378, 672), policy)
    fixed = roi.fixed_region(settings, 'front', geometry, GRID)
    valid = grid_valid(geometry, GRID)
    labels = np.full(GRID, 3, dtype=np.uint8)
    scored = roi.scored_region(mode, labels, fixed, roi.class_table([3]))
    hidden = roi.polygon_cells([bonnet], geometry, GRID)
    assert hidden.any()
    np.testing.assert_array_equal(scored, valid & ~hidden)


def test_polygons_belong_to_their_camera():
    left = ((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0))
    right = ((0.5, 0.0), (1.0, 0.0), (1.0, 1.0), (0.5, 1.0))
    settings = roi.RoiSettings('polygon', polygons={'front': (left,), 'rear': (right,)})
    front = roi.fixed_region(settings, 'front', WIDE, GRID)
    rear = roi.fixed_region(settings, 'rear', WIDE, GRID)
    assert front[:, :48].all()
    assert not front[:, 48:].any()
    np.testing.assert_array_equal(front, ~rear)
    assert roi.fixed_region(settings, 'side', WIDE, GRID).all()
    both = roi.RoiSettings('polygon', polygons={'': (left,), 'rear': (right,)})
    assert roi.fixed_region(both, 'rear', WIDE, GRID).all()
    np.testing.assert_array_equal(roi.fixed_region(both, '', WIDE, GRID), front)


@pytest.mark.parametrize('seed', range(5))
def test_polygon_cells_match_half_planes(seed):
    # A triangle is the meet of three half-planes.
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 1, (3, 2))
    got = roi.polygon_cells([tuple(map(tuple, corners))], WIDE, GRID)
    x = (np.arange(GRID[1]) + 0.5) / GRID[1]
    y = (np.arange(GRID[0]) + 0.5) / GRID[0]
    sides = []
    for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        sides.append((b[0] - a[0]) * (y[:, None] - a[1]) - (b[1] - a[1]) * (x[None, :] - a[0]))
    stacked = np.stack(sides)
    np.testing.assert_array_equal(got, (stacked > 0).all(axis=0) | (stacked < 0).all(axis=0))


SQUARE = geometry_for((64, 64), (64, 64))  # a cell's centre is exact in floats
CENTRE = 32.5 / 64


def test_a_corner_level_with_a_cells_centre_counts_once():
    diamond = ((0.5, 0.125), (0.875, CENTRE), (0.5, 0.875), (0.125, CENTRE))
    for corners in (diamond, diamond[::-1]):
        row = roi.polygon_cells([corners], SQUARE, (64, 64))[32]
        np.testing.assert_array_equal(np.flatnonzero(row), np.arange(8, 56))


def test_a_notch_is_outside_and_both_arms_beside_it_are_inside():
    fork = ((0, 0), (0.25, 0), (0.25, 0.5), (0.75, 0.5), (0.75, 0), (1, 0), (1, 1), (0, 1))
    expected = whole((64, 64))
    expected[:32, 16:48] = False
    np.testing.assert_array_equal(roi.polygon_cells([fork], SQUARE, (64, 64)), expected)


def test_small_patches_beside_small_ones_stay_and_the_background_does_not_come():
    ground = np.zeros(GRID, dtype=bool)
    ground[5, 7] = ground[20:30, 40:50] = True  # 1 beside 100 cells
    np.testing.assert_array_equal(roi.large_patches(ground), ground)
    ground[31, 40:50] = ground[30, 45] = True  # 1 beside 111
    np.testing.assert_array_equal(np.argwhere(ground & ~roi.large_patches(ground)), [[5, 7]])


def test_every_label_has_its_place_in_the_table():
    labels = np.array([[0, 3, 255]], dtype=np.uint8)
    chosen = roi.class_table([255])
    assert chosen.shape == (256,)
    scored = roi.scored_region('labels', labels, whole((1, 3)), chosen)
    assert scored.tolist() == [[False, False, True]]


def test_a_mask_counts_in_its_mode_and_for_its_camera_alone():
    half = RegionMask('half', np.repeat([[True, False]], 2, axis=0))
    narrow = geometry_for((64, 64), (64, 64))
    settings = roi.RoiSettings('mask', masks={'front': half})
    assert roi.fixed_region(settings, 'front', narrow, (64, 64)).sum() == 64 * 32
    assert roi.fixed_region(settings, 'rear', narrow, (64, 64)).all()
    unused = roi.RoiSettings('none', masks={'': half})
    assert roi.fixed_region(unused, 'front', narrow, (64, 64)).all()


def test_bridge_and_margin_go_from_nought_to_one():
    for value in (0.0, 1.0):
        roi.RoiSettings(bridge=value, margin=value)
    for wrong in ({'bridge': -0.1}, {'bridge': 1.1}, {'margin': -0.1}, {'margin': 1.1}):
        with pytest.raises(ConfigError, match=r'0 to 1'):
            roi.RoiSettings(**wrong)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'mode': 'road'}, r"'road'.*ground, polygon, .*none"),
        ({'mode': 'polygon'}, r'no polygon is given'),
        ({'ignore_polygons': {'': (((0.0, 0.0), (1.0, 1.0)),)}}, r'three points'),
        ({'ignore_polygons': {'': (((0.0, 0.0), (1.0, 1.0), (1.0, 7.0)),)}}, r'from 0 to 1'),
        ({'polygons': {'': (((0.0, 0.0), (1.0, float('nan')), (1, 1)),)}}, r'from 0 to 1'),
    ],
)
def test_wrong_settings_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        roi.RoiSettings(**arguments)


@pytest.mark.parametrize('mode', ['ground', 'labels', 'below_edge'])
def test_a_bundle_without_ground_classes_is_scored_whole(mode):
    labels = np.full(GRID, 3, dtype=np.uint8)
    fixed = whole()
    fixed[:5] = False
    scored = roi.scored_region(mode, labels, fixed, roi.class_table([]))
    np.testing.assert_array_equal(scored, fixed)
