# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Every command that a page shows can be typed: its options, arguments and parameters exist."""

import ast
import re
import sys
from functools import cache
from importlib.util import find_spec
from itertools import pairwise

import pytest
from paths import ROOT

from ood_perception.bundle.store import DEFAULT_BUNDLE, SHIPPED_BUNDLES, load_bundle
from ood_perception.cli import ood
from ood_perception.parameters.table import BY_NAME

PAGES = (ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *sorted((ROOT / 'docs').rglob('*.md')))
OLDER = {command.program: name for name, command in ood.COMMANDS.items() if command.program}
SHIPPED = {folder.name for folder in SHIPPED_BUNDLES.iterdir()}
ALIASES = {'table-bundles': 'study', 'build': 'compile'}
ROS = {name for name, command in ood.COMMANDS.items() if '.ros' in command.function}


def shown():
    """Yield (page, the words) of every command of ours in a block of shell."""
    for page in PAGES:
        blocks = re.findall(r'^ *```sh.*?\n(.*?)^ *```', page.read_text('utf-8'), re.M | re.S)
        for line in re.sub(r'\\\n', ' ', '\n'.join(blocks)).splitlines():
            words = line.split(' #')[0].split()
            while words and re.match(r'[A-Z_]+=', words[0]):  # variables before the program
                words = words[1:]
            yield page.relative_to(ROOT).as_posix(), words


def command_of(words):
    """Return the subcommand of `ood` that the words run and its own words, None for another."""
    if words[:3] == ['ros2', 'run', 'ood_perception']:
        words = words[3:]
    if words[:3] == ['python', '-m', 'trainer']:
        words = ['ood', *words[3:]]
    first, rest = (words[0], words[1:]) if words else ('', [])
    if first in OLDER:
        return OLDER[first], rest
    if first in ('ood', 'ood_trainer') and rest:
        return ALIASES.get(rest[0], rest[0]), rest[1:]
    return None


COMMANDS = [(page, *found) for page, words in shown() if (found := command_of(words))]
LAUNCHES = [
    (page, words[3], words[4:])
    for page, words in shown()
    if words[:3] == ['ros2', 'launch', 'ood_perception']
]


@pytest.fixture
def options(monkeypatch, capsys):
    """Return what gives the options that a command's --help names."""
    monkeypatch.setattr(sys, 'argv', ['ood'])

    def named(name):
        if name in ROS:
            pytest.importorskip('rclpy', reason='needs ROS 2')
        if ood.COMMANDS[name].function == ood.TRAINER:
            pytest.importorskip('torch', reason='the trainer needs it')
        with pytest.raises(SystemExit):
            ood.run(name, ['--help'])
        return set(re.findall(r'--[a-z][a-z0-9-]*', capsys.readouterr().out))

    return named


def test_pages_show_many_commands():
    assert len(COMMANDS) > 60
    assert len(LAUNCHES) > 10


@pytest.mark.parametrize('name', sorted({name for _, name, _ in COMMANDS}))
def test_options_of_commands_are_there(options, name):
    assert name in ood.COMMANDS
    known = options(name) if name != 'node' else {'--ros-args', '--enclave'}
    for page, command, words in COMMANDS:
        if command == name:
            used = {word.partition('=')[0] for word in words if re.match(r'--[a-z]', word)}
            assert used <= known, f'{page}: {name} {" ".join(words)}'


def test_files_that_commands_name_are_in_the_package():
    for page, _, words in COMMANDS:
        for word in words:
            if word.startswith('config/'):
                assert (ROOT / word).is_file(), f'{page}: {word}'


def test_labels_are_of_classes_that_the_bundle_knows():
    """A page of an earlier default bundle would name none."""
    datasets = pytest.importorskip('trainer.datasets', reason='the trainer needs torch')
    camvid = datasets.SETS['camvid'].class_map
    of_bundles = [f for f in COMMANDS if f[1] == 'evaluate' or '--labels' in f[2]]
    checked = 0
    for page, _, words in of_bundles:
        if '--runs' in words or not any(word.startswith('camvid/') for word in words):
            continue
        first = next(i for i, word in enumerate(words) if word.startswith('-'))
        for name in set(words[:first] or [DEFAULT_BUNDLE.name]) & SHIPPED:
            known = {one.name for one in load_bundle(name).manifest.classes}
            assert set(camvid.names) <= known, f'{page}: {" ".join(words)}'
            checked += 1
    assert checked


def test_modules_that_are_run_are_there():
    for page, words in shown():
        if words[:2] == ['python', '-m'] and words[2].startswith(('ood_perception', 'trainer')):
            assert find_spec(words[2]), f'{page}: {words[2]}'


@cache
def arguments_of(file):
    """Return the names that a launch file declares."""
    tree = ast.parse((ROOT / 'launch' / file).read_text())
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and statement.targets[0].id == 'ARGUMENTS':
            return {row.elts[0].value for row in statement.value.elts}
    raise AssertionError(f'{file} has no ARGUMENTS')


def test_launch_arguments_are_there():
    for page, file, words in LAUNCHES:
        known = arguments_of(file) | arguments_of('road_anomaly.launch.py')
        given = {word.partition(':=')[0] for word in words if ':=' in word}
        assert given <= known, f'{page}: {file} {" ".join(words)}'


def test_parameters_that_are_set_are_there():
    for page, words in shown():
        if words[:3] == ['ros2', 'param', 'set']:
            assert words[4] in BY_NAME, f'{page}: {" ".join(words)}'
        for flag, word in pairwise(words):
            if flag == '-p' and ':=' in word:
                assert word.partition(':=')[0] in BY_NAME, f'{page}: {" ".join(words)}'


def test_files_that_the_makefile_tests_are_there():
    named = re.findall(r'[\w/]+/test_\w+\.py', (ROOT / 'Makefile').read_text())
    assert len(named) > 10
    assert not [
        name for name in named if not (ROOT / 'test' / name.removeprefix('test/')).is_file()
    ]
