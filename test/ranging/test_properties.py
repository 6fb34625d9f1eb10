# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What holds for every scene, lens, pose and attitude, however odd; a node never dies of one."""

import warnings

import numpy as np
import pytest

from ood_perception.image.geometry import geometry_for, grid_valid
from ood_perception.postprocess.mask import make_mask, obstacles_of, only
from ood_perception.postprocess.roi import below_line, class_table, scored_region
from ood_perception.ranging.attitude import Attitude, mounting, rotation_from_rpy
from ood_perception.ranging.camera_model import Calibration, camera_model
from ood_perception.ranging.ground import Scene
from ood_perception.ranging.ground_plane import Status, Viewpoint, horizon_rows
from ood_perception.ranging.ranges import (
    barriers,
    nearest_by_bearing,
    ranged_detections,
    wide_enough,
)
from ood_perception.types import Detection, Frame

LENSES = (
    ('plumb_bob', ()),
    ('plumb_bob', (-0.4, 0.07, 0.001, -0.0008)),
    ('rational_polynomial', (0.8, 0.2, -0.0004, 0.0006, 0.01, 1.1, 0.4, 0.05)),
    ('equidistant', (-0.02, 0.005, -0.002, 0.0003)),
)
HELD = (Status.KNOWN, Status.AT_MOST)


def random_labels(rng, shape):
    """Noise, or ground with boxes of all classes on it."""
    if rng.random() < 0.3:
        return rng.integers(0, 3, shape).astype(np.uint8)
    labels = np.full(shape, rng.integers(0, 3), np.uint8)
    labels[rng.integers(0, shape[0]) :] = 1
    for _ in range(rng.integers(0, 5)):
        y, x = rng.integers(0, shape[0]), rng.integers(0, shape[1])
        labels[y : y + rng.integers(1, 10), x : x + rng.integers(1, 30)] = rng.integers(0, 3)
    return labels


def random_detection(rng, size, scene):
    shape = (int(rng.integers(3, 40)), int(rng.integers(3, 60)))
    policy = rng.choice(['fit', 'fill', 'stretch'])
    geometry = geometry_for(size, (shape[0] * 2, shape[1] * 2), policy)
    labels, visible = random_labels(rng, shape), grid_valid(geometry, shape).copy()
    if rng.random() < 0.3:
        visible[rng.integers(0, shape[0]) :, rng.integers(0, shape[1]) :] = False
    horizon = below = None
    if rng.random() < 0.5:
        horizon = np.array([[0.0, rng.uniform(-200, 500)], [size[1], rng.uniform(-200, 500)]])
        below = below_line(horizon, geometry, shape)
    mode = rng.choice(['below_edge', 'below_horizon', 'ground', 'none'])
    scored = scored_region(mode, labels, visible, scene.ground, scene.bridge, below)
    assert not (scored & ~visible).any()
    surprisal = rng.exponential(0.6, shape).astype(np.float32)
    mask, components = make_mask(surprisal, scored, 0.01, named=scene.obstacle[labels])
    obstacles = obstacles_of(components, geometry)[:: rng.integers(1, 3)]
    frame = Frame(np.zeros((*size, 3), np.uint8), horizon=horizon)
    return Detection(
        frame, surprisal, labels, scored, mask, obstacles, geometry, 0.01, visible=visible
    )


def random_view(rng, size):
    focal = rng.uniform(30, 600)
    k = (focal, 0.0, size[1] / 2, 0.0, focal, size[0] / 2, 0.0, 0.0, 1.0)
    model, d = LENSES[rng.integers(0, len(LENSES))]
    attitude = None
    if rng.random() < 0.8:
        up = rotation_from_rpy(rng.uniform(-1.5, 1.5, 3))[2]
        attitude = Attitude(up, rng.uniform(0, 0.1))
    return Viewpoint(
        camera_model(Calibration(*size, model, d, k), size),
        mounting(rng.uniform(-2, 3, 3), rng.uniform(-3, 3, 3)),
        attitude,
        base_height=rng.uniform(-1, 1),
        height_sigma=0.1,
        pixel_sigma=rng.uniform(0, 5),
        largest_ratio=rng.uniform(0, 1),
    )


@pytest.mark.parametrize('seed', range(60))
def test_places_hold_what_they_rate(seed):
    rng = np.random.default_rng(seed)
    size = (int(rng.integers(40, 300)), int(rng.integers(40, 400)))
    scene = Scene(class_table([1]), class_table([0] if rng.random() < 0.7 else []))
    detection, view = random_detection(rng, size, scene), random_view(rng, size)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        ranged = ranged_detections(detection, scene, view)
        horizon_rows(view, np.linspace(0.0, size[1], 33))
        points, sigma, _ = barriers(ranged)
        ranges = nearest_by_bearing(ranged, view, int(rng.integers(8, 1000)))
        kept = wide_enough(detection, scene, view, 0.5)
    assert np.isfinite(points).all()
    assert np.isfinite(sigma).all()
    assert (ranges[~np.isnan(ranges)] >= 0).all()
    assert len(ranged.obstacles.status) == len(detection.obstacles)
    for places in (ranged.obstacles, ranged.borders, ranged.edge):
        held = np.isin(places.status, HELD)
        assert np.isfinite(places.distance[held]).all()
        assert np.isnan(places.distance[~held]).all()
        most = view.largest_ratio * places.distance[held]
        assert (places.distance_sigma[held] <= most * (1 + 1e-12)).all()
    reduced = only(detection, kept)
    assert not (reduced.mask & ~detection.mask).any()
    assert len(reduced.obstacles) == np.count_nonzero(kept)
