# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Camera-sized maps against the grid that they show."""

import numpy as np
import pytest

from ood_perception.image.geometry import geometry_for, to_camera, to_camera_nearest
from ood_perception.postprocess import mask as post
from ood_perception.postprocess.output_maps import IMAGES, OutputMaps
from ood_perception.types import Detection, Frame

GRID = (54, 96)


def random_case(seed):
    rng = np.random.default_rng(seed)
    surprisal = rng.gamma(2.0, 0.6, GRID).astype(np.float32)
    scored = rng.random(GRID) < 0.9
    return surprisal, scored


def detection_of(surprisal, scored, geometry, rate=0.01, **options):
    mask, components = post.make_mask(surprisal, scored, rate, **options)
    size = (geometry.camera_height, geometry.camera_width)
    labels = (np.arange(surprisal.size) % 11).astype(np.uint8).reshape(surprisal.shape)
    obstacles = post.obstacles_of(components, geometry)
    frame = Frame(np.zeros((*size, 3), np.uint8))
    return Detection(frame, surprisal, labels, scored, mask, obstacles, geometry, rate)


@pytest.mark.parametrize('policy', ['fit', 'fill', 'stretch'])
def test_camera_maps_follow_the_grid(policy):
    surprisal, scored = random_case(1)
    geometry = geometry_for((480, 500), (378, 672), policy)
    detection = detection_of(surprisal, scored, geometry)
    maps = OutputMaps(detection)
    seen = to_camera_nearest(scored, geometry)
    if policy == 'fill':  # 16:9 cut from the middle of the image
        height = round(500 * 378 / 672)
        top = int(np.floor(0.5 * (height - 480) + 0.5))
        outside = np.ones(480, bool)
        outside[-top : -top + height] = False
        assert (maps.image('labels')[outside] == 255).all()
        seen[outside] = False
    mask = maps.image('mask')
    np.testing.assert_array_equal(mask == 255, ~seen)
    flagged = to_camera_nearest(detection.mask, geometry)
    np.testing.assert_array_equal(mask == 1, flagged & seen)
    full = to_camera(surprisal, geometry)
    got = maps.image('surprisal')
    np.testing.assert_array_equal(np.isnan(got), ~seen)
    np.testing.assert_array_equal(got[seen], full[seen])
    score = maps.image('score')
    np.testing.assert_array_equal(np.isnan(score), ~seen)
    np.testing.assert_allclose(score[seen], 1 - 10.0 ** -full[seen].astype(float), atol=2e-7)
    confidence = OutputMaps(detection, full_scale=4.0).image('confidence')
    expected = np.where(seen, np.rint(255 * np.minimum(full, 4.0) / 4.0), 0)
    assert np.abs(confidence.astype(int) - expected).max() <= 1  # a half rounds either way
    assert (confidence[~seen] == 0).all()
    assert np.mean(confidence == expected) > 0.999


@pytest.mark.parametrize('policy', ['fit', 'fill', 'stretch'])
@pytest.mark.parametrize('scale', [0.5, 0.37, 0.1, 1.0, 1.7])
def test_maps_of_another_size_show_the_same_view(policy, scale):
    geometry = geometry_for((480, 500), (378, 672), policy)
    y, x = np.mgrid[: GRID[0], : GRID[1]]
    surprisal = (0.02 * x + 0.01 * y).astype(np.float32)
    detection = detection_of(surprisal, np.ones(GRID, bool), geometry)
    full = OutputMaps(detection).image('surprisal')
    small = OutputMaps(detection, scale).image('surprisal')
    size = (round(480 * scale), round(500 * scale))
    assert small.shape == size
    rows = np.minimum(((np.arange(size[0]) + 0.5) * 480 / size[0]).astype(int), 479)
    columns = np.minimum(((np.arange(size[1]) + 0.5) * 500 / size[1]).astype(int), 499)
    expected = full[np.ix_(rows, columns)]
    both = ~np.isnan(small) & ~np.isnan(expected)
    assert np.mean(np.isnan(small) == np.isnan(expected)) > 0.98
    # Two output pixels of the plane: half a pixel of rounding on each side, and the centre.
    step = 2 * (0.02 * GRID[1] / size[1] + 0.01 * GRID[0] / size[0])
    assert np.abs(small - expected)[both].max() < step


def test_maps_do_not_disturb_each_other():
    surprisal, scored = random_case(2)
    maps = OutputMaps(detection_of(surprisal, scored, geometry_for((70, 90), (378, 672))))
    first = [maps.image(name) for name in IMAGES]
    again = [maps.image(name) for name in IMAGES]
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)
        assert one is not two
