# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""YAML words mean one thing everywhere; what cannot be meant is an error with its place."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ood_perception.bags.metadata import find_files
from ood_perception.errors import ConfigError, DataError
from ood_perception.parameters.files import read_sections
from ood_perception.typed_values import build
from ood_perception.yaml_files import dump_yaml, parse_yaml, read_mapping, read_yaml

WORDS = [
    ('1e-3', 0.001), ('1e3', 1000.0), ('1.5E3', 1500.0), ('-.5e+2', -50.0), ('.5', 0.5),
    ('5.', 5.0), ('1.0e-3', 0.001), ('+1', 1), ('-7', -7), ('0', 0), ('0x10', 16),
    ('-0x1F', -31), ('010', 8), ('08', 8.0), ('1_000', '1_000'), ('12:30', '12:30'),
    ('2026-01-31', '2026-01-31'), ('1e', '1e'), ('1.2.3', '1.2.3'), ('0b11', '0b11'),
    ('yes', True), ('Off', False), ('on', True), ('NO', False), ('true', True), ('y', 'y'),
    ('"1e-3"', '1e-3'), ("'no'", 'no'), ('!!str 5', '5'), ('!!float 5', 5.0),
    ('!!int "7"', 7), ('9223372036854775807', 2**63 - 1), ('.inf', math.inf),
    ('-.INF', -math.inf), ('~', None), ('none', 'none'),
]  # fmt: skip


@pytest.mark.parametrize(('word', 'value'), WORDS)
def test_a_word_is_what_a_reader_of_parameters_takes_it_for(word, value):
    found = parse_yaml(f'a: {word}', 'file')['a']
    assert found == value
    assert type(found) is type(value)


def test_nan_is_a_number():
    assert math.isnan(parse_yaml('.nan', 'file'))


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('a: 1\nb: 2\na: 3\n', ["'a'", 'line 3', 'line 1']),
        ('x:\n  a: 1\n  a: 1\n', ["'a'", 'line 3', 'line 2']),
        ('a: [1, 2\nb: 3\n', ['line 2']),
        ('a: b: c\n', ['line 1, column 5']),
        ('a:\n\tb: 1\n', ['line 2', 'spaces']),
        ('a: !!python/name:os.system x\n', ['line 1', 'os.system']),
        ('a: !!int five\n', ["'five' is not a whole number", 'line 1']),
        ('a: 9223372036854775808\n', ['is not a whole number of 64 bits', 'line 1']),
        (f'a: 1{"0" * 400}\n', ['is not a whole number of 64 bits', 'line 1']),
        ('a: *nowhere\n', ['nowhere']),
        ('[' * 5000, ['nested']),
    ],
)
def test_what_is_no_yaml_is_said_in_one_line_with_its_place(tmp_path, text, words):
    path = tmp_path / 'recipe.yaml'
    path.write_text(text)
    with pytest.raises(ConfigError) as raised:
        read_yaml(path, 'recipe')
    for word in (str(path), *words):
        assert word in str(raised.value)
    assert '\n' not in str(raised.value)


def test_a_file_that_cannot_be_read_is_an_error_of_the_callers_kind(tmp_path):
    with pytest.raises(DataError, match=r'class map .*nowhere'):
        read_yaml(tmp_path / 'nowhere', 'class map', DataError)
    (tmp_path / 'latin').write_bytes('a: Straße'.encode('latin-1'))
    with pytest.raises(DataError, match='UTF-8'):
        read_yaml(tmp_path / 'latin', 'class map', DataError)
    (tmp_path / 'list').write_text('- a')
    with pytest.raises(ConfigError, match='keys and values'):
        read_mapping(tmp_path / 'list', 'table')


def test_an_alias_may_be_merged_and_overridden():
    found = parse_yaml('x: &x {a: 1, b: 2}\ny:\n  <<: *x\n  a: 3\n', 'file')
    assert found['y'] == {'a': 3, 'b': 2}


def test_what_is_written_is_read_again():
    values = {'texts': ['1e3', 'no', '0x10', 'ümlaut', '', '~'], 'numbers': [1e-7, 3, True, None]}
    assert parse_yaml(dump_yaml(values), 'file') == values


def laughs(levels, form):
    """Return lists (or merged maps) of ten aliases each: ten to the power of `levels` values."""
    lines = ['a0: &a0 {x: 1}']
    for level in range(levels):
        ten = ', '.join([f'*a{level}'] * 10)
        lines.append(f'a{level + 1}: &a{level + 1} {form.format(ten)}')
    return '\n'.join(lines)


@pytest.mark.parametrize('form', ['[{}]', '{{<<: [{}]}}'])
def test_aliases_that_multiply_are_refused(tmp_path, form):
    assert 'a3' in parse_yaml(laughs(3, form), 'file')
    path = tmp_path / 'file.yaml'
    path.write_text(laughs(9, form))
    with pytest.raises(ConfigError, match=r'line \d+, column \d+: with its aliases written out'):
        read_yaml(path, 'recipe')
    with pytest.raises(ConfigError, match='aliases'):
        read_sections(path, lambda text: None)
    (tmp_path / 'metadata.yaml').write_text(laughs(9, form))
    with pytest.raises(DataError, match='aliases'):
        find_files(tmp_path)


def test_a_long_text_is_not_multiplied_either():
    lines = f'a: &a {"x" * 100_000}\nb: [{", ".join(["*a"] * 100)}]'
    with pytest.raises(ConfigError, match='aliases'):
        parse_yaml(lines, 'file')


@pytest.mark.parametrize('text', ['a: &a [*a]', 'a: &a {b: {c: *a}}', '&a [*a]'])
def test_an_alias_of_what_it_lies_in_is_refused(text):
    with pytest.raises(ConfigError, match='inside of what it names'):
        parse_yaml(text, 'file')


def test_a_file_that_is_too_long_is_refused_unread(tmp_path):
    path = tmp_path / 'file.yaml'
    with path.open('wb') as file:
        file.truncate(64 << 30)
    with pytest.raises(ConfigError, match='more than 2 MiB'):
        read_yaml(path, 'recipe')
    with pytest.raises(ConfigError, match='more than 2 MiB'):
        read_yaml(Path('/dev/zero'), 'recipe')


@dataclass(frozen=True)
class Wheel:
    spokes: int
    size: float = 28.0


@dataclass(frozen=True)
class Bicycle:
    wheels: tuple[Wheel, ...]
    name: str | None = None
    extras: Any = ()


def test_values_become_typed_dataclasses():
    made = build(Bicycle, {'wheels': [{'spokes': 36, 'size': 26}], 'extras': 7}, 'b.yaml')
    assert made == Bicycle((Wheel(36, 26.0),), None, 7)
    assert isinstance(made.wheels[0].size, float)


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('[1]', r'expected keys and values, found \[1\]; known keys are wheels, name, extras'),
        ('wheels: 3', 'wheels is 3, expected a list'),
        ('name: x', r"lacks \['wheels'\]; known keys are wheels, name"),
        ('wheels: [{spokes: 1}, {spoke: 1}]', r"wheels 2: unknown \['spoke'\].*mean 'spokes'\?"),
        ('wheels: [{spokes: 1.5}]', r'wheels 1: spokes is 1\.5, expected a whole number'),
        ('wheels: [{spokes: yes}]', 'wheels 1: spokes is True, expected a whole number'),
        ('wheels: [{spokes: 1, size: .inf}]', 'wheels 1: size is inf, expected a number'),
        ('{wheels: [], name: 3}', 'name is 3, expected text'),
    ],
)
def test_a_wrong_key_or_value_is_named_with_place_and_remedy(text, words):
    with pytest.raises(DataError, match=rf'^b\.yaml: {words}'):
        build(Bicycle, parse_yaml(text, 'b.yaml'), 'b.yaml', DataError)
