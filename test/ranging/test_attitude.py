# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Attitudes from an IMU by time, and from the open edge of the ground."""

import math

import numpy as np
import pytest
from ranged_scenes import SCENE, SKY, THING, detection, view

from ood_perception.errors import CalibrationError
from ood_perception.ranging.attitude import AttitudeHistory, Orientation, rotation_from_rpy
from ood_perception.ranging.ranges import attitude_from_edge

UNKNOWN = (0.0,) * 9
MS = 1_000_000


def rolled(angle, stamp_ms, covariance=UNKNOWN):
    quaternion = (math.sin(angle / 2), 0.0, 0.0, math.cos(angle / 2))
    return Orientation(stamp_ms * MS, quaternion, covariance)


def ask(history, stamp_ms, gap=0.1, sigma=0.01):
    return history.attitude(stamp_ms * MS, gap, np.eye(3), sigma)


def test_the_nearest_sample_counts_whatever_the_order():
    history = AttitudeHistory()
    for number in (0, 40, 20, 10, 30):
        history.add(rolled(number / 1000, number))
    for stamp, expected in ((-50, 0.0), (13, 0.010), (26, 0.030), (90, 0.040)):
        up = ask(history, stamp).up
        np.testing.assert_allclose(up, [0, math.sin(expected), math.cos(expected)], atol=1e-12)


def test_sigma_is_the_imus_but_not_below_the_least():
    history = AttitudeHistory()
    history.add(rolled(0.0, 0, (4e-4, 0, 0, 0, 9e-4, 0, 0, 0, 1.0)))
    assert ask(history, 0).sigma == pytest.approx(0.03)
    assert ask(history, 0, sigma=0.05).sigma == 0.05
    history.add(rolled(0.0, 500))
    assert ask(history, 500).sigma == 0.01, 'zeros mean unknown'


@pytest.mark.parametrize(
    ('samples', 'words'),
    [
        ([], 'no Imu message has arrived'),
        ([rolled(0.0, 350)], r'0\.25 s from the image.*0\.1 s.*clock'),
        ([rolled(0.0, 100, (-1.0, *UNKNOWN[1:]))], 'no orientation.*imu_filter'),
        ([Orientation(100 * MS, (0.0, 0.0, 0.0, 0.0), UNKNOWN)], 'length 0'),
    ],
)
def test_what_tells_no_attitude_is_refused(samples, words):
    history = AttitudeHistory()
    for sample in samples:
        history.add(sample)
    with pytest.raises(CalibrationError, match=words):
        ask(history, 100)


@pytest.mark.parametrize('period', [1, 100])
def test_the_last_ten_seconds_are_kept_whatever_the_rate(period):
    history = AttitudeHistory()
    for stamp in range(0, 15000, period):
        history.add(rolled(stamp / 15000, stamp))
    ask(history, 15000 - 9900)
    with pytest.raises(CalibrationError, match='from the image'):
        ask(history, 3000)
    assert len(history._samples) <= 10000 / period + 1


def test_a_recording_that_starts_again_begins_anew():
    history = AttitudeHistory()
    for stamp in (50_000, 50_010, 0):
        history.add(rolled(0.0, stamp))
    ask(history, 0)
    with pytest.raises(CalibrationError, match='from the image'):
        ask(history, 50_000)


@pytest.mark.parametrize('ship', [False, True])
def test_attitude_from_an_open_edge(ship):
    """The scene's edge is level at row 160, that is (239.5 - 159.5) / 500 above the axis."""

    def paint(labels):
        if ship:
            labels[8:22, 50:56] = THING

    seen = view()
    up = attitude_from_edge(detection(paint), SCENE, seen.camera, seen.mounting, 0.0).up
    pitch = math.atan(80 / 500) - 0.1  # the base's nose is down: what is level looks high
    expected = rotation_from_rpy((0.0, pitch, 0.0)).T @ (0.0, 0.0, 1.0)
    np.testing.assert_allclose(up, expected, atol=1e-9)


def test_an_edge_that_wavers_is_less_sure_by_as_much():
    """Columns err together, so their number makes nothing surer: 2 cells of 10 / 500 rad each."""

    def paint(labels):
        for column in range(0, 64, 16):
            labels[16:18, column : column + 8] = SKY

    seen = view()
    sigma = attitude_from_edge(detection(paint), SCENE, seen.camera, seen.mounting, 0.0).sigma
    assert sigma == pytest.approx(1.4826 * 10 / 500, rel=0.2)
    flat = attitude_from_edge(detection(), SCENE, seen.camera, seen.mounting, 0.0).sigma
    assert flat < 1e-6


def test_a_shore_is_no_horizon():
    def paint(labels):
        labels[10:20, :50] = THING

    seen = view()
    with pytest.raises(CalibrationError, match='14 of 64 columns'):
        attitude_from_edge(detection(paint), SCENE, seen.camera, seen.mounting, 2.0)
