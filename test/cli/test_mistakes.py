# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A user's mistake is one line that names the value and the place, before the work."""

import os
import zipfile
from pathlib import Path

import pytest
from bag_files import two_cameras, write_bag
from bundles import write_tiny_bundle

from ood_perception.cli.bundle import bench_bundle, compile_bundle, inspect_bundle
from ood_perception.cli.evaluate_bag import evaluate_bag
from ood_perception.errors import OodPerceptionError, exit_status


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A working directory with a bag, a bundle, and what people name by mistake."""
    monkeypatch.chdir(tmp_path)
    write_bag(Path('bag'), two_cameras())
    write_tiny_bundle('tiny')
    Path('file').write_text('text')
    Path('foreign').mkdir()
    Path('foreign/x').touch()
    Path('link').symlink_to('foreign')
    Path('manifest_folder/manifest.json').mkdir(parents=True)
    os.mkfifo('pipe.zip')
    Path('no.zip').write_bytes(b'x' * 100)
    with zipfile.ZipFile('without.zip', 'w') as archive:
        archive.writestr('a', 'b')
    Path('cut.zip').write_bytes(Path('without.zip').read_bytes()[:-10])
    Path('list.yaml').write_text('- 1\n')
    Path('number.yaml').write_text('/**:\n  ros__parameters: 5\n')
    Path('open.yaml').write_text('/**: [1\n')


BAG = ('bag', '--bundle', 'tiny', '--engine', 'openvino', '--precision', 'f32')
MISTAKES = [
    *((evaluate_bag, (*BAG, '--out', out), out) for out in
      ('file', 'file/r', 'link', '.', '..', 'foreign', '/proc/r')),
    *((evaluate_bag, (*BAG, f'--{name}={value}'), name.replace('-', '_')) for name, value in
      (('false-alarm-rate', 5), ('minimum-area', -5), ('threads', -3),
       ('hysteresis-rate', 'nan'))),
    *((evaluate_bag, (*BAG, '--params', file), file) for file in
      ('list.yaml', 'number.yaml', 'open.yaml', 'none.yaml', 'foreign')),
    (evaluate_bag, ('none', '--bundle', 'tiny'), 'none'),
    (evaluate_bag, ('file', '--bundle', 'tiny'), 'file'),
    *((program, (bundle,), bundle) for program in (inspect_bundle, compile_bundle) for bundle in
      ('no.zip', 'without.zip', 'cut.zip', 'pipe.zip', 'manifest_folder', 'file', '/dev/zero',
       '~nosuchuser/x')),
    (inspect_bundle, ('tiny', '--draw', 'file'), 'file'),
    (inspect_bundle, ('tiny', '--draw', 'none.png', '--out', 'foreign'), '--out foreign'),
    (compile_bundle, ('tiny', '--threads', '-3'), '-3'),
    (bench_bundle, ('tiny', '--json', 'foreign'), '--json foreign'),
    (bench_bundle, ('tiny', '--plot', 'file/x.png'), '--plot file'),
    (bench_bundle, ('tiny', '--quick', '--threads', '-2'), '-2'),
]  # fmt: skip


@pytest.mark.parametrize(('program', 'words', 'named'), MISTAKES)
def test_a_mistake_is_one_line(program, words, named, capfd):
    before = sorted(Path().rglob('*'))
    assert program(list(words)) == 1
    told = [line for line in capfd.readouterr().err.splitlines() if line.startswith('error: ')]
    (line,) = told
    assert named in line
    assert 'Traceback' not in line
    assert sorted(Path().rglob('*')) == before, 'nothing is left behind'


def test_results_replace_results_and_nothing_else(caplog):
    assert evaluate_bag([*BAG, '--out', 'out']) == 0
    Path('out/notes.txt').write_text('mine')
    assert evaluate_bag([*BAG, '--out', 'out', '--storage', 'sqlite3']) == 0
    assert Path('out/notes.txt').read_text() == 'mine'
    assert 'kept what is not of the result: notes.txt' in caplog.text
    assert not list(Path('out').rglob('*.mcap')), "the old result's bag is gone"
    assert list(Path('out').rglob('*.db3'))


@pytest.mark.parametrize(
    ('error', 'status', 'said'),
    [
        (OodPerceptionError('frames is 0: give 1'), 2, 'program: frames is 0: give 1\n'),
        (PermissionError(13, 'Permission denied', '/x'), 2, 'program: /x: Permission denied\n'),
        (MemoryError('3 GiB'), 2, 'memory ran out (3 GiB)'),
        (KeyboardInterrupt(), 130, 'program: stopped\n'),
    ],
)
def test_the_outermost_handler(error, status, said, capsys):
    def work():
        raise error

    assert exit_status('program', work, 2) == status
    assert said in capsys.readouterr().err


def test_a_fault_of_ours_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        exit_status('program', lambda: 1 // 0)
