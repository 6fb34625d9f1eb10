# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Texts of others move no cursor, turn no line around, run no formula and fill no log."""

import csv
import json
import logging
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
from bundles import write_manifest

from ood_perception.bundle.store import load_bundle
from ood_perception.cli.bundle import inspect_bundle
from ood_perception.errors import DataError, ImageError
from ood_perception.evaluation.results import write_csv
from ood_perception.image.decode import decode_compressed, decode_image
from ood_perception.image.image_files import tell
from ood_perception.texts import as_no_formula, from_no_formula, printable, table_cell
from trainer.data.scenes import SceneRow, read_scenes, write_scenes

ESCAPE = '\x1b[2J\x1b]0;owned\x07'
HOSTILE = [
    ESCAPE,
    'a\rb',
    'a\nerror: all is well',
    '\u202egpj.exe',
    '\u2066x\u2069',
    '\u200b',
    '\x9b31m',
    '\udc80',
    '\x00',
    '\u2028',
    '\ufeff',
]


@pytest.mark.parametrize('text', HOSTILE)
def test_what_is_not_seen_is_shown_as_an_escape(text):
    shown = printable(f'<{text}>')
    assert shown.isprintable()
    assert '\\' in shown


@pytest.mark.parametrize('text', ['Straße', '道路', 'a b', 'ضباب', "it's 5 €", ''])
def test_what_people_write_stays(text):
    assert printable(text) == text


def test_a_long_text_loses_its_middle():
    shown = printable('a' * 100_000 + 'z' * 100_000, 100)
    assert len(shown) < 150
    assert shown.startswith('aaa')
    assert shown.endswith('zzz')
    assert '(199900 characters)' in shown


@pytest.mark.parametrize('text', HOSTILE)
def test_an_error_can_be_printed(text):
    shown = str(DataError(f'class {text}: line\nnext'))
    assert shown.replace('\n', '').isprintable()
    assert shown.endswith('line\nnext')


@pytest.mark.parametrize('length', [200_000, 5_000_000])
def test_a_long_encoding_does_not_fill_the_log(length):
    long = SimpleNamespace(
        width=4, height=4, step=12, data=bytes(48), encoding='x' * length, format='x' * length
    )
    for decode in (decode_image, decode_compressed):
        with pytest.raises(ImageError) as caught:
            decode(long)
        assert len(str(caught.value)) < 5000


FORMULAS = ['=HYPERLINK("http://x","y")', '@SUM(A1)', '+1+cmd|x', '-2+3', '\t=1', '\r=1', '＝1']


@pytest.mark.parametrize('text', FORMULAS)
def test_a_spreadsheet_runs_no_cell(text, tmp_path):
    write_csv(tmp_path / 'a.csv', ['name', 'value'], [[text, -1.5], ['=x\udc80', None]])
    with (tmp_path / 'a.csv').open(newline='', encoding='utf-8') as file:
        _, row, second = csv.reader(file)
    assert row[0][0] in "'\\"
    assert row[1] == '-1.5'  # a number stays one
    assert second == ["'=x\\udc80", '']


@pytest.mark.parametrize('text', [*FORMULAS, "'=a", "''-", "'", 'a', "'a", '', 'a=b'])
def test_a_name_comes_back_from_a_table(text):
    assert from_no_formula(as_no_formula(text)) == text
    assert not as_no_formula(text).startswith(('=', '+', '-', '@', '\t', '\r'))


def test_values_that_are_no_texts_stay():
    assert [table_cell(value) for value in (-1, 0.5, None, True)] == [-1, 0.5, '', True]


def test_scenes_keep_their_names(tmp_path):
    rows = [SceneRow('-1.png', '=a', 'train'), SceneRow("'@b.png", 'b', 'val')]
    write_scenes(tmp_path / 'scenes.csv', rows)
    text = (tmp_path / 'scenes.csv').read_text()
    assert '\n-' not in text
    assert ',=' not in text
    assert sorted(read_scenes(tmp_path / 'scenes.csv'), key=str) == sorted(rows, key=str)


def test_a_log_line_is_one_line(caplog):
    with caplog.at_level(logging.WARNING):
        tell(f'folder {ESCAPE}\n: other files')
    assert caplog.messages[-1].isprintable()


@pytest.mark.parametrize('options', [[], ['--json']])
def test_a_bundle_does_not_write_into_the_terminal(tiny_bundle, tmp_path, capsys, options):
    own = shutil.copytree(tiny_bundle, tmp_path / 'own')
    values = json.loads((own / 'manifest.json').read_text())
    values['name'] = f'tiny{ESCAPE}'
    values['licences'] = ['a\u202eb', 'c\x9b31m']
    values['provenance'] = {'back\u2066bone': {'x': ESCAPE}}
    write_manifest(own, values)
    assert load_bundle(own).manifest.name == values['name']

    assert inspect_bundle([str(own), *options]) == 0

    shown = capsys.readouterr().out
    assert shown.replace('\n', '').isprintable()
    if options:
        assert json.loads(shown)['manifest']['licences'] == values['licences']


def test_a_runs_name_is_no_formula_in_a_plot():
    pytest.importorskip('matplotlib')
    from ood_perception.reports.plots import curve_plot

    curve = {'recall': [0, 1], 'precision': [1, 0.5], 'false_positive_rate': [0.01, 1]}
    names = [r'$\frac{$', '$a$ for $b$', '_hidden', f'x{ESCAPE}']
    svg = curve_plot(dict.fromkeys(names, curve), {})
    assert svg.startswith('<svg')
    assert '\x1b' not in svg


@pytest.mark.parametrize(
    ('mask', 'file', 'folder'), [(0o077, '600', '700'), (0o022, '644', '755')]
)
def test_what_is_made_is_as_private_as_the_user_wants(tmp_path, mask, file, folder):
    work = (
        'import os, sys; from pathlib import Path; os.umask(int(sys.argv[1]))\n'
        'from ood_perception.files import make_file, make_folder\n'
        'root = Path(sys.argv[2])\n'
        'make_file(root / "file", lambda path: path.touch())\n'
        'make_folder(root / "folder", lambda path: None)\n'
        'print(*(oct((root / name).stat().st_mode)[-3:] for name in ("file", "folder")))'
    )
    command = [sys.executable, '-c', work, str(mask), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [file, folder]
