# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Files and folders come whole or not at all, over old ones, too; killed runs leave nothing."""

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from limits import HANGS

from ood_perception.errors import ConfigError
from ood_perception.files import (
    check_replaceable,
    check_writable,
    locked,
    make_file,
    make_folder,
    user_path,
)

FILLING = """
import sys, time
from pathlib import Path
from ood_perception.files import make_folder, make_file, locked
def fill(place):
    target = place / 'half' if place.is_dir() else place
    target.write_text('half')
    print('begun', flush=True)
    time.sleep(600)
{what}
"""


def begun(what):
    """A process that is in the middle of making something, or holds a lock."""
    process = subprocess.Popen(
        [sys.executable, '-c', FILLING.format(what=what)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == 'begun\n'
    return process


def result(text):
    def fill(folder):
        (folder / 'report.json').write_text(text)
        (folder / 'result').mkdir()
        (folder / 'result' / 'data').write_text(text)

    return fill


def is_ours(name):
    return name == 'report.json' or name.startswith('result/')


def test_a_home_is_found_and_that_of_an_unknown_user_stays():
    assert user_path('~/x') == Path.home() / 'x'
    assert user_path('~nosuchuser/x') == Path('~nosuchuser/x')


def test_a_failure_leaves_the_old_folder_as_it_was(tmp_path):
    place = tmp_path / 'out'
    make_folder(place, result('old'))

    def fail(folder):
        (folder / 'report.json').write_text('new')
        raise OSError(28, 'No space left on device', str(folder))

    with pytest.raises(OSError, match='out'):
        make_folder(place, fail)
    assert (place / 'result' / 'data').read_text() == 'old'
    assert [path.name for path in tmp_path.iterdir()] == ['out']


@pytest.mark.parametrize('exchange', [True, False])
def test_what_is_not_of_the_old_result_is_kept_and_named(tmp_path, caplog, monkeypatch, exchange):
    if not exchange:  # as on a file system that cannot
        monkeypatch.setattr('ood_perception.files._EXCHANGE', 1 << 30)
    place = tmp_path / 'out'
    make_folder(place, result('old'))
    (place / 'notes').mkdir()
    (place / 'notes' / 'mine.txt').write_text('mine')
    (place / 'link').symlink_to('notes/mine.txt')
    make_folder(place, result('new'), is_ours)
    assert (place / 'report.json').read_text() == 'new'
    assert (place / 'notes' / 'mine.txt').read_text() == 'mine'
    assert (place / 'link').is_symlink()
    assert 'kept what is not of the result: link, notes/mine.txt' in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ['out']


def test_there_is_a_whole_folder_at_every_moment(tmp_path):
    """A reader that looks all the time finds the old result or the new one."""
    place = tmp_path / 'out'
    make_folder(place, result('0'))
    code = (
        'import sys, time\nfrom pathlib import Path\nplace, seen = Path(sys.argv[1]), 0\n'
        'print("begun", flush=True)\n'
        'while not (place / "last").exists():\n'
        '    handle = (place / "report.json").read_text()\n'
        '    seen += 1\nprint(seen)'
    )
    reader = subprocess.Popen(
        [sys.executable, '-c', code, str(place)], stdout=subprocess.PIPE, text=True
    )
    assert reader.stdout.readline() == 'begun\n'
    for number in range(1, 40):
        make_folder(place, result(str(number)))
    (place / 'last').touch()
    out, _ = reader.communicate(timeout=HANGS)
    assert reader.returncode == 0, 'the folder was missing for a moment'
    assert int(out) > 0


@pytest.mark.parametrize('kind', ['make_folder', 'make_file'])
def test_leftovers_of_a_killed_run_are_swept_and_a_living_one_is_left_alone(tmp_path, kind):
    place = tmp_path / 'out'
    process = begun(f'{kind}(Path({str(place)!r}), fill)')
    try:
        (mine,) = tmp_path.iterdir()
        other = tmp_path / '.out.precious'
        other.write_text('not ours')
        if kind == 'make_folder':
            make = lambda: make_folder(place, result('new'))  # noqa: E731
        else:
            make = lambda: make_file(place, lambda file: file.write_text('new'))  # noqa: E731
        make()
        assert mine.exists(), 'its process lives'
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    make()
    assert sorted(path.name for path in tmp_path.iterdir()) == ['.out.precious', 'out']


def test_a_held_lock_says_who_holds_it(tmp_path, caplog):
    place = tmp_path / 'engine'
    process = begun(f'with locked(Path({str(place)!r})): fill(Path({str(tmp_path / "x")!r}))')
    ended = []
    try:
        with caplog.at_level(logging.WARNING):
            import threading

            def wait():
                with locked(place):
                    ended.append(True)

            waiting = threading.Thread(target=wait)
            waiting.start()
            end = time.monotonic() + HANGS
            while 'waiting for' not in caplog.text:
                assert time.monotonic() < end
                time.sleep(0.01)
        assert f'waiting for process {process.pid} (-c), which makes {place}' in caplog.text
        assert not ended
    finally:
        process.kill()
        process.wait()
    waiting.join(HANGS)
    assert ended, 'a lock ends with its process'


def test_places_where_no_result_can_be(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'file').touch()
    (tmp_path / 'foreign').mkdir()
    (tmp_path / 'foreign' / 'x').touch()
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'link').symlink_to('empty')
    (tmp_path / 'dangling').symlink_to('nowhere')
    for place, words in {
        '.': 'working directory',
        '..': 'working directory',
        '/': 'working directory',
        'file': 'is a file',
        'file/below': 'is a file',
        'link': 'is a link',
        'dangling': 'is a link',
        'foreign': 'holds other files',
        '/proc/out': 'cannot be written',
        'x' * 300: 'cannot be written',
    }.items():
        with pytest.raises(ConfigError, match=words):
            check_replaceable(Path(place), lambda folder: False)
    before = sorted(tmp_path.rglob('*'))
    check_replaceable(Path('empty'), lambda folder: False)
    check_replaceable(Path('new/below'), lambda folder: False)
    check_replaceable(Path('foreign'), lambda folder: True)
    assert sorted(tmp_path.rglob('*')) == before, 'a check leaves nothing behind'


@pytest.fixture(params=['size=512k', 'ro'])
def small_disk(tmp_path, request):
    """A file system that is full, or read-only."""
    place = tmp_path / 'disk'
    place.mkdir()
    mount = ['mount', '-t', 'tmpfs', '-o', request.param, 'none', str(place)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip('mounting a file system takes rights that are missing here')
    yield place
    subprocess.run(['umount', str(place)], check=True)


def test_a_full_and_a_read_only_disk_are_told_before_the_work(small_disk):
    with pytest.raises(ConfigError, match=r'No space left|Read-only'):
        check_writable(small_disk / 'out')
