# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The rendered street: exact sampling, true masks, the same from the same seed."""

from dataclasses import replace

import numpy as np
import pytest

from ood_perception.demo import ground, things
from ood_perception.demo.camera import Camera, Integral, resample
from ood_perception.demo.scene import SCENES, Street
from ood_perception.demo.solids import Placed, Solid, bounds, draw, normals

SMALL = Camera(width=320, height=180, focal=250.0, horizon=82.0)


@pytest.fixture(scope='module')
def street():
    return Street(replace(SCENES[0], cars=(), trees=()), SMALL)


def test_strips_are_the_means_of_the_texture_around_its_end():
    texture = np.random.default_rng(0).normal(100, 20, (50, 3, 2)).astype(np.float32)
    integral = Integral(texture, resolution=10)
    twice = np.concatenate([texture, texture])
    np.testing.assert_allclose(integral.strip(1.0, 2.5), texture[10:25].mean(0), rtol=1e-5)
    np.testing.assert_allclose(integral.strip(4.0, 6.0), twice[40:60].mean(0), rtol=1e-5)
    expected = (0.5 * texture[3] + texture[4] + 0.25 * texture[5]) / 1.75
    np.testing.assert_allclose(integral.strip(0.35, 0.525), expected, rtol=1e-5)
    np.testing.assert_allclose(integral.strip(3.0, np.inf), texture.mean(0), rtol=1e-5)


def test_resampling_keeps_the_mean_and_goes_on_outside():
    line = np.arange(8, dtype=np.float32)[:, None]
    np.testing.assert_allclose(resample(line, np.array([0, 2, 4, 8]))[:, 0], [0.5, 2.5, 5.5])
    np.testing.assert_allclose(resample(line, np.array([-4, -2, 0]))[:, 0], [0, 0])
    np.testing.assert_allclose(resample(line, np.array([8, 20]))[:, 0], [7])
    np.testing.assert_allclose(resample(line, np.array([3.25, 3.75]))[:, 0], [3])


def test_a_sphere_is_drawn_where_the_pinhole_puts_it():
    def distance(p):
        return np.linalg.norm(p - np.array([0, 0.5, 0], np.float32), axis=1) - np.float32(0.5)

    sphere = Solid(distance, lambda p, n: np.full((len(p), 3), 100, np.float32), 0.5, 1.0)
    placed = Placed(sphere, 1.0, 10.0)
    box, layer = draw(SMALL, placed, SCENES[0].light, 2)
    cover = layer[..., 3]
    rows, columns = np.mgrid[box[1] : box[3], box[0] : box[2]] + 0.5
    centre = SMALL.project(np.array([[1.0, 0.5, 10.0]], np.float32))[0]
    assert (cover * columns).sum() / cover.sum() == pytest.approx(centre[0], abs=0.3)
    assert (cover * rows).sum() / cover.sum() == pytest.approx(centre[1], abs=0.3)
    assert cover.sum() == pytest.approx(np.pi * (0.5 * SMALL.focal / 10) ** 2, rel=0.03)


@pytest.mark.parametrize('name', sorted(things.OBJECTS))
def test_objects_stand_on_the_ground_inside_their_bounds(name):
    solid = things.OBJECTS[name]()
    rng = np.random.default_rng(1)
    radius, height = solid.radius * 1.1, solid.height * 1.1
    points = rng.uniform((-2, -0.5, -2), (2, 2, 2), (60000, 3)).astype(np.float32)
    inside = points[solid.distance(points) < 0]
    assert len(inside) > 50
    assert np.hypot(inside[:, 0], inside[:, 2]).max() < radius
    assert inside[:, 1].max() < height
    assert inside[:, 1].min() > -0.03
    length = np.linalg.norm(normals(solid.distance, inside), axis=1)
    np.testing.assert_allclose(length, 1, atol=1e-4)


def test_the_same_seed_gives_the_same_picture(street):
    again = Street(street.scene, SMALL)
    np.testing.assert_array_equal(again.render(2).image, street.render(2).image)
    assert (street.render(3).image != street.render(2).image).any()


def test_the_object_grows_and_lies_apart_from_the_road(street):
    frames = [street.render(index) for index in (0, 3, 6)]
    areas = [frame.truth.objects[0].sum() for frame in frames]
    assert areas[0] < areas[1] < areas[2]
    for index, frame in zip((0, 3, 6), frames, strict=True):
        only, road = frame.truth.objects[0], frame.truth.road
        assert not (only & road).any()
        camera = replace(SMALL, travelled=index * street.scene.advance)
        left, top, right, bottom = bounds(camera, street._object)
        rows, columns = np.nonzero(only)
        assert rows.min() >= top
        assert rows.max() < bottom
        assert columns.min() >= left
        assert columns.max() < right


def test_road_lies_between_the_kerbs_below_the_horizon(street):
    road = street.render(0).truth.road
    assert not road[: int(SMALL.horizon)].any()
    row = SMALL.height - 10
    depth = SMALL.focal * SMALL.above / (row + 0.5 - SMALL.horizon)
    x = (np.arange(SMALL.width) + 0.5 - SMALL.center) * depth / SMALL.focal
    style = street.scene.road
    inside = (x > style.left + 0.05) & (x < style.right - 0.05)
    assert road[row][inside].all()
    assert not road[row][(x < style.left - 0.05) | (x > style.right + 0.05)].any()


def test_the_ground_repeats_without_a_seam():
    picture = ground.ground_map(np.random.default_rng(3), ground.RoadStyle())
    lane = picture[:, 850:950].mean(axis=2)
    across_the_end = np.abs(lane[0] - lane[-1]).mean()
    elsewhere = np.abs(np.diff(lane, axis=0)).mean()
    assert across_the_end < 4 * elsewhere


def test_every_scene_of_the_demo_holds_a_known_object():
    assert {scene.object_name for scene in SCENES} == set(things.OBJECTS)
    assert sum(scene.frames for scene in SCENES) == 24
