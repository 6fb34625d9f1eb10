# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A bundle adapted to clean frames keeps its target there, and says what it rests on."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest
from bag_files import FRONT, RAW, Maker, write_bag
from bundles import ROAD_GREY, write_tiny_bundle
from road_drives import drive, road, write_home

from ood_perception.adapt.drive import open_drive
from ood_perception.bundle.store import load_bundle
from ood_perception.cli.adapt import adapt_bundle
from ood_perception.cli.bundle import inspect_bundle
from ood_perception.engines import create_engine
from ood_perception.engines.base import EngineOptions
from ood_perception.engines.trial import is_known
from ood_perception.pipeline import Pipeline, Settings
from ood_perception.types import Frame


@pytest.fixture
def home(tmp_path):
    """A bundle whose calibration does not fit the drive."""
    return write_home(tmp_path / 'home')


def flagged(bundle, numbers):
    """Return the fraction of road that a bundle flags at 1 %."""
    loaded = load_bundle(bundle)
    with create_engine(loaded, EngineOptions('openvino', 'f32', 1)) as engine:
        pipeline = Pipeline(loaded, engine, Settings())
        masks = [pipeline.run([Frame(road(number))])[0].surprisal >= 2 for number in numbers]
    return float(np.mean(masks))


def adapted(home, clean, out, *more):
    options = ['--clean', str(clean), '--bundle', str(out), '--precision', 'f32', '--threads', '1']
    return adapt_bundle([str(home), *options, *more])


def test_the_target_holds_on_new_frames_of_the_same_road(home, tmp_path, capsys):
    clean, out = drive(tmp_path / 'clean', range(60)), tmp_path / 'mine'
    assert adapted(home, clean, out, '--contamination', '0') == 0
    assert flagged(home, range(100, 160)) > 0.1
    assert 0.005 < flagged(out, range(100, 160)) < 0.02
    bundle, parent = load_bundle(out), load_bundle(home)
    assert bundle.sha256 != parent.sha256
    assert is_known(bundle, 'onnxruntime'), 'made here: it needs no trial'
    assert bundle.manifest.provenance['parent'] == {'name': 'tiny', 'sha256': parent.sha256}
    assert bundle.manifest.name == 'mine'
    rate = bundle.manifest.calibration['rates'][0]
    assert rate['low'] <= rate['observed'] <= rate['high']
    assert rate['before'] > 0.1
    assert bundle.path('MODEL_CARD.md').read_text().startswith('# mine\n\n## Adapted')
    assert 'golden vectors kept' in capsys.readouterr().out
    assert inspect_bundle([str(out)]) == 0
    assert '\n  1% gives' in capsys.readouterr().out


def test_what_the_drive_does_not_hold_is_still_found(home, tmp_path):
    out = tmp_path / 'mine'
    adapted(home, drive(tmp_path / 'clean', range(40)), out)
    loaded = load_bundle(out)
    with create_engine(loaded, EngineOptions('openvino', 'f32', 1)) as engine:
        detection = Pipeline(loaded, engine, Settings()).run([Frame(road(500, odd=True))])[0]
    assert detection.surprisal[3:5, 5:7].min() > 2.5


@pytest.mark.parametrize(
    ('numbers', 'message'),
    [(range(5), 'take 15 frames more'), ([7] * 30, 'a standing vehicle shows one')],
    ids=['short', 'standing'],
)
def test_short_and_monotonous_drives_are_refused(home, tmp_path, capsys, numbers, message):
    clean = tmp_path / 'clean'
    clean.mkdir()
    for place, number in enumerate(numbers):
        cv2.imwrite(str(clean / f'{place:03d}.png'), road(number))
    assert adapted(home, clean, tmp_path / 'mine') == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / 'mine').exists()


def test_a_drive_without_ground_is_refused(home, tmp_path, capsys):
    clean = tmp_path / 'clean'
    clean.mkdir()
    for number in range(30):
        sky = np.full((112, 168, 3), (235, 190, 150), np.uint8)
        sky[:, number * 5 : number * 5 + 20] //= 2
        sky[: number * 3] -= 20
        cv2.imwrite(str(clean / f'{number}.png'), sky)
    assert adapted(home, clean, tmp_path / 'mine') == 1
    assert 'normal classes cover' in capsys.readouterr().err


def test_an_existing_bundle_is_kept_unless_asked(home, tmp_path, capsys):
    clean = drive(tmp_path / 'clean', range(30))
    out = tmp_path / 'mine'
    assert adapted(home, clean, out) == 0
    assert adapted(home, clean, out) == 1
    assert '--overwrite' in capsys.readouterr().err
    assert adapted(home, clean, out, '--overwrite') == 0


def test_the_own_vehicle_and_a_few_anomalous_pixels_do_not_shape_the_curve(home, tmp_path):
    clean, plain = tmp_path / 'clean', tmp_path / 'plain'
    clean.mkdir()
    for number in range(60):
        image = road(number)
        image[84:, 56:84] = np.array(ROAD_GREY) - 60  # the bonnet, labelled road, always there
        cv2.imwrite(str(clean / f'{number:03d}.png'), image[..., ::-1])
    adapted(home, clean, tmp_path / 'mine', '--contamination', '0')
    adapted(home, drive(plain, range(60)), tmp_path / 'plain_bundle', '--contamination', '0')
    facts = load_bundle(tmp_path / 'mine').manifest.calibration
    assert 0.03 < facts['at_fixed_places'] < 0.06
    other = load_bundle(tmp_path / 'plain_bundle').manifest.calibration
    assert other['at_fixed_places'] == 0
    assert flagged(tmp_path / 'mine', range(100, 160)) > 0.003


def test_a_few_images_of_a_new_place_state_a_rate_only_where_they_can(home, tmp_path, capsys):
    images = sorted(drive(tmp_path / 'clean', range(8)).iterdir())
    base = [str(home), '--precision', 'f32', '--threads', '1', '--bundle']
    few = [*base, str(tmp_path / 'three'), '--normal', *map(str, images[:3])]
    assert adapt_bundle(few) == 0
    assert 'too few to state a rate' in capsys.readouterr().out
    assert load_bundle(tmp_path / 'three').manifest.calibration['rates'] == []
    assert adapt_bundle([*base, str(tmp_path / 'eight'), '--normal', *map(str, images)]) == 0
    assert '1% gives' in capsys.readouterr().out
    assert flagged(tmp_path / 'eight', range(100, 130)) < 0.05


def test_a_bag_is_read_with_its_stamps(home, tmp_path):
    pytest.importorskip('rosbags')
    maker = Maker()
    messages = [
        (FRONT, RAW, i * 10**9, maker.raw(road(i), 'rgb8', i * 10**9)) for i in range(1, 31)
    ]
    bag = tmp_path / 'bag'
    write_bag(bag, messages)
    assert adapted(home, bag, tmp_path / 'mine') == 0
    facts = load_bundle(tmp_path / 'mine').manifest.calibration
    assert facts['frames'] == 30
    assert facts['minutes'] == pytest.approx(29 / 60, abs=0.01)


def test_labels_beside_the_images_are_not_read(tmp_path, capsys):
    images = drive(tmp_path / 'images', range(3))
    (tmp_path / 'labels').mkdir()
    for path in images.iterdir():
        cv2.imwrite(str(tmp_path / 'labels' / path.name), np.full((2, 2), 7, np.uint8))
    clean = open_drive(str(tmp_path), 2)
    assert clean.count == 2
    assert [frame.frame_id for frame in clean.frames()] == ['000.png', '002.png']
    assert not capsys.readouterr().err


def test_frames_are_spread_over_the_whole_bag(tmp_path):
    """Also where there are fewer than two for each that is wanted."""
    pytest.importorskip('rosbags')
    maker = Maker()
    stamps = [10**9 * second for second in range(1, 11)]
    messages = [
        (FRONT, RAW, stamp, maker.raw(road(number), 'rgb8', stamp))
        for number, stamp in enumerate(stamps)
    ]
    clean = open_drive(str(write_bag(tmp_path / 'bag', messages)), 7)
    assert clean.count == 7
    frames = list(clean.frames())
    numbers = [0, 2, 3, 4, 6, 8, 9]
    assert [frame.frame_id for frame in frames] == [f'frame {number}' for number in numbers]
    assert [frame.stamp_ns for frame in frames] == [stamps[number] for number in numbers]


def test_a_place_that_cannot_be_written_is_refused_before_the_work(home, tmp_path, capsys):
    (tmp_path / 'file').touch()
    clean = drive(tmp_path / 'clean', range(2))
    assert adapted(home, clean, tmp_path / 'file' / 'mine') == 1
    assert 'is a file, give a folder' in capsys.readouterr().err


def stopped_after(monkeypatch, images):
    """Let the engine be stopped, as by Ctrl-C, when it has seen a number of images."""
    count = itertools.count()
    run = Pipeline.run

    def stopping(self, frames, *arguments):
        if next(count) == images:
            raise KeyboardInterrupt
        return run(self, frames, *arguments)

    monkeypatch.setattr(Pipeline, 'run', stopping)
    return count


def test_a_stopped_adaptation_goes_on_where_it_was(home, tmp_path, monkeypatch, capsys):
    clean = drive(tmp_path / 'clean', range(40))
    assert adapted(home, clean, tmp_path / 'whole') == 0
    whole, out = load_bundle(tmp_path / 'whole'), tmp_path / 'mine'
    with monkeypatch.context() as patch:
        stopped_after(patch, 30)
        assert adapted(home, clean, out) == 130
    assert not out.exists()
    kept = sorted((tmp_path / 'mine.frames').iterdir())
    assert len(kept) == 30
    kept[0].write_bytes(kept[0].read_bytes()[:100])
    with monkeypatch.context() as patch:
        seen = stopped_after(patch, 1000)
        assert adapted(home, clean, out) == 0
    assert '29 images had been seen' in capsys.readouterr().err
    assert next(seen) == 40 - 29
    assert not (tmp_path / 'mine.frames').exists()
    mine = load_bundle(out)
    for name in ('calibration.npz', 'head.onnx'):
        assert mine.path(name).read_bytes() == whole.path(name).read_bytes(), name
    assert mine.manifest.calibration == whole.manifest.calibration


@pytest.mark.parametrize('other', ['bundle', 'version'])
def test_what_another_bundle_or_version_saw_is_not_taken(
    home, tmp_path, monkeypatch, capsys, other
):
    clean, out = drive(tmp_path / 'clean', range(40)), tmp_path / 'mine'
    with monkeypatch.context() as patch:
        stopped_after(patch, 30)
        assert adapted(home, clean, out) == 130
    if other == 'bundle':
        home = write_tiny_bundle(tmp_path / 'other', classes=('Road', 'Sky', 'Grass'))
    else:
        monkeypatch.setattr('ood_perception.adapt.observe.__version__', 'another')
    assert adapted(home, clean, out) == 0
    assert 'had been seen' not in capsys.readouterr().err


def test_a_folder_named_images_is_told_by_its_parent(tmp_path):
    (tmp_path / 'camera').mkdir()
    images = drive(tmp_path / 'camera' / 'images', range(2))
    for place in (images, images.parent / '.' / 'images'):
        assert open_drive(str(place), 2).description == 'images of camera/images'
    assert open_drive(str(images.parent), 2).description == 'images of camera'
