# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The drift monitor warns soon where more is flagged than was targeted, and else hardly ever."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from ood_perception.image.geometry import geometry_for
from ood_perception.postprocess.drift import DriftMonitor, EDetector, inner_ground
from ood_perception.types import Detection, Frame

GRID = (24, 40)
RATE = 0.01


def detection(number, flagged, image=None, ground=True, seconds=0.5):
    """Return a frame's detection in which a fraction of the ground is flagged."""
    rng = np.random.default_rng(number)
    if image is None:
        squares = rng.integers(40, 220, (9, 16, 3))
        image = np.kron(squares, np.ones((8, 8, 1))).astype(np.uint8)
    surprisal = -np.log10(1 - rng.random(GRID))  # exponential: p-values are uniform
    surprisal = np.where(rng.random(GRID) < flagged, 2.5, np.minimum(surprisal, 1.99))
    labels = np.zeros(GRID, np.uint8) if ground else np.ones(GRID, np.uint8)
    frame = Frame(image, '', round((number + 1) * seconds * 1e9))
    shape = geometry_for(image.shape[:2], (168, 280), 'fit', 0.5)
    nothing = np.zeros(GRID, bool)
    return Detection(
        frame, surprisal.astype(np.float32), labels, ~nothing, nothing, (), shape, RATE
    )


def watched(frames, **options):
    """Return the monitor after the frames, and the number of the first that it warned at."""
    monitor, first = DriftMonitor([0], 1, **options), None
    for number, one in enumerate(frames):
        monitor.add(one)
        if monitor.health.warning and first is None:
            first = number
    return monitor, first


def test_false_warnings_are_as_rare_as_rated_on_the_edge_of_what_is_tolerated():
    rng, needed, waits = np.random.default_rng(0), 100, []
    for _ in range(60):
        bet, count = EDetector(0.02), 0
        while bet.stake < needed and count < 3000:
            bet.add(float(rng.beta(0.5, 24.5)))  # mean 0.02, often near 0, seldom large
            count += 1
        waits.append(count)
    assert np.mean(waits) > needed


@pytest.mark.parametrize('flagged', [0.098, 0.04])
def test_it_warns_where_too_much_is_flagged_and_says_how_much(flagged):
    monitor, first = watched(detection(i, flagged) for i in range(int(45 / flagged)))
    assert first is not None
    assert first * 0.5 < 15 / flagged
    assert f'{RATE:.1%} targeted' in monitor.health.warning
    assert 'adapt_bundle' in monitor.health.warning
    assert float(monitor.health.values['flagged']) == pytest.approx(flagged, rel=0.2)


def test_it_does_not_warn_at_home_and_takes_a_warning_back():
    monitor, first = watched(detection(i, 0.01) for i in range(600))
    assert first is None
    for i in range(600, 900):
        monitor.add(detection(i, 0.2))
    assert monitor.health.warning
    for i in range(900, 1300):
        monitor.add(detection(i, 0.005))
    assert not monitor.health.warning


def test_a_frame_that_shows_little_ground_counts_little():
    def shown(number):
        one = detection(number, 0.0)
        if number % 2:
            return one
        labels, surprisal = np.ones(GRID, np.uint8), one.surprisal.copy()
        labels[10:15, 10:15] = 0  # nine cells inside its rim, all flagged
        surprisal[10:15, 10:15] = 2.5
        return replace(one, labels=labels, surprisal=surprisal)

    monitor, first = watched(shown(i) for i in range(300))
    assert first is None
    assert float(monitor.health.values['flagged']) == pytest.approx(9 / (9 + 960), rel=0.05)


def test_a_standing_vehicle_before_an_odd_thing_is_one_view():
    image = detection(1, 0).frame.image
    _, first = watched(detection(i, 0.5, image) for i in range(300))
    assert first is None


@pytest.mark.parametrize(
    ('change', 'cause'),
    [
        (lambda image: image // 40, 'dark'),
        (lambda image: np.full_like(image, 120), 'covered'),
        (lambda image: cv2.GaussianBlur(image, (0, 0), 40), 'blurred|covered'),
    ],
    ids=['dark', 'covered', 'blurred'],
)
def test_what_the_images_show_is_the_first_cause(change, cause):
    images = (change(detection(i, 0).frame.image) for i in range(300))
    monitor, _ = watched(detection(i, 0.3, image) for i, image in enumerate(images))
    assert any(word in monitor.health.warning for word in cause.split('|'))


def test_exchanged_colours_are_known_from_the_adapted_cameras_own_images():
    image = detection(1, 0).frame.image
    image[..., 2] = np.minimum(image[..., 0] + 30, 255)  # a blue sky
    warmth = float(image[:24, :, 0].mean() - image[:24, :, 2].mean())
    known = {'images': {'warmth': [warmth - 5, warmth, warmth + 5]}}
    swapped = np.ascontiguousarray(image[..., ::-1])
    right, _ = watched((detection(i, 0, image) for i in range(200)), known=known)
    wrong, _ = watched((detection(i, 0, swapped) for i in range(200)), known=known)
    assert not right.health.warning
    assert 'red and blue' in wrong.health.warning


def test_a_camera_that_sees_no_ground_says_so():
    monitor, _ = watched(detection(i, 0, ground=False) for i in range(200))
    assert 'hardly any ground' in monitor.health.warning


def test_the_inner_ground_is_a_patch_inside_its_rim():
    labels = np.ones((9, 9), np.uint8)
    labels[:, 2:8] = 0
    normal = np.zeros(256, bool)
    normal[0] = True
    inner = inner_ground(labels, np.ones((9, 9), bool), normal, 2)
    assert np.flatnonzero(inner[4]).tolist() == [4, 5]
    assert inner[:, 4].all()  # the image's border is no rim
