# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Sequences made of pictures, and what persistence does on them, by hand and by property."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from ood_perception.errors import ConfigError
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


def load_sequences():
    pytest.importorskip('torch')
    from trainer.evaluation import sequences

    return sequences


def test_a_moved_picture_grows_about_the_horizon_and_its_ids_move_with_it():
    sequences = load_sequences()
    image = np.full((100, 200, 3), 90, np.uint8)
    labels = np.full((100, 200), 3, np.uint8)
    thing = np.zeros((100, 200), bool)
    thing[60:80, 120:150] = True
    image[thing] = (250, 0, 0)
    motion = sequences.Motion(frames=8, growth=0.03, shake=0.0, noise=0.0)
    steps = list(sequences.moved(image, labels, thing, 'x', motion))
    assert [step.frame.stamp_ns for step in steps] == [(n + 1) * 10**8 for n in range(8)]
    for number, step in enumerate(steps):
        zoom = 1.03**number
        rows, columns = np.flatnonzero(step.thing.any(1)), np.flatnonzero(step.thing.any(0))
        assert rows[0] == pytest.approx(46 + (60 - 46) * zoom, abs=1)
        assert columns[0] == pytest.approx(100 + (120 - 100) * zoom, abs=1)
        assert len(columns) == pytest.approx(30 * zoom, abs=1.5)
        inner = cv2.erode(step.thing.astype(np.uint8), np.ones((5, 5))) > 0
        assert (step.frame.image[inner] == (250, 0, 0)).all(), 'the pixels move with their truth'
        assert (step.labels == 3).all()
    again = list(sequences.moved(image, labels, thing, 'x', motion))
    np.testing.assert_array_equal(again[5].frame.image, steps[5].frame.image)


def test_with_and_without_its_object_a_picture_moves_alike():
    sequences = load_sequences()
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (60, 80, 3), dtype=np.uint8)
    labels, thing = np.zeros((60, 80), np.uint8), np.zeros((60, 80), bool)
    motion = sequences.Motion(frames=4)
    first = sequences.moved(image, labels, None, 'x', motion)
    second = sequences.moved(image, labels, thing, 'x', motion)
    for left, right in zip(first, second, strict=True):
        np.testing.assert_array_equal(left.frame.image, right.frame.image)
    other = next(sequences.moved(image, labels, None, 'y', motion))
    assert (other.frame.image != left.frame.image).any()


@pytest.mark.parametrize('values', [{'frames': 0}, {'fps': 0.0}, {'growth': -0.7}])
def test_motion_without_sense_is_refused(values):
    with pytest.raises(ConfigError, match='motion of'):
        load_sequences().Motion(**values)


def test_the_command_writes_its_tables(tiny_bundle, tmp_path, monkeypatch, capsys):
    """A drive whose road shows an odd square in two single frames and in one lasting stretch."""
    load_sequences()
    from bundles import road_picture, write_tiny_bundle

    from trainer.__main__ import main
    from trainer.datasets import camvid
    from trainer.evaluation import tracking

    folder = tmp_path / 'camvid' / 'val'
    for part in ('images', 'labels'):
        (folder / part).mkdir(parents=True)
    for number in range(24):
        odd = number in (2, 8) or 14 <= number < 20
        picture = road_picture(56, 84, (42, 28, 14, 14) if odd else None, seed=number)
        cv2.imwrite(str(folder / 'images' / f'd_{number:03}.png'), picture[..., ::-1])
        labels = np.full((56, 84), camvid.CLASSES.names.index('Road'), np.uint8)
        cv2.imwrite(str(folder / 'labels' / f'd_{number:03}.png'), labels)
    monkeypatch.setattr(tracking, 'still_sequences', lambda *_: iter(()))
    bundle = write_tiny_bundle(
        tmp_path / 'tiny', classes=camvid.CLASSES.names, compiled_classes=('Road', 'Pavement')
    )
    command = ['tracking', str(bundle), '--root', str(tmp_path), '--pairs', '1/1', '1/3']
    more = ['2/3', '--engine', 'onnxruntime', '--out', str(tmp_path / 'out')]
    assert main([*command, *more]) == 0
    got = json.loads((tmp_path / 'out' / 'tracking.json').read_text())
    rows = got['camvid/val as recorded']['rows']
    assert [(row['shown'], row['announced']) for row in rows] == [(8, 8), (8, 3), (5, 1)]
    text = capsys.readouterr().out
    assert '| 2 of 3 | 0.208 | 38 (1 seen) | - | - | - | - |' in text
    assert main([*command, 'often']) == 2
    assert 'write m/n' in capsys.readouterr().err
    assert main([command[0], str(tiny_bundle), *command[2:], *more]) == 2
    assert 'knows Road, Pavement, Sky' in capsys.readouterr().err
