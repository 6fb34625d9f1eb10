# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Cameras against OpenCV's own models, against closed forms, and against what they must refuse."""

import cv2
import numpy as np
import pytest

from ood_perception.errors import CalibrationError
from ood_perception.ranging.camera_model import Calibration, camera_model

K = (600.0, 0.0, 310.0, 0.0, 620.0, 250.0, 0.0, 0.0, 1.0)
P = (500.0, 0.0, 300.0, 0.0, 0.0, 510.0, 240.0, 0.0, 0.0, 0.0, 1.0, 0.0)
PLUMB_BOB = (-0.28, 0.09, 0.0012, -0.0007, -0.011)
RATIONAL = (0.9, 0.3, -0.0004, 0.0006, 0.02, 1.2, 0.5, 0.06)
FISHEYE = (-0.02, 0.006, -0.003, 0.0004)
SIZE = (480, 640)


def calibration(model='plumb_bob', d=(), **values):
    return Calibration(**{'height': 480, 'width': 640, 'model': model, 'd': d, 'k': K} | values)


def pixels(step=40):
    x, y = np.meshgrid(np.arange(5, 640, step), np.arange(5, 480, step))
    return np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float64)


def random_rays(count=200, wide=0.45):
    rng = np.random.default_rng(3)
    plane = rng.uniform(-wide, wide, (count, 2))
    return np.column_stack([plane, np.ones(count)]) * rng.uniform(0.3, 9, (count, 1))


def test_pinhole_is_the_closed_form():
    model = camera_model(calibration(), SIZE)
    points = pixels()
    expected = np.column_stack(
        [(points[:, 0] - 0.5 - 310) / 600, (points[:, 1] - 0.5 - 250) / 620, np.ones(len(points))]
    )
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(model.rays(points), expected, atol=1e-12)


@pytest.mark.parametrize(
    ('name', 'd'), [('plumb_bob', PLUMB_BOB), ('rational_polynomial', RATIONAL)]
)
def test_polynomial_lenses_land_where_opencv_says(name, d):
    rays = random_rays()
    model = camera_model(calibration(name, d), SIZE)
    matrix = np.array(K).reshape(3, 3)
    expected, _ = cv2.projectPoints(rays, np.zeros(3), np.zeros(3), matrix, np.array(d))
    np.testing.assert_allclose(model.project(rays) - 0.5, expected.reshape(-1, 2), atol=1e-8)


def test_fisheye_lands_where_opencv_says():
    rays = random_rays(wide=2.0)
    model = camera_model(calibration('equidistant', FISHEYE), SIZE)
    matrix = np.array(K).reshape(3, 3)
    flat = (rays / rays[:, 2:]).reshape(-1, 1, 3)
    expected, _ = cv2.fisheye.projectPoints(
        flat, np.zeros((3, 1)), np.zeros((3, 1)), matrix, np.array(FISHEYE).reshape(4, 1)
    )
    np.testing.assert_allclose(model.project(rays) - 0.5, expected.reshape(-1, 2), atol=1e-8)


@pytest.mark.parametrize(
    ('name', 'd'),
    [
        ('plumb_bob', ()),
        ('plumb_bob', PLUMB_BOB),
        ('plumb_bob', PLUMB_BOB[:4]),
        ('rational_polynomial', RATIONAL),
        ('equidistant', FISHEYE),
        ('equidistant', (0.0,) * 4),
        ('', ()),
    ],
)
def test_rays_and_projection_are_inverse(name, d):
    model = camera_model(calibration(name, d), SIZE)
    points = pixels(20)
    rays = model.rays(points)
    np.testing.assert_allclose(np.linalg.norm(rays, axis=1), 1.0, atol=1e-12)
    np.testing.assert_allclose(model.project(rays), points, atol=1e-8)


def test_fisheye_sees_behind_the_camera_plane():
    model = camera_model(calibration('equidistant', (0.0,) * 4), SIZE)
    ray = np.array([[np.sin(2.0), 0.0, np.cos(2.0)]])
    np.testing.assert_allclose(model.project(ray) - 0.5, [[600 * 2.0 + 310, 250]], atol=1e-9)
    np.testing.assert_allclose(model.rays(model.project(ray)), ray, atol=1e-12)


def test_beyond_the_fold_there_is_no_ray():
    """With k1 alone, r (1 + k1 r^2) grows until r = 1 / sqrt(-3 k1) and reaches 2/3 of it."""
    model = camera_model(calibration(d=(-0.5, 0.0, 0.0, 0.0)), SIZE)
    fold = 1 / np.sqrt(1.5)
    assert model.lens.largest_radius == pytest.approx(fold, abs=2e-3)
    reach = 600 * fold * 2 / 3
    points = [[310.5 + 0.98 * reach, 250.5], [310.5 + 1.02 * reach, 250.5]]
    rays = model.rays(points)
    assert np.isfinite(rays[0]).all()
    assert np.isnan(rays[1]).all()
    far = np.array([[1.5 * fold, 0.0, 1.0], [0.0, 0.0, -1.0]])
    assert np.isnan(model.project(far)).all()


def test_a_resized_image_keeps_its_rays():
    whole = camera_model(calibration(d=PLUMB_BOB), SIZE)
    half = camera_model(calibration(d=PLUMB_BOB), (240, 320))
    np.testing.assert_allclose(half.rays(pixels() / 2), whole.rays(pixels()), atol=1e-10)


def test_binning_and_region_keep_the_rays():
    whole = camera_model(calibration(d=PLUMB_BOB), SIZE)
    cut = camera_model(
        calibration(d=PLUMB_BOB, binning=(2, 2), roi=(100, 60, 400, 300)), (150, 200)
    )
    points = np.array([[10.0, 20.0], [120.25, 90.5]])
    np.testing.assert_allclose(cut.rays(points), whole.rays(points * 2 + (100, 60)), atol=1e-10)


def test_a_rectified_image_uses_p_alone():
    model = camera_model(calibration(d=PLUMB_BOB, p=P), SIZE, rectified=True)
    ray = model.rays([[400.5, 100.5]])[0]
    np.testing.assert_allclose(
        ray[:2] / ray[2], [(400 - 300) / 500, (100 - 240) / 510], atol=1e-12
    )


@pytest.mark.parametrize(
    ('info', 'size', 'rectified', 'words'),
    [
        (calibration(k=(0.0,) * 9), SIZE, False, 'not calibrated'),
        (calibration(k=(float('nan'),) * 9), SIZE, False, 'not calibrated'),
        (calibration(), SIZE, True, 'P has the focal lengths'),
        (calibration('kalibr'), SIZE, False, "'kalibr'.*plumb_bob"),
        (calibration('', (0.1,)), SIZE, False, "''"),
        (calibration('plumb_bob', (0.1,) * 8), SIZE, False, '8 coefficients'),
        (calibration('plumb_bob', (0.1, 0.2)), SIZE, False, '2 coefficients'),
        (calibration('equidistant', (float('inf'),) * 4), SIZE, False, 'finite'),
        (calibration(), (480, 848), False, '640x480.*848x480'),
        (calibration(width=0, height=0), SIZE, False, 'width and height'),
        (calibration(k=()), SIZE, False, '0 values'),
    ],
)
def test_what_cannot_give_rays_is_refused(info, size, rectified, words):
    with pytest.raises(CalibrationError, match=words):
        camera_model(info, size, rectified)


def test_a_pole_of_a_rational_lens_ends_the_view():
    """1 / (1 - r^2) has its pole at r = 1; OpenCV says nothing of what lies beyond."""
    model = camera_model(calibration('rational_polynomial', (0, 0, 0, 0, 0, -1.0, 0, 0)), SIZE)
    assert model.lens.largest_radius == pytest.approx(1.0, abs=2e-3)
    rays = model.rays([[310.5, 250.5], [310.5 + 600 * 0.75 / (1 - 0.75**2), 250.5]])
    np.testing.assert_allclose(rays[1, :2] / rays[1, 2], [0.75, 0.0], atol=1e-9)
