# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Many clean recordings give the bundle of one long drive; what cannot be read is named."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip('rosbags')
from bag_files import FRONT, RAW, Maker, storage_file, write_bag
from recordings import cut
from road_drives import road, write_home

from ood_perception.adapt.adaptation import Observer
from ood_perception.bundle.store import load_bundle
from ood_perception.cli.adapt import adapt_bundle

FRAMES = 8


@pytest.fixture
def home(tmp_path):
    return write_home(tmp_path / 'home')


def messages(numbers):
    """Return one image message a second."""
    maker = Maker()
    stamps = [(number, (number + 1) * 10**9) for number in numbers]
    return [
        (FRONT, RAW, stamp, maker.raw(road(number), 'rgb8', stamp)) for number, stamp in stamps
    ]


def write_recordings(folder, count):
    """Write recordings of FRAMES frames each; return their files."""
    return [
        storage_file(
            write_bag(folder / f'drive_{one}', messages(range(one * FRAMES, (one + 1) * FRAMES)))
        )
        for one in range(count)
    ]


def adapted(home, words, out, *more):
    fixed = ['--bundle', out, '--precision', 'f32', '--threads', '1', *more]
    return adapt_bundle([*map(str, [home, '--clean', *words, *fixed])])


def learned(bundle):
    """Return the sample and the facts of a bundle, but what it is said to be adapted to."""
    loaded = load_bundle(bundle)
    with np.load(loaded.path('calibration.npz')) as arrays:
        sample = dict(arrays)
    facts = {k: v for k, v in loaded.manifest.calibration.items() if k != 'adapted_to'}
    return sample, {k: v for k, v in facts.items() if k != 'first_and_last'}


def assert_same(one, other):
    (sample, facts), (other_sample, other_facts) = learned(one), learned(other)
    assert facts == other_facts
    assert sample.keys() == other_sample.keys()
    for name, values in sample.items():
        np.testing.assert_array_equal(values, other_sample[name], err_msg=name)


def test_recordings_are_one_long_drive_and_a_damaged_one_is_named(
    home, tmp_path, capsys, monkeypatch
):
    files = write_recordings(tmp_path / 'fleet', 4)
    cut(files[3])
    whole = write_bag(tmp_path / 'whole', messages(range(3 * FRAMES)))
    assert adapted(home, [whole], tmp_path / 'one') == 0
    capsys.readouterr()
    passes = []
    arrays = Observer._arrays
    monkeypatch.setattr(Observer, '_arrays', lambda *a: passes.append(1) or arrays(*a))
    assert adapted(home, [tmp_path / 'fleet'], tmp_path / 'many') == 0
    assert str(files[3].parent) in capsys.readouterr().err
    assert_same(tmp_path / 'one', tmp_path / 'many')
    said = load_bundle(tmp_path / 'many').manifest.calibration['adapted_to']
    assert said == '3 recordings, without drive_3, which cannot be read'
    assert len(passes) == 3 * FRAMES, 'each frame once, by the worker alone'
    assert not (tmp_path / 'many.frames').exists()


@pytest.mark.slow
def test_workers_on_ray_give_the_same_sample(home, tmp_path):
    pytest.importorskip('ray')
    write_recordings(tmp_path / 'fleet', 3)
    words = [tmp_path / 'fleet' / '*', '--frames', '20']
    assert adapted(home, words, tmp_path / 'here') == 0
    assert adapted(home, words, tmp_path / 'ray', '--ray', 'local', '--workers', '2') == 0
    assert_same(tmp_path / 'here', tmp_path / 'ray')
