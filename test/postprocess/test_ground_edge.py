# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The ground's far edge, the regions that end there, and obstacles by their label."""

import dataclasses

import numpy as np
import pytest
from bundles import COLORS, ODD, write_tiny_bundle

from ood_perception.bundle.store import load_bundle
from ood_perception.engines import create_engine
from ood_perception.engines.base import EngineOptions
from ood_perception.errors import ConfigError
from ood_perception.image.geometry import geometry_for
from ood_perception.pipeline import Pipeline
from ood_perception.postprocess import roi
from ood_perception.postprocess.mask import make_mask
from ood_perception.postprocess.roi import RoiSettings, below_edge, below_line, bridged, edge_rows
from ood_perception.settings import Settings
from ood_perception.types import Frame

GROUND, SKY, OBSTACLE = 1, 2, 0


def scene(height=30, width=60, edge=10):
    """Sky above row `edge`, ground from there on."""
    labels = np.full((height, width), SKY, np.uint8)
    labels[edge:] = GROUND
    return labels


def slow_closing(rows, half):
    """Grey closing by its definition, the line's ends repeated."""
    for choose in (max, min):
        line = np.pad(rows, half, mode='edge')
        rows = np.array([choose(line[i : i + 2 * half + 1]) for i in range(len(rows))])
    return rows


def test_edge_is_the_highest_ground_of_each_column():
    labels = scene()
    labels[:, 7] = OBSTACLE
    labels[12:15, 20] = OBSTACLE  # ground above and below it
    rows = edge_rows(labels == GROUND)
    assert rows[7] == 30
    assert rows[20] == 10
    assert set(np.delete(rows, 7)) == {10}


@pytest.mark.parametrize('seed', range(8))
def test_bridging_fills_up_to_the_lower_side(seed):
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, 30, 147)
    share = rng.uniform(0.0, 0.5)
    closed, side = slow_closing(rows, 1), max(1, int(share * 147))
    expected = [
        max(min(closed[: max(c + 1, side)]), min(closed[min(c, 147 - side) :])) for c in range(147)
    ]
    np.testing.assert_array_equal(bridged(rows, share), expected)


@pytest.mark.parametrize('length', [147, 400])
@pytest.mark.parametrize('share', [0.0, 0.1])
def test_bridging_of_slopes_and_steps(length, share):
    """A side's level is that of its last column; the closing is as wide as a fiftieth."""
    rng = np.random.default_rng(length)
    half, side = max(1, round(0.01 * length)), max(1, int(share * length))
    steps = np.repeat(rng.integers(0, 30, length // 5 + 1), 5)[:length]
    for rows in (np.arange(length), np.arange(length)[::-1], steps):
        closed = slow_closing(rows, half)
        expected = [
            max(min(closed[: max(c + 1, side)]), min(closed[min(c, length - side) :]))
            for c in range(length)
        ]
        np.testing.assert_array_equal(bridged(rows, share), expected)


def test_a_tilted_edge_is_bridged_along_the_horizon():
    horizon = np.arange(60) // 3
    rows = horizon + 4
    rows[20:40] += 7  # something stands on the ground
    np.testing.assert_array_equal(bridged(rows, 0.15, horizon), horizon + 4)


def test_columns_that_are_not_looked_at_stay_and_bridge_nothing():
    rows = np.full(60, 10)
    rows[25:35] = 25
    seen = np.ones(60, dtype=bool)
    seen[:25] = False
    rows[:25] = 3
    np.testing.assert_array_equal(bridged(rows, 0.15, seen=seen)[:25], rows[:25])
    assert (bridged(rows, 0.15, seen=seen)[25:] == 25)[:10].all(), 'no ground left of it is seen'
    assert (bridged(rows, 0.5, seen=seen)[25:] == 10).all()
    nothing = bridged(rows, 0.15, seen=np.zeros(60, dtype=bool))
    np.testing.assert_array_equal(nothing, rows)


def test_a_region_is_bridged_by_the_default_of_the_settings():
    labels = scene()
    labels[4:18, 52:] = OBSTACLE  # 8 of 60 columns at the side: below 0.15
    chosen, fixed = roi.class_table([GROUND]), np.ones(labels.shape, bool)
    region = roi.scored_region('below_edge', labels, fixed, chosen)
    assert RoiSettings().bridge == 0.15
    np.testing.assert_array_equal(region, np.arange(30)[:, None] >= np.full((1, 60), 10))


def test_a_centre_on_the_line_is_below_it():
    line = np.array([[0.0, 32.5], [64.0, 32.5]])
    cells = below_line(line, geometry_for((64, 64), (64, 64)), (64, 64))
    np.testing.assert_array_equal(cells[:, 0], np.arange(64) >= 32)


@pytest.mark.parametrize('width', [4, 20, 50])
def test_what_has_ground_on_both_sides_stands_on_it_however_wide(width):
    labels = scene()
    labels[4:18, 5 : 5 + width] = OBSTACLE  # rises above the edge into the sky
    assert (bridged(edge_rows(labels == GROUND), 0.15) == 10).all()


@pytest.mark.parametrize(('width', 'stays'), [(8, False), (9, True), (40, True)])
def test_what_reaches_the_side_ends_the_ground_if_it_is_wide(width, stays):
    labels = scene()
    labels[4:18, 60 - width :] = OBSTACLE
    rows = bridged(edge_rows(labels == GROUND), 0.15)
    assert (rows[60 - width :] == (18 if stays else 10)).all()
    assert (rows[: 60 - width] == 10).all()


def test_a_bay_and_a_slope_are_no_obstacles_and_a_spike_is_no_bay():
    rows = np.concatenate([np.full(20, 15), np.full(5, 6), np.arange(15, 25), np.full(12, 25)])
    np.testing.assert_array_equal(bridged(rows, 0.15), rows)
    spiked = rows.copy()
    spiked[10] = 2
    np.testing.assert_array_equal(bridged(spiked, 0.15), rows)


def test_region_ends_at_the_edge_and_holds_what_stands_before_it():
    labels = scene()
    labels[4:18, 20:26] = OBSTACLE
    labels[2, 50] = GROUND  # a speck in the sky
    chosen, fixed = roi.class_table([GROUND]), np.ones(labels.shape, bool)
    fixed[27:] = False  # the own bow
    region = roi.scored_region('below_edge', labels, fixed, chosen)
    expected = fixed.copy()
    expected[:10] = False
    np.testing.assert_array_equal(region, expected)
    assert not roi.scored_region('below_edge', scene(edge=30), fixed, chosen).any()


def test_a_margin_leaves_out_a_strip_below_the_edge_and_nothing_else():
    labels = scene()
    labels[4:18, 20:26] = OBSTACLE
    chosen, fixed = roi.class_table([GROUND]), np.ones(labels.shape, bool)
    fixed[27:] = fixed[12:16, 40:50] = False
    whole = roi.scored_region('below_edge', labels, fixed, chosen)
    cut = roi.scored_region('below_edge', labels, fixed, chosen, margin=0.1)
    expected = whole & (np.arange(30)[:, None] >= 13)
    np.testing.assert_array_equal(cut, expected)
    below = np.arange(30)[:, None] >= np.full((1, 60), 9)
    strip = roi.scored_region('below_horizon', labels, fixed, chosen, 0.15, below, 0.1)
    np.testing.assert_array_equal(strip, fixed & (np.arange(30)[:, None] >= 12))


def test_a_horizon_cuts_labels_above_it_off():
    labels = scene()
    labels[3:9, 10:40] = GROUND  # a reflection or haze that was taken for ground
    chosen, fixed = roi.class_table([GROUND]), np.ones(labels.shape, bool)
    assert roi.scored_region('below_edge', labels, fixed, chosen)[3:9, 10:40].all()
    below = np.arange(30)[:, None] >= np.full((1, 60), 9)
    cut = roi.scored_region('below_edge', labels, fixed, chosen, 0.15, below)
    assert not cut[:9].any()
    assert cut[10:].all()
    whole = roi.scored_region('below_horizon', labels, fixed, chosen, 0.15, below)
    np.testing.assert_array_equal(whole, below)
    without = roi.scored_region('below_horizon', labels, fixed, chosen)
    np.testing.assert_array_equal(without, below_edge(labels == GROUND, 0.15))


@pytest.mark.parametrize('policy', ['fit', 'fill', 'stretch'])
def test_cells_below_a_line_are_those_whose_centre_is(policy):
    geometry = geometry_for((480, 640), (126, 168), policy)
    size = (18, 24)
    line = np.array([[0.0, 100.0], [640.0, 260.0]])
    cells = below_line(line, geometry, size)
    scale_x, scale_y = 168 / 24 / geometry.scale_x, 126 / 18 / geometry.scale_y
    left, top = geometry.offset_x / geometry.scale_x, geometry.offset_y / geometry.scale_y
    for row in range(18):
        for column in range(24):
            x = min(max((column + 0.5) * scale_x - left, 0), 640)
            assert cells[row, column] == ((row + 0.5) * scale_y - top >= 100 + 160 * x / 640)
    assert below_line(np.array([[0.0, np.nan], [640.0, np.nan]]), geometry, size).all()


def test_a_named_class_is_an_obstacle_however_usual_it_looks():
    surprisal = np.full((10, 10), 0.1, np.float32)
    surprisal[1, 1] = 5.0
    named, scored = np.zeros((10, 10), bool), np.ones((10, 10), bool)
    named[5:8, 5:8] = True
    scored[5] = False
    mask, components = make_mask(surprisal, scored, 0.01, named=named)
    expected = named & scored
    expected[1, 1] = True
    np.testing.assert_array_equal(mask, expected)
    assert sorted(components.areas) == [1, 6]
    only, _ = make_mask(surprisal, scored, 0.01, named=named, minimum_area=2)
    np.testing.assert_array_equal(only, named & scored)


def test_hysteresis_keeps_named_obstacles():
    surprisal = np.full((6, 6), 0.1, np.float32)
    surprisal[0, 0] = 2.5  # flagged at 0.01, not at 0.001
    named = np.zeros((6, 6), bool)
    named[4, 4] = True
    mask, _ = make_mask(surprisal, ~np.zeros((6, 6), bool), 0.01, seed_rate=0.001, named=named)
    np.testing.assert_array_equal(mask, named)


def water_image(height=126, width=168):
    image = np.empty((height, width, 3), np.uint8)
    image[: height // 3] = COLORS['Sky']
    image[height // 3 :] = COLORS['Water']
    image[56:84, 42:70] = COLORS['Car']  # a known thing that is in the way
    image[84:112, 112:140] = ODD
    return image


@pytest.fixture(scope='module')
def pipeline(tmp_path_factory):
    path = write_tiny_bundle(
        tmp_path_factory.mktemp('bundle') / 'sea', height=126, width=168, upsampling=7,
        classes=('Car', 'Water', 'Sky'), in_distribution=('Car', 'Water', 'Sky'),
        ground_classes=('Water',),
    )  # fmt: skip
    bundle = load_bundle(path)
    with create_engine(bundle, EngineOptions(runtime='onnxruntime', threads=1)) as engine:
        yield Pipeline(bundle, engine)


def test_pipeline_unites_known_obstacles_and_anomalies_below_the_edge(pipeline):
    region = RoiSettings(mode='below_edge')
    pipeline.settings = Settings(roi=region, minimum_area=400)  # the seam with the sky
    (plain,) = pipeline.run([Frame(water_image())])
    pipeline.settings = Settings(roi=region, obstacle_classes=('Car',), minimum_area=400)
    (named,) = pipeline.run([Frame(water_image())])
    cells = slice(31, 39), slice(25, 31)  # the thing without its rim; cells of 2 pixels
    assert not plain.mask[cells].any(), 'the class is in-distribution'
    assert named.mask[cells].all()
    for detection in (plain, named):
        assert detection.mask[45:53, 59:67].all(), 'the anomaly'
        assert not detection.scored[:19].any()
        assert detection.scored[24:].all()
        assert detection.visible.all()
    assert len(named.obstacles) == 2
    np.testing.assert_array_equal(named.surprisal, plain.surprisal)


def test_pipeline_takes_a_frames_horizon(pipeline):
    pipeline.settings = Settings(roi=RoiSettings(mode='below_horizon'))
    line = np.array([[0.0, 80.0], [168.0, 100.0]])
    (detection,) = pipeline.run([dataclasses.replace(Frame(water_image()), horizon=line)])
    rows = 2 * np.arange(63)[:, None] + 1
    limit = 80 + 20 * (2 * np.arange(84) + 1) / 168
    np.testing.assert_array_equal(detection.scored, rows >= limit)


def test_unknown_obstacle_classes_and_a_wrong_bridge_are_refused(pipeline):
    with pytest.raises(ConfigError, match=r'obstacle_classes Buoy.*Car, Water, Sky'):
        pipeline.settings = Settings(obstacle_classes=('Buoy',))
    with pytest.raises(ConfigError, match=r'bridge 1\.5'):
        RoiSettings(mode='below_edge', bridge=1.5)
    with pytest.raises(ConfigError, match=r'margin -0\.1'):
        RoiSettings(mode='below_edge', margin=-0.1)
