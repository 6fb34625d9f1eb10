# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The program ood: every command leads somewhere, help imports nothing, the shell completes."""

import os
import re
import shutil
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec

import pytest
from limits import HANGS
from paths import ROOT

from ood_perception.cli import ood


@pytest.fixture(autouse=True)
def own_argv(monkeypatch):
    """The program names itself in sys.argv[0]: that ends with the test."""
    monkeypatch.setattr(sys, 'argv', ['ood'])


@pytest.fixture
def program(tmp_path):
    """Return an environment in which `ood` is the one of this checkout."""
    script = tmp_path / 'ood'
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m ood_perception.cli.ood "$@"\n')
    script.chmod(0o755)
    path = f'{tmp_path}:{os.environ["PATH"]}'
    return {**os.environ, 'PATH': path, 'PYTHONPATH': str(ROOT)}


@pytest.mark.parametrize('name', ood.COMMANDS)
def test_every_command_is_a_function(name):
    target = ood.COMMANDS[name].function
    if target == ood.TRAINER:
        pytest.importorskip('torch', reason='the trainer needs it')
        main = import_module('trainer.__main__')
        assert name in {*main.STAGES, *main.COMMANDS}
        return
    module, _, function = target.partition(':')
    assert find_spec(module)
    assert f'def {function}(' in (ROOT / (module.replace('.', '/') + '.py')).read_text()


@pytest.mark.parametrize('name', ood.COMMANDS)
def test_help_calls_a_command_as_it_was_called(name, capsys, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['ood'])
    monkeypatch.setattr(sys.modules['__main__'], '__spec__', None)  # as an installed program
    if name in ('bench-node', 'compare-live', 'demo', 'node', 'play-bag'):
        pytest.importorskip('rclpy', reason='needs ROS 2')
    if ood.COMMANDS[name].function == ood.TRAINER:
        pytest.importorskip('torch', reason='the trainer needs it')
    with pytest.raises(SystemExit) as ended:
        ood.run(name, ['--help'])
    assert not ended.value.code
    assert re.match(rf'usage: ood {name}\s', capsys.readouterr().out)


def test_every_command_of_the_trainer_is_one_of_ood():
    source = (ROOT / 'trainer' / '__main__.py').read_text()
    table = source[source.index('STAGES = ') : source.index('ALIASES = ')]
    words = set(re.findall(r"^    '([\w-]+)': ", table, re.M)) - {
        'build',
        'adapt',
        'pick',
    }  # ood compile, the runtime's own adapt and pick
    assert words == {n for n, c in ood.COMMANDS.items() if c.function == ood.TRAINER}


def test_every_program_that_is_installed_is_a_command_by_both_names():
    source = (ROOT / 'setup.py').read_text()
    programs = dict(re.findall(r"'(\w+) = \{NAME\}([\w.]+:\w+)'", source))
    older = {c.program: c.function for c in ood.COMMANDS.values() if c.program}
    assert older == {n: f'ood_perception{f}' for n, f in programs.items() if n != 'ood'}


def test_the_old_name_runs_the_same(capsys, tiny_bundle):
    assert ood.main(['inspect_bundle', str(tiny_bundle)]) == 0
    old = capsys.readouterr().out
    assert ood.main(['inspect', str(tiny_bundle)]) == 0
    assert capsys.readouterr().out == old
    with pytest.raises(SystemExit):
        ood.main(['inspect', '--help'])
    assert 'usage: ood inspect ' in capsys.readouterr().out


@pytest.mark.parametrize('name', [n for n, c in ood.COMMANDS.items() if c.function != ood.TRAINER])
def test_every_command_has_help_and_starts_nothing(name, capsys):
    if ood.COMMANDS[name].function.startswith('ood_perception.ros.'):
        pytest.importorskip('rclpy')
    with pytest.raises(SystemExit) as end:
        ood.main([name, '--help'])
    assert end.value.code == 0
    assert f'usage: ood {name} ' in capsys.readouterr().out


def test_statuses_come_through(tmp_path, capsys):
    assert ood.main(['inspect', str(tmp_path / 'none')]) == 1
    assert ood.main(['nonsense']) == 2
    assert "no command 'nonsense'" in capsys.readouterr().err


def test_a_missing_package_is_one_line(monkeypatch, capsys):
    def gone(_):
        raise ModuleNotFoundError("No module named 'cv2'", name='cv2')

    monkeypatch.setattr(ood, 'import_module', gone)
    assert ood.main(['inspect']) == 2
    assert capsys.readouterr().err == (
        'ood inspect: the package cv2 is missing: `ood doctor` says what to install\n'
    )


def test_help_imports_nothing():
    """-S: without site-packages there is nothing to import."""
    done = subprocess.run(
        [sys.executable, '-S', '-m', 'ood_perception.cli.ood', '--help'],
        cwd=ROOT, capture_output=True, text=True, timeout=HANGS, check=True,
    )  # fmt: skip
    assert all(name in done.stdout for name in ood.COMMANDS)


def test_bash_completes_commands_options_and_files(program, tmp_path):
    if not shutil.which('bash'):
        pytest.skip('bash not found')
    (tmp_path / 'recording.mcap').touch()
    script = 'eval "$(ood completion bash)"\n' + ''.join(
        f'COMP_WORDS=({words}); COMP_CWORD={last}; _ood; echo "${{COMPREPLY[*]}}"\n'
        for words, last in (('ood eval', 1), ('ood doctor --', 2), ('ood evaluate-bag rec', 2))
    )
    done = subprocess.run(
        ['bash', '-c', script],
        cwd=tmp_path, env=program, capture_output=True, text=True, timeout=HANGS, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines() == ['evaluate-bag evaluate', '--help --json', 'recording.mcap']


def test_zsh_takes_the_same_script_through_its_own_bashcompinit(capsys):
    assert ood.completion(['bash']) == 0
    script = capsys.readouterr().out
    assert ood.completion(['zsh']) == 0
    assert capsys.readouterr().out == f'autoload -U +X bashcompinit && bashcompinit\n{script}'
