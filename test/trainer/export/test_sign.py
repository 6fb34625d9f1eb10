# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The command `sign`: keys, passwords, mistakes; what it signs is what minisign accepts."""

import os
import shutil
import stat
import subprocess
import sys

import pytest
from limits import HANGS
from paths import ROOT

from ood_perception.bundle.signatures import SIGNATURE_NAME
from ood_perception.bundle.store import load_bundle

pytest.importorskip('torch')
pytest.importorskip('minisign', reason='needs py-minisign (extra sign)')
from trainer.__main__ import main


@pytest.fixture
def own(tiny_bundle, tmp_path, monkeypatch):
    monkeypatch.setenv('OOD_SIGN_PASSWORD', '')
    return shutil.copytree(tiny_bundle, tmp_path / 'own')


def test_a_key_is_made_and_signs(own, tmp_path, capsys):
    key = tmp_path / 'my.key'
    assert main(['sign', str(own), '--key', str(key), '--make-key']) == 0

    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    load_bundle(own, require_signature=[str(key) + '.pub'])
    told = capsys.readouterr()
    line = (tmp_path / 'my.key.pub').read_text().splitlines()[1]
    assert line in told.out + told.err
    load_bundle(own, require_signature=[line])


def test_a_password_is_needed_again(own, tmp_path, monkeypatch, capsys):
    key = str(tmp_path / 'my.key')
    monkeypatch.setenv('OOD_SIGN_PASSWORD', 'right')
    assert main(['sign', str(own), '--key', key, '--make-key']) == 0
    (own / SIGNATURE_NAME).unlink()

    monkeypatch.setenv('OOD_SIGN_PASSWORD', 'wrong')
    assert main(['sign', str(own), '--key', key]) == 2
    assert 'wrong password' in capsys.readouterr().err
    assert not (own / SIGNATURE_NAME).exists()
    monkeypatch.setenv('OOD_SIGN_PASSWORD', 'right')
    assert main(['sign', str(own), '--key', key]) == 0


def test_without_a_terminal_it_says_where_the_password_is_looked_for(own, tmp_path, monkeypatch):
    monkeypatch.delenv('OOD_SIGN_PASSWORD')
    command = [
        sys.executable,
        '-m',
        'trainer',
        'sign',
        str(own),
        '--key',
        str(tmp_path / 'my.key'),
    ]
    ended = subprocess.run(
        [*command, '--make-key'], stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=HANGS, cwd=ROOT, start_new_session=True,
    )  # fmt: skip
    assert ended.returncode == 2
    assert 'no terminal to ask on; set OOD_SIGN_PASSWORD' in ended.stderr
    assert 'Traceback' not in ended.stderr
    assert not list(tmp_path.glob('my.key*'))


def test_a_key_is_never_written_over(own, tmp_path, capsys):
    key = tmp_path / 'my.key'
    key.write_text('something else')
    assert main(['sign', str(own), '--key', str(key), '--make-key']) == 2
    assert 'is there already' in capsys.readouterr().err
    assert key.read_text() == 'something else'


def test_damaged_bundles_are_not_signed(own, tmp_path, capsys):
    (own / 'MODEL_CARD.md').write_text('altered')
    assert main(['sign', str(own), '--key', str(tmp_path / 'my.key'), '--make-key']) == 2
    assert 'MODEL_CARD.md' in capsys.readouterr().err
    assert not (own / SIGNATURE_NAME).exists()


@pytest.mark.parametrize('comment', ['two\nlines', 'x' * 9000])
def test_comments_that_do_not_fit_are_refused(own, tmp_path, capsys, comment):
    key = str(tmp_path / 'my.key')
    assert main(['sign', str(own), '--key', key, '--make-key', '--comment', comment]) == 2
    assert '--comment' in capsys.readouterr().err


def test_a_file_that_is_no_key_is_a_mistake(own, tmp_path, capsys):
    (tmp_path / 'no.key').write_text('hello')
    assert main(['sign', str(own), '--key', str(tmp_path / 'no.key')]) == 2
    assert 'cannot be used' in capsys.readouterr().err


@pytest.mark.skipif(not shutil.which('minisign'), reason='needs minisign')
def test_the_program_minisign_accepts_the_signature(own, tmp_path):
    key = str(tmp_path / 'my.key')
    main(['sign', str(own), '--key', key, '--make-key'])
    command = ['minisign', '-V', '-p', f'{key}.pub', '-m', str(own / 'manifest.json')]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))
    assert 'tiny' in done.stdout, done.stderr
