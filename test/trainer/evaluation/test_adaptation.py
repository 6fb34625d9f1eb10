# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The study of adaptations: every camera is seen once, and the rest follows from what is kept."""

import json

import cv2
import numpy as np
import pytest
from road_drives import drive, write_home

pytest.importorskip('torch', reason='the trainer needs it')

from trainer.__main__ import main


@pytest.fixture
def words(tmp_path):
    """The command for two cameras, of which one shows too little."""
    home = write_home(tmp_path / 'home')
    front, rear = drive(tmp_path / 'front', range(45)), drive(tmp_path / 'rear', range(100, 103))
    words = ['adapt-study', str(home), '--clean', f'front={front}', f'rear={rear}']
    words += ['--frames', '25', '60', '--out', str(tmp_path / 'out')]
    return [*words, '--precision', 'f32', '--threads', '1']


def test_every_count_is_measured_on_all_frames_and_frames_are_seen_once(words, tmp_path, capsys):
    assert main(words) == 3, 'the rear camera shows too little'
    out = tmp_path / 'out'
    result = json.loads((out / 'adaptation.json').read_text())
    assert [(row['camera'], row['frames'], row['measured_on']) for row in result['rows']] == [
        ('front', 25, 45), ('front', 45, 45),
    ]  # fmt: skip
    assert result['refused'] == ['rear, 3 frames, tiny']
    rate = result['rows'][0]['levels']['curves']['rates'][0]
    assert 0.005 < rate['observed'] < 0.02 < 0.1 < rate['before']
    table = (out / 'adaptation.md').read_text()
    line = next(one for one in table.splitlines() if one.startswith('| tiny | front | 25 of 45 |'))
    assert f'| **{100 * rate["observed"]:.2f}** [' in line
    assert f'| {100 * rate["before"]:.2f} / ' in line
    assert line.count('|') == 8
    kept = {path: path.stat().st_mtime_ns for path in (out / 'frames').iterdir()}
    assert len(kept) >= 45
    assert main(words) == 3
    assert json.loads((out / 'adaptation.json').read_text()) == result
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, 'nothing is seen twice'


def test_a_camera_that_does_not_fit_warns_until_it_was_adapted_to(words, tmp_path):
    main(words)
    result = json.loads((tmp_path / 'out' / 'adaptation.json').read_text())
    assert result['contamination'] == [], 'no object is larger than a cell'
    parent, adapted = result['drift']
    assert parent['frames_to_warning'] < 500
    assert parent['recording_warns']
    assert (adapted['adapted_to'], adapted['runs_with_warning']) == ('front', 0)
    assert adapted['frames_to_warning'] is None
    assert adapted['flagged'][0] < 0.02
    assert '\n| front | **' in (tmp_path / 'out' / 'adaptation.md').read_text()


def test_labelled_anomalies_are_measured(words, tmp_path):
    folder = tmp_path / 'labelled'
    (folder / 'labels').mkdir(parents=True)
    drive(folder / 'images', range(45), odd=True)
    for number in range(45):
        label = np.zeros((112, 168), np.uint8)
        label[40:80, 60:110] = 1
        cv2.imwrite(str(folder / 'labels' / f'{number:03d}.png'), label)
    words[3:5] = [f'odd={folder}']
    main([*words, '--anomalies', f'odd=lost_and_found_dev={folder}'])
    result = json.loads((tmp_path / 'out' / 'adaptation.json').read_text())
    found = result['rows'][0]['levels']['curves']['labelled']
    value, low, high = found['average_precision']
    assert low <= value <= high
    assert value > 60
    assert found['fpr95'][0] < 60


@pytest.mark.parametrize(
    ('more', 'message'),
    [
        (['--clean', '/data/drive'], '/data/drive: write NAME='),
        (['--anomalies', 'side=lost_and_found_dev'], 'no --clean has that name'),
        (['--frames', '0'], '--frames 0'),
    ],
)
def test_mistakes_are_told(words, capsys, more, message):
    assert main([*words, *more]) == 2
    assert message in capsys.readouterr().err
