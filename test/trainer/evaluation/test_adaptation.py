# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The study of adaptations: a row for each camera and number of frames, and it goes on."""

import json

import pytest
from road_drives import drive, write_home

pytest.importorskip('torch', reason='the trainer needs it')

from trainer.__main__ import main


def test_rows_are_what_the_bundles_say_and_are_kept(tmp_path, capsys):
    home = write_home(tmp_path / 'home')
    front, rear = drive(tmp_path / 'front', range(45)), drive(tmp_path / 'rear', range(100, 103))
    out = tmp_path / 'out'
    words = ['adapt-study', str(home), '--clean', f'front={front}', f'rear={rear}']
    words += ['--frames', '25', '60', '200', '--out', str(out), '--precision', 'f32']
    assert main(words) == 3, 'the rear camera shows too little'
    result = json.loads((out / 'adaptation.json').read_text())
    assert [(row['camera'], row['frames']) for row in result['rows']] == [
        ('front', 25), ('front', 45),
    ]  # fmt: skip
    assert result['refused'] == [f'rear, {count} frames' for count in (25, 60, 200)]
    table = (out / 'adaptation.md').read_text()
    (line,) = [line for line in table.splitlines() if line.startswith('| front | 45 |')][:1]
    rate = result['rows'][1]['levels']['curves']['rates'][0]
    assert f'{100 * rate["observed"]:.2f}' in line
    assert f'| {100 * rate["before"]:.2f} |' in line
    assert line.count('|') == 7
    kept = {path: path.stat().st_mtime_ns for path in (out / 'bundles').rglob('manifest.json')}
    capsys.readouterr()
    assert main(words) == 3
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, 'nothing is made twice'


def test_a_drive_without_a_name_is_refused(tmp_path, capsys):
    assert main(['adapt-study', 'road_open', '--clean', '/data/drive']) == 2
    assert 'NAME=DRIVE' in capsys.readouterr().err
