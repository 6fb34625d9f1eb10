# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Mask, obstacles and camera-sized maps against scipy-free oracles and their promises."""

import numpy as np
import pytest

from ood_perception import postprocess as post
from ood_perception.errors import ConfigError
from ood_perception.geometry import geometry_for, to_camera, to_camera_nearest
from ood_perception.types import Detection, Frame

GRID = (54, 96)


def flood(mask):
    """Label 8-connected components one cell at a time."""
    labels = np.zeros(mask.shape, dtype=int)
    count = 0
    for start in map(tuple, np.argwhere(mask)):
        if labels[start]:
            continue
        count += 1
        stack = [start]
        labels[start] = count
        while stack:
            y, x = stack.pop()
            for j in range(max(0, y - 1), min(mask.shape[0], y + 2)):
                for i in range(max(0, x - 1), min(mask.shape[1], x + 2)):
                    if mask[j, i] and not labels[j, i]:
                        labels[j, i] = count
                        stack.append((j, i))
    return labels, count


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


@pytest.mark.parametrize('seed', range(5))
@pytest.mark.parametrize('rate', [0.3, 0.05, 0.01])
def test_mask_without_options_is_the_threshold(seed, rate):
    surprisal, scored = random_case(seed)
    mask, _ = post.make_mask(surprisal, scored, rate)
    np.testing.assert_array_equal(mask, scored & (10.0 ** -surprisal.astype(float) <= rate))


def test_a_surprisal_at_the_threshold_is_flagged():
    surprisal = np.array([[1.9999, 2.0, 2.0001]], dtype=np.float32)
    mask, _ = post.make_mask(surprisal, np.ones((1, 3), bool), 0.01)
    assert mask.tolist() == [[False, True, True]]


@pytest.mark.parametrize('seed', range(5))
def test_hysteresis_and_minimum_area_match_an_oracle(seed):
    surprisal, scored = random_case(seed)
    rate, seed_rate, minimum, cell = 0.1, 0.003, 60.0, 400 / 24
    grow = scored & (surprisal >= -np.log10(rate))
    labels, count = flood(grow)
    expected = np.zeros(GRID, dtype=bool)
    kept = 0
    for number in range(1, count + 1):
        cells = labels == number
        strong = surprisal[cells].max() >= -np.log10(seed_rate)
        if strong and np.count_nonzero(cells) * cell >= minimum:
            expected |= cells
            kept += 1
    assert 0 < kept < count
    mask, components = post.make_mask(
        surprisal, scored, rate, seed_rate=seed_rate, minimum_area=minimum, cell_area=cell
    )
    np.testing.assert_array_equal(mask, expected)
    assert len(components.areas) == kept
    assert set(np.unique(components.patches)) == set(range(kept + 1))
    for number in range(1, kept + 1):
        cells = components.patches == number
        assert components.peaks[number - 1] == surprisal[cells].max()
        assert components.areas[number - 1] == np.count_nonzero(cells)


def test_obstacle_boxes_are_in_camera_pixels():
    geometry = geometry_for((720, 960), (378, 672))  # the canvas is 1280 x 720, 160 padded left
    surprisal = np.zeros(GRID, dtype=np.float32)
    surprisal[10:12, 30:36] = 3
    surprisal[40, 60] = 5
    surprisal[50:, 80:] = 4  # reaches from the picture into the padding
    _, components = post.make_mask(surprisal, np.ones(GRID, bool), 0.01)
    cell = 1280 / 96
    first, second, third = post.obstacles_of(components, geometry)
    assert (first.surprisal, second.surprisal, third.surprisal) == (5, 4, 3)
    assert (third.x, third.y) == pytest.approx((30 * cell - 160, 10 * cell))
    assert (third.width, third.height) == pytest.approx((6 * cell, 2 * cell))
    assert third.area == pytest.approx(12 * cell * cell)
    assert second.x + second.width == pytest.approx(960)
    assert second.y + second.height == pytest.approx(720)


def test_no_obstacle():
    mask, components = post.make_mask(np.zeros(GRID, np.float32), np.ones(GRID, bool), 0.01)
    assert not mask.any()
    assert post.obstacles_of(components, geometry_for((100, 100), (56, 56))) == ()


@pytest.mark.parametrize('rate', [0.0, 1.0, -0.1, 2.0, float('nan')])
def test_a_rate_outside_the_open_interval_is_refused(rate):
    with pytest.raises(ConfigError, match=r'inside \(0, 1\)'):
        post.surprisal_threshold(rate)


def test_score_is_one_minus_ten_to_the_minus_surprisal():
    surprisal = np.concatenate([[0], np.logspace(-9, 4, 1000)]).astype(np.float32)
    score = post.score_from_surprisal(surprisal)
    exact = -np.expm1(-surprisal.astype(np.float64) * np.log(10))
    assert score.dtype == np.float32
    np.testing.assert_allclose(score, exact, atol=2e-7)
    assert score.min() >= 0
    assert score.max() <= 1
    assert (np.diff(score) >= 0).all()
    assert float(post.score_from_surprisal(np.float32(2.0))) == pytest.approx(0.99)


@pytest.mark.parametrize('policy', ['fit', 'fill', 'stretch'])
def test_camera_maps_follow_the_grid(policy):
    surprisal, scored = random_case(1)
    geometry = geometry_for((480, 500), (378, 672), policy)
    detection = detection_of(surprisal, scored, geometry)
    maps = post.CameraMaps(detection)
    seen = to_camera_nearest(scored, geometry)
    if policy == 'fill':  # 16:9 cut from the middle of the picture
        height = round(500 * 378 / 672)
        top = int(np.floor(0.5 * (height - 480) + 0.5))
        outside = np.ones(480, bool)
        outside[-top : -top + height] = False
        assert (maps.labels()[outside] == 255).all()
        seen[outside] = False
    mask = maps.mask()
    np.testing.assert_array_equal(mask == 255, ~seen)
    flagged = to_camera_nearest(detection.mask, geometry)
    np.testing.assert_array_equal(mask == 1, flagged & seen)
    full = to_camera(surprisal, geometry)
    got = maps.surprisal()
    np.testing.assert_array_equal(np.isnan(got), ~seen)
    np.testing.assert_array_equal(got[seen], full[seen])
    score = maps.score()
    np.testing.assert_array_equal(np.isnan(score), ~seen)
    np.testing.assert_allclose(score[seen], 1 - 10.0 ** -full[seen].astype(float), atol=2e-7)
    confidence = maps.confidence(4.0)
    expected = np.where(seen, np.rint(255 * np.minimum(full, 4.0) / 4.0), 0)
    assert np.abs(confidence.astype(int) - expected).max() <= 1  # a half rounds either way
    assert (confidence[~seen] == 0).all()
    assert np.mean(confidence == expected) > 0.999


@pytest.mark.parametrize('policy', ['fit', 'fill', 'stretch'])
@pytest.mark.parametrize('size', [(240, 250), (100, 104), (311, 500), (480, 500)])
def test_maps_of_another_size_show_the_same_view(policy, size):
    geometry = geometry_for((480, 500), (378, 672), policy)
    y, x = np.mgrid[: GRID[0], : GRID[1]]
    surprisal = (0.02 * x + 0.01 * y).astype(np.float32)
    detection = detection_of(surprisal, np.ones(GRID, bool), geometry)
    full = post.CameraMaps(detection).surprisal()
    small = post.CameraMaps(detection, size).surprisal()
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
    maps = post.CameraMaps(detection_of(surprisal, scored, geometry_for((70, 90), (378, 672))))
    first = [maps.surprisal(), maps.score(), maps.confidence(), maps.mask(), maps.labels()]
    again = [maps.surprisal(), maps.score(), maps.confidence(), maps.mask(), maps.labels()]
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)
        assert one is not two
