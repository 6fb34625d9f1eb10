# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What persistence does on sequences, by hand and by property."""

from __future__ import annotations

import numpy as np
import pytest

from ood_perception.evaluation.persistence import PersistenceMeter, holds
from ood_perception.geometry import geometry_for
from ood_perception.postprocess import make_mask, obstacles_of
from ood_perception.types import Detection, Frame

SIZE = GRID = (40, 60)
GEOMETRY = geometry_for(SIZE, SIZE)
BOX = (slice(20, 28), slice(30, 38))


def detection(boxes, number):
    """Return a detection whose mask holds the boxes, each a pair of slices."""
    surprisal = np.full(GRID, 0.2, np.float32)
    for box in boxes:
        surprisal[box] = 3.0
    scored = np.ones(GRID, bool)
    mask, components = make_mask(surprisal, scored, 0.01)
    frame = Frame(np.zeros((*SIZE, 3), np.uint8), 'a', (number + 1) * 100_000_000)
    obstacles = obstacles_of(components, GEOMETRY)
    labels = np.zeros(GRID, np.uint8)
    return Detection(frame, surprisal, labels, scored, mask, obstacles, GEOMETRY, 0.01)


@pytest.mark.parametrize(
    ('required', 'window', 'shown', 'announced'),
    [(1, 1, 7, 7), (1, 3, 7, 2), (2, 3, 5, 2), (3, 3, 2, 1), (5, 5, 0, 0)],
)
def test_false_obstacles_by_hand(required, window, shown, announced):
    """Seen in frames 0-3 and, long after, in 10, 11 and 13: two obstacles."""
    meter = PersistenceMeter(required, window)
    meter.begin(with_object=False)
    for number in range(15):
        seen = number < 4 or number in (10, 11, 13)
        meter.add_clean(detection([BOX] if seen else [], number), np.ones(GRID, np.int8))
    got = meter.result()
    assert (got.frames, got.shown, got.announced) == (15, shown, announced)


def test_known_things_are_not_false():
    meter = PersistenceMeter(1, 3)
    meter.begin(with_object=False)
    meter.add_clean(detection([BOX], 0), np.zeros(GRID, np.int8))
    assert meter.result().shown == meter.result().announced == 0


def test_delay_and_shares_of_objects_by_hand():
    thing = np.zeros(SIZE, bool)
    thing[BOX] = True
    meter, plain = PersistenceMeter(3, 4), PersistenceMeter(1, 1)
    for pattern in ('0110111', '0100010', '0000000', '1110000'):
        for each in (meter, plain):
            each.begin(with_object=True)
            for number, seen in enumerate(pattern):
                each.add_object(detection([BOX] if seen == '1' else [], number), thing)
    got = meter.result()
    assert (got.objects, got.detected, got.told) == (4, 3, 2)
    assert got.delays == (3, 2)  # seen in 1, 2, 4: told in 4; seen in 0, 1, 2: told in 2
    assert (got.seen_frames, got.told_frames) == (5 + 2 + 3, 3 + 1)
    off = plain.result()
    assert off.told == off.detected == 3
    assert off.told_frames == off.seen_frames
    assert set(off.delays) == {0}


def test_sequences_do_not_help_each_other():
    meter = PersistenceMeter(2, 2)
    for _ in range(3):
        meter.begin(with_object=False)
        meter.add_clean(detection([BOX], 0), None)
    assert meter.result().shown == 0


def test_stricter_persistence_never_shows_more():
    rng = np.random.default_rng(0)
    meters = [PersistenceMeter(required, 6) for required in range(1, 7)]
    frames = []
    for number in range(60):
        corners = rng.integers(0, (30, 50), (3, 2))
        boxes = [(slice(r, r + 6), slice(c, c + 6)) for r, c in corners]
        frames.append(detection([BOX, *boxes] if rng.random() < 0.7 else boxes, number))
    for meter in meters:
        meter.begin(with_object=False)
        for frame in frames:
            meter.add_clean(frame, None)
    shown = [meter.result().shown for meter in meters]
    assert shown == sorted(shown, reverse=True)
    assert shown[0] > shown[-1] > 0


@pytest.mark.parametrize(('cells', 'expected'), [(6, False), (7, True), (64, True)])
def test_an_object_is_held_from_a_tenth_of_its_cells_on(cells, expected):
    thing = np.zeros(GRID, bool)
    thing[BOX] = True
    mask = np.zeros(GRID, bool)
    mask.flat[np.flatnonzero(thing)[:cells]] = True
    assert holds(mask, thing) is expected
    assert holds(mask, np.zeros(GRID, bool)) is False
