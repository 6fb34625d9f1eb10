# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Tracks and m-of-n by hand, the filter against its closed forms, and what must always hold."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ood_perception.errors import ConfigError
from ood_perception.image.geometry import geometry_for
from ood_perception.postprocess.mask import make_mask, obstacles_of
from ood_perception.postprocess.tracking import (
    LONGEST_WINDOW,
    Persistence,
    Tracker,
    first_states,
    matches,
    overlaps,
    predicted,
    updated,
)
from ood_perception.types import Detection, Frame, Obstacle

SIZE = (120, 160)
GRID = (60, 80)
SECOND = 1_000_000_000
GEOMETRY = geometry_for(SIZE, SIZE)


def detection_of(boxes, seconds=0.0, camera='', size=SIZE):
    """Return a detection that holds these boxes (left, top, width, height) and no mask."""
    obstacles = tuple(Obstacle(*box, box[2] * box[3], 3.0) for box in boxes)
    empty = np.zeros(GRID, bool)
    frame = Frame(np.zeros((*size, 3), np.uint8), camera, round(seconds * SECOND))
    geometry = geometry_for(size, size)
    zeros = np.zeros(GRID, np.float32)
    return Detection(frame, zeros, zeros.astype(np.uint8), empty, empty, obstacles, geometry, 0.01)


def painted(patches, stamp=0.0, camera=''):
    """Return a detection as the pipeline makes it; patches: (row, column, height, width, peak)."""
    surprisal = np.full(GRID, 0.3, np.float32)
    for row, column, height, width, peak in patches:
        surprisal[row : row + height, column : column + width] = peak
    scored = np.ones(GRID, bool)
    mask, components = make_mask(surprisal, scored, 0.01)
    frame = Frame(np.zeros((*SIZE, 3), np.uint8), camera, round(stamp * SECOND))
    obstacles = obstacles_of(components, GEOMETRY)
    labels = np.zeros(GRID, np.uint8)
    return Detection(frame, surprisal, labels, scored, mask, obstacles, GEOMETRY, 0.01)


def announced_in(pattern, required, window, period=0.1):
    """Return in which frames an obstacle that is detected as `pattern` says is announced."""
    tracker = Tracker(Persistence(window, required))
    frames = [
        detection_of([(50, 40, 20, 20)] if there == '1' else [], number * period)
        for number, there in enumerate(pattern)
    ]
    return ''.join(str(len(tracker.update(frame).detection.obstacles)) for frame in frames)


@pytest.mark.parametrize(
    ('required', 'window', 'pattern', 'announced'),
    [
        (1, 2, '0101', '0101'),
        (2, 2, '1101', '0101'),  # missed once, not lost: two misses lose it
        (2, 2, '110011', '010001'),
        (2, 3, '10010111', '00000111'),
        (3, 3, '11011011101', '00000000101'),
        (3, 5, '1010101', '0000101'),
        (3, 5, '11000110001', '00000000000'),
        (2, 3, '0011000110', '0001000010'),
    ],
)
def test_m_of_n_by_hand(required, window, pattern, announced):
    assert announced_in(pattern, required, window) == announced


def test_m_of_n_against_a_window_counted_anew():
    rng = np.random.default_rng(0)
    for _ in range(60):
        window = int(rng.integers(2, 7))
        required = int(rng.integers(1, window + 1))
        pattern = ''.join(rng.choice(['0', '1'], size=40, p=[0.45, 0.55]))
        expected, told, since = '', False, ''
        for there in pattern:
            since += there
            if '1' not in since[-window:]:
                told, since = False, ''  # lost: the next hit begins anew
            told = told or since[-window:].count('1') >= required
            expected += '1' if told and there == '1' else '0'
        assert announced_in(pattern, required, window) == expected, (required, window, pattern)


def test_one_of_one_is_no_tracking_at_all():
    frame = painted([(10, 10, 4, 4, 3.0), (40, 60, 6, 3, 2.5)])
    tracked = Tracker().update(frame)
    assert tracked.detection is frame
    assert tracked.tracks == ()


def test_what_is_announced_is_a_subset_of_what_is_detected_and_masks_only_lose_pixels():
    rng = np.random.default_rng(3)
    for mask_too in (False, True):
        tracker = Tracker(Persistence(4, 2, mask=mask_too))
        removed = 0
        for number in range(80):
            spots = [
                (*rng.integers(0, (50, 70)), *rng.integers(1, 9, 2), rng.uniform(2.1, 4.0))
                for _ in range(rng.integers(0, 7))
            ]
            before = painted(spots, number / 10)
            after = tracker.update(before)
            kept = after.detection.obstacles
            assert set(kept) <= set(before.obstacles)
            assert list(kept) == [o for o in before.obstacles if o in kept], 'their order stays'
            assert len(after.tracks) == len(set(after.tracks)) == len(kept)
            assert not (after.detection.mask & ~before.mask).any()
            if mask_too:
                again = make_again(after.detection)
                assert again == kept, 'the mask holds the announced obstacles and nothing else'
                removed += (after.detection.mask != before.mask).any()
            else:
                assert after.detection.mask is before.mask
        assert removed > 20 or not mask_too


def make_again(detection):
    """Return the obstacles of a detection's mask."""
    surprisal = np.where(detection.mask, detection.surprisal, 0).astype(np.float32)
    _, components = make_mask(surprisal, detection.scored, detection.false_alarm_rate)
    return obstacles_of(components, detection.geometry)


def test_all_announced_leaves_the_mask_as_it_is():
    tracker = Tracker(Persistence(2, 1, mask=True))
    frame = painted([(10, 10, 4, 4, 3.0)])
    assert tracker.update(frame).detection.mask is frame.mask


@pytest.mark.parametrize('velocity', [(0, 0), (60, 0), (-35, 20)])
@pytest.mark.parametrize('period', [0.033, 0.1, 0.5])
def test_a_box_of_constant_velocity_keeps_its_number(velocity, period):
    tracker = Tracker(Persistence(3, 2))
    numbers = []
    for step in range(20):
        seconds = step * period
        x, y = 70 + velocity[0] * seconds, 50 + velocity[1] * seconds
        if not (-10 < x < 140 and 0 < y < 100):
            break
        numbers.append(tracker.update(detection_of([(x, y, 30, 20)], seconds)).tracks)
    assert numbers[0] == ()
    assert len(numbers) > 2
    assert set(numbers[1:]) == {(1,)}


def test_a_fast_box_is_followed_through_missed_frames_by_its_velocity():
    """24 pixels a frame, 16 wide, missed twice: only the prediction reaches it again."""
    tracker = Tracker(Persistence(8, 1))
    last = ()
    for step in range(9):
        boxes = [] if step in (5, 6) else [(10 + 14 * step, 50, 16, 16)]
        last = tracker.update(detection_of(boxes, step * 0.1)).tracks or last
        assert last == (1,)


def test_crossing_boxes_keep_their_numbers():
    """Two boxes pass through each other: where they lie alone does not tell which is which."""
    tracker = Tracker(Persistence(5, 1))
    for step in range(21):
        x = 10 + 6 * step
        right, left = (x, 50, 16, 16), (140 - x, 52, 16, 16)
        tracked = tracker.update(detection_of([right, left], step * 0.1))
        assert tracked.tracks == (1, 2), step


def test_cameras_are_independent():
    alone, both = Tracker(Persistence(3, 3)), Tracker(Persistence(3, 3))
    rng = np.random.default_rng(1)
    for step in range(30):
        front = [(50, 40, 20, 20)] if rng.random() < 0.8 else []
        rear = [(50, 40, 20, 20)] if rng.random() < 0.5 else []
        expected = alone.update(detection_of(front, step * 0.1, 'front')).detection.obstacles
        both.update(detection_of(rear, step * 0.1, 'rear'))
        got = both.update(detection_of(front, step * 0.1, 'front')).detection.obstacles
        assert got == expected


@pytest.mark.parametrize(
    ('stamps', 'announced'),
    [
        ([0.0, 0.1, 0.2], '011'),
        ([0.0, 1.9, 3.8], '011'),  # slow, but no gap
        ([0.0, 0.1, 2.2, 2.3], '0101'),  # a gap of more than two seconds
        ([5.0, 5.1, 0.0, 0.1], '0101'),  # a looped bag
        ([0.0, 0.0, 0.0], '011'),  # a camera without a clock
        ([7.0, 7.0, 7.0], '011'),
    ],
)
def test_gaps_and_jumps_forget_everything(stamps, announced):
    tracker = Tracker(Persistence(2, 2))
    got = [tracker.update(detection_of([(50, 40, 20, 20)], stamp)) for stamp in stamps]
    assert ''.join(str(len(item.tracks)) for item in got) == announced


def test_numbers_are_not_used_twice_after_a_reset():
    tracker = Tracker(Persistence(2, 1))
    box = [(50, 40, 20, 20)]
    assert tracker.update(detection_of(box, 1.0)).tracks == (1,)
    assert tracker.update(detection_of(box, 0.0)).tracks == (2,)
    tracker.reset()
    assert tracker.update(detection_of(box, 0.1)).tracks == (3,)


def test_another_image_size_begins_anew():
    tracker = Tracker(Persistence(2, 2))
    tracker.update(detection_of([(50, 40, 20, 20)], 0.0))
    other = detection_of([(50, 40, 20, 20)], 0.1, size=(240, 320))
    assert tracker.update(other).tracks == ()


def test_settings_change_between_frames():
    tracker = Tracker(Persistence(5, 5))
    box = [(50, 40, 20, 20)]
    for step in range(3):
        assert tracker.update(detection_of(box, step * 0.1)).tracks == ()
    tracker.settings = dataclasses.replace(tracker.settings, required=4)
    assert tracker.update(detection_of(box, 0.3)).tracks == (1,)
    tracker.settings = Persistence()
    assert tracker.update(detection_of(box, 0.4)).tracks == ()


def test_an_image_full_of_specks_is_survived():
    tracker = Tracker(Persistence(10, 3))
    rng = np.random.default_rng(0)
    for step in range(4):
        specks = [(*rng.uniform(0, 110, 2), 1, 1) for _ in range(700)]
        tracker.update(detection_of(specks, step * 0.1))
    assert len(tracker._cameras['']._numbers) <= 1000


@pytest.mark.parametrize(
    'values',
    [(0, 0), (1, 2), (3, 0), (LONGEST_WINDOW + 1, 1), (3, 2, False, 0.0), (3, 2, False, np.inf)],
)
def test_impossible_settings_are_refused_with_their_values(values):
    with pytest.raises(ConfigError, match='persistence'):
        Persistence(*values)


def test_the_filter_is_exact_for_what_it_models():
    """After many noiseless frames of constant velocity the prediction is the truth."""
    states = first_states(np.array([[0.0, 0.0, 10.0, 10.0]]))
    for step in range(1, 60):
        states = predicted(states, 0.1)
        box = np.array([[1.5 * step, -0.5 * step, 10.0, 10.0]])
        states = updated(states, np.array([0]), box)
    ahead = predicted(states, 0.1).boxes[0]
    np.testing.assert_allclose(ahead, [90.0, -30.0, 10, 10], atol=0.02)
    np.testing.assert_allclose(states.means[0, :, 1], [15, -5, 0, 0], atol=0.1)


def test_the_filter_against_the_textbook_in_eight_dimensions():
    """The shared 2 x 2 covariance against F, H, Q, R written out."""
    seconds, jitter, wander = 0.25, 0.1**2, 1.0
    f = np.kron(np.eye(4), [[1, seconds], [0, 1]])
    block = [[seconds**3 / 3, seconds**2 / 2], [seconds**2 / 2, seconds]]
    q, h = np.kron(np.eye(4), wander * np.array(block)), np.kron(np.eye(4), [[1.0, 0.0]])
    box, rng = np.array([[4.0, 8.0, 6.0, 2.0]]), np.random.default_rng(0)
    states = first_states(box)
    x = states.means[0].reshape(-1)
    p = np.kron(np.eye(4), np.diag([jitter, 9.0]))
    for _ in range(12):
        box = box + rng.normal(0, 0.3, 4)
        states = updated(predicted(states, seconds), np.array([0]), box)
        x, p = f @ x, f @ p @ f.T + q
        gain = p @ h.T @ np.linalg.inv(h @ p @ h.T + jitter * np.eye(4))
        centre = np.concatenate([box[0, :2] + box[0, 2:] / 2, box[0, 2:]])
        x, p = x + gain @ (centre - h @ x), (np.eye(8) - gain @ h) @ p
    np.testing.assert_allclose(states.means[0].reshape(-1), x, atol=1e-9)
    np.testing.assert_allclose(np.kron(np.eye(4), states.covariances[0]), p, atol=1e-9)


def test_overlaps_by_hand():
    first, second = np.array([[0.0, 0, 2, 2]]), np.array([[1.0, 0, 2, 2], [5, 5, 1, 1]])
    np.testing.assert_allclose(overlaps(first, second, reach=0), [[1 / 3, 0]])
    # grown by half: 4 x 4 around (1, 1) and around (2, 1), 12 common of 20
    np.testing.assert_allclose(overlaps(first, second)[0, 0], 12 / 20)
    assert overlaps(first, np.zeros((0, 4))).shape == (1, 0)


def test_greedy_pairs_are_nearly_the_best_ones():
    optimize = pytest.importorskip('scipy.optimize')
    rng = np.random.default_rng(0)
    same = 0
    for _ in range(200):
        corners = rng.uniform(0, 150, (8, 2))
        boxes = np.concatenate([corners, rng.uniform(5, 25, (8, 2))], axis=1)
        moved = boxes[rng.permutation(8)]
        moved = moved + rng.normal(0, 2, moved.shape) * [1, 1, 0.5, 0.5]
        alike = overlaps(boxes, moved)
        rows, columns = matches(alike, 0.1)
        best = optimize.linear_sum_assignment(-alike)
        chosen = {(r, c) for r, c in zip(*best, strict=True) if alike[r, c] >= 0.1}
        got = set(zip(rows.tolist(), columns.tolist(), strict=True))
        assert alike[rows, columns].sum() >= 0.5 * alike[best].sum(), 'the bound of greedy'
        same += got == chosen
    assert same >= 180
