# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Bearing, elevation and distance on a plane against closed forms, and near the horizon."""

import math

import numpy as np
import pytest

from ood_perception.errors import ConfigError
from ood_perception.ranging.attitude import (
    Attitude,
    dip,
    level,
    mounting,
    rotation_from_quaternion,
    rotation_from_rpy,
    up_from_horizon,
    up_from_imu,
)
from ood_perception.ranging.camera_model import Calibration, camera_model
from ood_perception.ranging.ground_plane import Status, Viewpoint, horizon_rows, locate

F, CX, CY = 500.0, 319.5, 239.5
SIZE = (480, 640)
HEIGHT = 1.7


def camera(model='plumb_bob', d=()):
    k = (F, 0.0, CX, 0.0, F, CY, 0.0, 0.0, 1.0)
    return camera_model(Calibration(480, 640, model, d, k), SIZE)


def view(rpy=(0.0, 0.0, 0.0), position=(0.0, 0.0, HEIGHT), attitude=None, cam=None, **values):
    attitude = attitude or level(0.0)
    return Viewpoint(cam or camera(), mounting(position, rpy), attitude, **values)


def pixel_of(point, rpy, position, up_rotation=None, cam=None):
    """Project a base-frame point by textbook steps: into the camera's body, then optical."""
    body = rotation_from_rpy(rpy).T @ (np.asarray(point) - position)
    optical = np.array([-body[1], -body[2], body[0]])
    return (cam or camera()).project(optical[None])


def test_level_pinhole_agrees_with_trigonometry():
    rows = np.array([260.0, 300.0, 470.0])
    columns = np.array([100.0, 320.0, 600.0])
    places = locate(view(largest_ratio=10.0), np.column_stack([columns, rows]))
    right, down = (columns - 0.5 - CX) / F, (rows - 0.5 - CY) / F
    np.testing.assert_allclose(places.bearing, -np.arctan(right), atol=1e-12)
    assert places.bearing[0] > 0, 'a pixel on the left is at a positive bearing'
    np.testing.assert_allclose(places.elevation, -np.arctan(down / np.hypot(1, right)), atol=1e-12)
    np.testing.assert_allclose(places.distance, HEIGHT * np.hypot(1, right) / down, atol=1e-9)
    ahead = HEIGHT / down
    expected = np.column_stack([ahead, -right * ahead, np.zeros(3)])
    np.testing.assert_allclose(places.points, expected, atol=1e-9)
    assert (places.status == Status.KNOWN).all()


@pytest.mark.parametrize(
    ('model', 'd'),
    [
        ('plumb_bob', ()),
        ('plumb_bob', (-0.25, 0.07, 0.001, -0.0008, -0.01)),
        ('rational_polynomial', (0.8, 0.2, -0.0004, 0.0006, 0.01, 1.1, 0.4, 0.05)),
        ('equidistant', (-0.02, 0.005, -0.002, 0.0003)),
    ],
)
@pytest.mark.parametrize('seed', range(4))
def test_points_of_the_plane_come_back(model, d, seed):
    """Any camera, any tilt of the boat: known points on the water are found again to 1e-6."""
    rng = np.random.default_rng(seed)
    cam = camera(model, d)
    rpy = rng.uniform((-0.1, 0.05, -0.6), (0.1, 0.3, 0.6))
    position = rng.uniform((-1, -1, 1), (2, 1, 3))
    boat = rotation_from_rpy(rng.uniform((-0.15, -0.1, -3), (0.15, 0.1, 3)))  # base in world
    base_height = 0.4
    ahead = rng.uniform(6, 60, 40)
    side = ahead * np.tan(rpy[2] + rng.uniform(-0.4, 0.4, 40))
    heading = math.atan2(boat[1, 0], boat[0, 0])
    turn = rotation_from_rpy((0, 0, heading))
    world = np.column_stack([ahead, side, np.zeros(40)]) @ turn.T
    base = (world - (0, 0, base_height)) @ boat
    pixels = np.concatenate([pixel_of(point, rpy, position, cam=cam) for point in base])
    inside = (pixels > 0).all(axis=1) & (pixels < (640, 480)).all(axis=1)
    assert inside.sum() > 5
    quaternion = quaternion_of(boat)
    attitude = Attitude(up_from_imu(quaternion, np.eye(3)), 0.001)
    seen = view(rpy, position, attitude, cam, base_height=base_height, largest_ratio=10.0)
    places = locate(seen, pixels[inside])
    foot = boat @ position + (0, 0, base_height)
    assert seen.height == pytest.approx(foot[2], abs=1e-9)
    offset = (world[inside] - foot) @ turn
    np.testing.assert_allclose(places.bearing, np.arctan2(offset[:, 1], offset[:, 0]), atol=1e-6)
    distance = np.hypot(offset[:, 0], offset[:, 1])
    np.testing.assert_allclose(places.elevation, -np.arctan(foot[2] / distance), atol=1e-6)
    np.testing.assert_allclose(places.distance, distance, rtol=1e-6)
    np.testing.assert_allclose(places.points, base[inside], atol=1e-4, rtol=1e-6)


def quaternion_of(rotation):
    """Shepperd's form for a small tilt and any heading, by the largest component."""
    w = math.sqrt(max(0.0, 1 + np.trace(rotation))) / 2
    z = math.sqrt(max(0.0, 1 - rotation[0, 0] - rotation[1, 1] + rotation[2, 2])) / 2
    if w >= z:
        skew = rotation - rotation.T
        return (skew[2, 1] / (4 * w), skew[0, 2] / (4 * w), skew[1, 0] / (4 * w), w)
    x = (rotation[0, 2] + rotation[2, 0]) / (4 * z)
    y = (rotation[1, 2] + rotation[2, 1]) / (4 * z)
    return (x, y, z, (rotation[1, 0] - rotation[0, 1]) / (4 * z))


def test_uncertainty_is_the_closed_form_on_the_axis():
    sigma_pixel, sigma_tilt, sigma_height = 1.5, 0.004, 0.05
    rows = np.array([300.0, 350.0, 400.0])
    seen = view(
        attitude=level(sigma_tilt), pixel_sigma=sigma_pixel, height_sigma=sigma_height,
        largest_ratio=10.0,
    )  # fmt: skip
    places = locate(seen, np.column_stack([np.full(3, CX + 0.5), rows]))
    down = rows - 0.5 - CY
    angle = np.arctan(down / F)
    by_pixel = F / (F**2 + down**2) * sigma_pixel
    variance = (HEIGHT / np.sin(angle) ** 2) ** 2 * (by_pixel**2 + sigma_tilt**2)
    variance += (sigma_height / np.tan(angle)) ** 2
    np.testing.assert_allclose(places.distance_sigma, np.sqrt(variance), rtol=1e-6)
    sideways = np.hypot(sigma_pixel / F, np.tan(angle) * sigma_tilt)
    np.testing.assert_allclose(places.bearing_sigma, sideways, rtol=1e-5)


def test_uncertainty_is_what_random_errors_give():
    """Monte Carlo over pixel, both tilts and height, far from the horizon."""
    rng = np.random.default_rng(0)
    pixel, sigma_pixel, sigma_tilt, sigma_height = np.array([480.0, 420.0]), 1.0, 0.003, 0.03
    rpy = (0.02, 0.12, 0.3)
    stated = locate(
        view(rpy, attitude=level(sigma_tilt), pixel_sigma=sigma_pixel, height_sigma=sigma_height),
        pixel[None],
    )
    distances, bearings = [], []
    for _ in range(1500):
        tilt = rotation_from_rpy((*rng.normal(0, sigma_tilt, 2), 0.0))
        lift = rng.normal(0, sigma_height)
        seen = view(rpy, attitude=Attitude(tilt[2], 0.0), base_height=lift)
        place = locate(seen, pixel[None] + rng.normal(0, sigma_pixel, (1, 2)))
        distances.append(place.distance[0])
        bearings.append(place.bearing[0])
    assert np.std(distances) == pytest.approx(stated.distance_sigma[0], rel=0.06)
    assert np.std(bearings) == pytest.approx(stated.bearing_sigma[0], rel=0.06)


def test_towards_the_horizon_uncertainty_grows_until_no_distance_is_given():
    rows = np.arange(479.0, 200.0, -0.5)
    seen = view(attitude=level(0.003), pixel_sigma=1.0, largest_ratio=0.25)
    places = locate(seen, np.column_stack([np.full(len(rows), 320.0), rows]))
    order = [Status.KNOWN, Status.NEAR_HORIZON, Status.ABOVE_HORIZON]
    changed = np.flatnonzero(np.diff(places.status.astype(int), prepend=-1))
    assert places.status[changed].tolist() == order
    known = places.status == Status.KNOWN
    ratio = places.distance_sigma[known] / places.distance[known]
    assert (np.diff(ratio) > 0).all()
    assert (np.diff(places.distance_sigma[known]) > 0).all()
    assert ratio.max() <= 0.25
    assert np.isnan(places.distance[~known]).all()
    assert np.isnan(places.distance_sigma[~known]).all()
    assert np.isnan(places.points[~known]).all()
    assert np.isfinite(places.bearing).all()
    assert np.isfinite(places.elevation).all()
    # Near the horizon sigma / distance = sigma / depression, so the last distance is known.
    last = HEIGHT / (math.hypot(0.003, 1 / F) / 0.25)
    assert places.distance[known].max() == pytest.approx(last, rel=0.05)


@pytest.mark.parametrize(
    ('change', 'status'),
    [
        ({'attitude': None}, Status.NO_ATTITUDE),
        ({'base_height': -2.0}, Status.NO_HEIGHT),
        ({'base_height': float('nan')}, Status.NO_HEIGHT),
    ],
)
def test_without_attitude_or_height_there_are_bearings_alone(change, status):
    known = view(largest_ratio=10.0)
    lacking = Viewpoint(known.camera, known.mounting, **{'attitude': level(0.0)} | change)
    pixel = np.array([[200.0, 400.0]])
    places, whole = locate(lacking, pixel), locate(known, pixel)
    assert places.status == status
    assert np.isnan(places.distance)
    assert places.bearing == whole.bearing
    assert places.elevation == whole.elevation


def test_a_pixel_that_the_lens_cannot_see_has_no_direction():
    seen = view(cam=camera(d=(-0.9, 0.0, 0.0, 0.0)))
    places = locate(seen, np.array([[2.0, 2.0], [320.0, 400.0]]))
    assert list(places.status) == [Status.OUTSIDE_LENS, Status.KNOWN]
    assert np.isnan(places.bearing[0])


@pytest.mark.parametrize('roll', [0.0, 0.2, -0.15])
def test_horizon_is_the_straight_line_of_a_pinhole(roll):
    """f tan(pitch + dip) above the axis, turned by the roll."""
    pitch = 0.1
    columns = np.array([0.0, 320.0, 640.0])
    rows = horizon_rows(view((roll, pitch, 0.4)), columns)
    # The normal of the horizon plane in optical coordinates, by hand, without dip.
    seen = view((roll, pitch, 0.4))
    normal = seen.mounting.rotation.T @ (0.0, 0.0, 1.0)
    x = (columns - 0.5 - CX) / F
    flat = -(normal[0] * x + normal[2]) / normal[1] * F + CY + 0.5
    lower = F * math.tan(dip(HEIGHT))
    assert np.all(rows > flat)
    np.testing.assert_allclose(rows, flat, atol=1.4 * lower)
    if roll == 0.0:
        axis = CY + 0.5 - F * math.tan(pitch - dip(HEIGHT))
        assert rows[1] == pytest.approx(axis, abs=1e-6)


def test_horizon_needs_an_attitude():
    lacking = Viewpoint(camera(), mounting())
    assert np.isnan(horizon_rows(lacking, np.arange(3.0))).all()


def test_attitude_from_a_horizon_line_is_the_boats():
    rpy, boat = (0.03, 0.08, 0.2), rotation_from_rpy((0.12, -0.05, 0.0))
    seen = view(rpy, attitude=Attitude(boat[2], 0.0))
    columns = np.array([0.0, 640.0])
    rows = horizon_rows(seen, columns)
    rays = seen.camera.rays(np.column_stack([columns, rows])) @ seen.mounting.rotation.T
    found = up_from_horizon(rays, dip(seen.height))
    np.testing.assert_allclose(found.up, boat[2], atol=1e-6)


def test_attitude_from_many_points_bears_wrong_ones():
    rng = np.random.default_rng(1)
    boat = rotation_from_rpy((0.1, 0.03, 0.0))
    seen = view((0.0, 0.1, 0.0), attitude=Attitude(boat[2], 0.0))
    columns = np.linspace(5, 635, 90)
    rows = horizon_rows(seen, columns) + rng.normal(0, 1.0, 90)
    rows[10:30] += 40  # a ship that stands before the horizon
    rays = seen.camera.rays(np.column_stack([columns, rows])) @ seen.mounting.rotation.T
    found = up_from_horizon(rays, dip(seen.height))
    off = math.acos(min(1.0, float(found.up @ boat[2])))
    assert off < 4e-3
    assert 2e-4 < found.sigma < 4e-3


def test_points_that_lie_together_are_no_horizon():
    ray = np.array([[1.0, 0.0, 0.0]] * 5)
    with pytest.raises(ConfigError, match='two ends'):
        up_from_horizon(ray)


def test_dip_is_that_of_the_nautical_tables():
    """1.76 arc minutes times the root of the height in metres."""
    assert math.degrees(dip(9.0)) * 60 == pytest.approx(1.76 * 3, rel=0.03)
    assert dip(-1.0) == dip(float('nan')) == 0.0


@pytest.mark.parametrize('quaternion', [(0, 0, 0, 0), (1, 1, 1, 1), (float('nan'), 0, 0, 1)])
def test_a_quaternion_that_is_no_rotation_is_refused(quaternion):
    with pytest.raises(ConfigError, match='length'):
        rotation_from_quaternion(quaternion)


def test_an_imu_mounted_upside_down_is_allowed_for():
    turned = rotation_from_rpy((math.pi, 0.0, 0.0))  # an NED sensor's axes in the base
    boat = rotation_from_rpy((0.1, 0.05, 1.0))
    up = up_from_imu(quaternion_of_any(boat @ turned), turned)
    np.testing.assert_allclose(up, boat[2], atol=1e-12)


def quaternion_of_any(rotation):
    """The eigenvector of Bar-Itzhack's matrix: valid for every rotation."""
    m = rotation
    k = np.array(
        [
            [m[0, 0] - m[1, 1] - m[2, 2], m[1, 0] + m[0, 1], m[2, 0] + m[0, 2], m[2, 1] - m[1, 2]],
            [m[1, 0] + m[0, 1], m[1, 1] - m[0, 0] - m[2, 2], m[2, 1] + m[1, 2], m[0, 2] - m[2, 0]],
            [m[2, 0] + m[0, 2], m[2, 1] + m[1, 2], m[2, 2] - m[0, 0] - m[1, 1], m[1, 0] - m[0, 1]],
            [m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1], np.trace(m)],
        ]
    )
    return np.linalg.eigh(k)[1][:, -1]


@pytest.mark.parametrize('seed', range(5))
def test_rotations_are_scipys(seed):
    transform = pytest.importorskip('scipy.spatial.transform')
    rpy = np.random.default_rng(seed).uniform(-3, 3, 3)
    expected = transform.Rotation.from_euler('xyz', rpy)
    np.testing.assert_allclose(rotation_from_rpy(rpy), expected.as_matrix(), atol=1e-12)
    turned = rotation_from_quaternion(expected.as_quat())
    np.testing.assert_allclose(turned, expected.as_matrix(), atol=1e-12)
    up = up_from_imu(expected.as_quat(), np.eye(3))
    np.testing.assert_allclose(up, expected.inv().apply((0.0, 0.0, 1.0)), atol=1e-12)
