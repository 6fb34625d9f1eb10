# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Mask and obstacles against an oracle that floods cell by cell, and their invariants."""

import numpy as np
import pytest

from ood_perception.errors import ConfigError
from ood_perception.image.geometry import geometry_for
from ood_perception.postprocess import mask as post
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
    surprisal[50:, 80:] = 4  # reaches from the image into the padding
    _, components = post.make_mask(surprisal, np.ones(GRID, bool), 0.01)
    cell = 1280 / 96
    first, second, third = post.obstacles_of(components, geometry)
    assert (first.surprisal, second.surprisal, third.surprisal) == (5, 4, 3)
    assert (third.x, third.y) == pytest.approx((30 * cell - 160, 10 * cell))
    assert (third.width, third.height) == pytest.approx((6 * cell, 2 * cell))
    assert third.area == pytest.approx(12 * cell * cell)
    assert second.x + second.width == pytest.approx(960)
    assert second.y + second.height == pytest.approx(720)


def test_obstacles_end_where_the_image_does():
    geometry = geometry_for((720, 960), (378, 672))
    surprisal, cell = np.zeros(GRID, dtype=np.float32), 1280 / 96
    surprisal[:2, 8:15] = 4  # from the padding into the image's corner
    surprisal[30:32, 2:5] = 3  # in the padding alone
    _, components = post.make_mask(surprisal, np.ones(GRID, bool), 0.01)
    corner, outside = post.obstacles_of(components, geometry)
    assert (corner.x, corner.y) == (0, 0)
    assert (corner.width, corner.height) == pytest.approx((15 * cell - 160, 2 * cell))
    assert (outside.x, outside.width) == (0, 0)
    low, high = geometry_for((960, 720), (672, 378)), np.zeros((96, 54), np.float32)
    high[2:5, 30:32] = 3  # the same above the image
    _, components = post.make_mask(high, np.ones(high.shape, bool), 0.01)
    (outside,) = post.obstacles_of(components, low)
    assert (outside.y, outside.height) == (0, 0)


def test_equal_obstacles_come_from_the_top_and_then_from_the_left():
    surprisal = np.zeros(GRID, dtype=np.float32)
    for row, column in [(20, 5), (20, 50), (4, 30), (30, 2)]:
        surprisal[row, column] = 3
    _, components = post.make_mask(surprisal, np.ones(GRID, bool), 0.01)
    found = post.obstacles_of(components, geometry_for((378, 672), (378, 672)))
    assert [(o.y / 7, o.x / 7) for o in found] == [(4, 30), (20, 5), (20, 50), (30, 2)]


def test_left_is_where_the_box_is_and_not_its_first_cell():
    surprisal = np.zeros(GRID, dtype=np.float32)
    surprisal[10, 20] = 3
    surprisal[10:13, 30] = surprisal[12, 5:31] = 3  # begins further right, reaches further left
    _, components = post.make_mask(surprisal, np.ones(GRID, bool), 0.01)
    found = post.obstacles_of(components, geometry_for((378, 672), (378, 672)))
    assert [o.x / 7 for o in found] == [5, 20]


@pytest.mark.parametrize('seed', range(5))
def test_some_obstacles_alone_leave_their_own_cells_in_the_mask(seed):
    surprisal, scored = random_case(seed)
    geometry = geometry_for((378, 672), (378, 672))  # 7 pixels a cell
    mask, components = post.make_mask(surprisal, scored, 0.03)
    obstacles = post.obstacles_of(components, geometry)
    labels = np.zeros(GRID, np.uint8)
    frame = Frame(np.zeros((378, 672, 3), np.uint8))
    found = Detection(frame, surprisal, labels, scored, mask, obstacles, geometry, 0.03)
    keep = np.random.default_rng(seed).random(len(obstacles)) < 0.5
    some = post.only(found, keep)
    assert some.obstacles == tuple(o for o, stays in zip(obstacles, keep, strict=True) if stays)
    # an obstacle is the flooded component that its box belongs to
    flooded, _ = flood(mask)
    expected = np.zeros(GRID, bool)
    for one in some.obstacles:
        part = tuple(slice(round(a / 7), round((a + b) / 7)) for a, b in _sides(one))
        own = [k for k in np.unique(flooded[part]) if k and _box(flooded == k) == part]
        assert len(own) == 1
        expected |= flooded == own[0]
    np.testing.assert_array_equal(some.mask, expected)
    assert post.only(found, np.ones(len(obstacles), bool)) is found


def _sides(one):
    return (one.y, one.height), (one.x, one.width)


def _box(cells):
    rows, columns = np.nonzero(cells)
    return slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)


def test_what_is_just_large_and_anomalous_enough_stays():
    surprisal = np.zeros(GRID, dtype=np.float32)
    surprisal[3, 3:7] = 3.0  # four cells of 2.5 pixels, at the threshold of 0.001
    surprisal[9, 3:7] = 2.999
    surprisal[20, 3:6] = 9.0
    scored = np.ones(GRID, bool)
    mask, _ = post.make_mask(
        surprisal, scored, 0.01, seed_rate=0.001, minimum_area=10.0, cell_area=2.5
    )
    np.testing.assert_array_equal(mask, surprisal == 3.0)
    small, _ = post.make_mask(surprisal, scored, 0.01, cell_area=0.01)
    np.testing.assert_array_equal(small, surprisal > 0)


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
    np.testing.assert_allclose(score, exact, atol=3e-7)
    assert score.min() >= 0
    assert score.max() <= 1
    assert (np.diff(score) >= 0).all()
    assert float(post.score_from_surprisal(np.float32(2.0))) == pytest.approx(0.99)
    for shape in ((-1,), (7, -1), (1, 11, 13, 7)):
        given = surprisal.reshape(shape)
        out = np.empty_like(given)
        np.testing.assert_array_equal(post.score_from_surprisal(given, out=out), out)
        np.testing.assert_array_equal(out.reshape(-1), score)
