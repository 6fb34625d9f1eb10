# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""inspect_bundle, compile_bundle and bench_bundle as a user runs them."""

import json
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
from bundles import donor_of, write_tiny_bundle
from limits import HANGS

from ood_perception.cli.bundle import bench_bundle, compile_bundle, inspect_bundle
from ood_perception.image.views import ViewSpec
from ood_perception.postprocess.calibration import HeldOutSample


@pytest.fixture
def incomplete(tmp_path, monkeypatch):
    monkeypatch.setenv('OOD_PERCEPTION_CACHE', str(tmp_path / 'cache'))
    monkeypatch.delenv('OOD_PERCEPTION_WEIGHTS', raising=False)
    return write_tiny_bundle(tmp_path / 'tiny', external_weights=True)


def test_inspect_shows_what_a_user_must_know(incomplete, capsys):
    assert inspect_bundle([str(incomplete)]) == 0

    text = capsys.readouterr().out
    for part in (
        'tiny, format 1', '5 files match', '56 x 84, patch 14',
        'put in place when it is loaded: from tiny-donor 1.0',
        '0 Road (normal, ground)', 'score grid 8 x 12', 'selection min, calibration held-out',
        'Apache-2.0: made by the tests', 'licences and notices', 'head.onnx',
    ):  # fmt: skip
        assert part in text, text


def test_inspect_names_the_classes_with_too_few_held_out_pixels(tiny_bundle, capsys, monkeypatch):
    truth = np.repeat([0, 1], [2000, 150]).astype(np.uint8)
    sample = HeldOutSample(
        ('road', 'pole', 'tram'), np.zeros((2150, 1)), truth, np.ones(2150, np.float32)
    )
    monkeypatch.setattr('ood_perception.cli.describe.read_samples', lambda _: {'one': sample})
    assert inspect_bundle([str(tiny_bundle)]) == 0
    text = capsys.readouterr().out
    assert (
        'one: pole alone has 150 held-out pixels, which bound a false alarm rate of 0.02' in text
    )
    assert 'one: tram has no held-out pixels' in text
    assert 'road alone' not in text
    assert inspect_bundle([str(tiny_bundle), '--json']) == 0
    found = json.loads(capsys.readouterr().out)['held_out_pixels']
    assert found == {'one': {'road': 2000, 'pole': 150, 'tram': 0}}


def test_inspect_names_the_views_and_draws_them_on_a_frame(tmp_path, capsys):
    views = (ViewSpec('far', 0.5, 0.5, 0.5), ViewSpec('left', 0.0, 0.5, 0.25))
    path = write_tiny_bundle(tmp_path / 'tiny', height=56, width=112, views=views)
    frame, out = tmp_path / 'frame.png', tmp_path / 'drawn.png'
    cv2.imwrite(str(frame), np.zeros((200, 400, 3), np.uint8))
    assert inspect_bundle([str(path), '--draw', str(frame), '--out', str(out)]) == 0
    captured = capsys.readouterr()
    assert 'far: 50% of the width about (0.5, 0.5) of the frame' in captured.out
    assert 'left: 25% of the width about (0, 0.5) of the frame' in captured.out
    assert f'views drawn: {out}' in captured.err
    drawn = cv2.imread(str(out))
    assert drawn.shape == (200, 400, 3)
    for row, column in ((0, 200), (50, 200), (149, 250), (100, 100), (100, 299), (124, 50)):
        assert drawn[row, column].any(), (row, column)
    assert not drawn[100, 200].any()
    assert inspect_bundle([str(path), '--draw', str(tmp_path / 'none.png')]) == 1
    assert capsys.readouterr().err.count('\n') == 1


def test_a_bench_counts_the_images_of_all_views(tmp_path, capsys):
    path = write_tiny_bundle(tmp_path / 'tiny', height=56, width=112, views=(ViewSpec('far'),))
    out = tmp_path / 'bench.json'
    options = ['--quick', '--engine', 'openvino', '--precision', 'f32', '--threads', '1']
    views = ['--views', 'whole', 'crop', 'all', '--batch', '2', '--camera', '320x160']
    assert bench_bundle([str(path), *options, *views, '--json', str(out)]) == 0
    text = capsys.readouterr().out
    assert all(part in text for part in ('2, whole alone', '2, crop alone', '2, 4 images')), text
    results = json.loads(out.read_text())['results']
    assert [result['images'] for result in results] == [2, 2, 4]
    flops = [result['operations']['backbone'] for result in results]
    assert flops == [flops[0], flops[0], 2 * flops[0]]


def test_inspect_takes_the_named_default(tiny_bundle, capsys, monkeypatch):
    monkeypatch.setenv('OOD_PERCEPTION_BUNDLE', str(tiny_bundle))
    assert inspect_bundle([]) == 0
    assert str(tiny_bundle) in capsys.readouterr().out


def test_inspect_gives_json(tiny_bundle, capsys):
    assert inspect_bundle([str(tiny_bundle), '--json', '--check', '--precision', 'f32']) == 0

    values = json.loads(capsys.readouterr().out)
    assert values['manifest']['format'] == 1
    assert values['weights'] == {'place': 'inside the graphs'}
    assert values['engine']['precision'] == 'f32'
    assert values['golden']['surprisal_difference'] <= 0.01


def test_a_bad_bundle_is_one_line_and_status_1(tiny_bundle, tmp_path, capsys):
    own = shutil.copytree(tiny_bundle, tmp_path / 'own')
    (own / 'head.onnx').write_bytes(b'other')

    assert inspect_bundle([str(own)]) == 1

    captured = capsys.readouterr()
    assert captured.out == ''
    assert captured.err.startswith('error: ')
    assert captured.err.count('\n') == 1
    assert 'head.onnx has 5 bytes' in captured.err


def test_compile_completes_checks_and_says_where(incomplete, tmp_path, capsys):
    arguments = [str(incomplete), '--weights', str(donor_of(incomplete)), '--threads', '1']
    assert compile_bundle([*arguments, '--precision', 'f32', '--classes', 'Road', 'Sky']) == 0

    text = capsys.readouterr().out
    assert str(tmp_path / 'cache') in text
    assert 'classes    Road, Sky' in text
    assert 'f32 in' in text
    assert 'distinct values 100.0%' in text

    assert compile_bundle([*arguments, '--precision', 'f32', '--json']) == 0
    captured = capsys.readouterr()
    values = json.loads(captured.out)
    assert values['bundle'] == 'tiny'
    assert values['golden'].keys() >= {'surprisal_difference', 'rank_correlation'}
    assert 'weights ' in captured.err


@pytest.mark.parametrize(
    ('arguments', 'part'),
    [
        (['--precision', 'fp8'], "precision 'fp8'"),
        (['--classes', 'Moon'], 'compiled classes Moon'),
        (['--head', 'uem'], "head 'uem'"),
        (['--threads', '-2'], 'threads -2'),
    ],
)
def test_a_wrong_option_is_one_line(tiny_bundle, arguments, part, capsys):
    assert compile_bundle([str(tiny_bundle), *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith('error: ')
    assert part in error
    assert error.count('\n') == 1


def test_bench_measures_every_combination(tiny_bundle, tmp_path, capsys):
    pytest.importorskip('onnxruntime')
    file = tmp_path / 'bench.json'
    arguments = ['--engine', 'openvino', 'onnxruntime', '--precision', 'f32', 'fp8', '--quick']
    counts = ['--batch', '2', '--warmup', '1', '--threads', '1', '--camera', '96x64']

    assert bench_bundle([str(tiny_bundle), *arguments, *counts, '--json', str(file)]) == 0

    values = json.loads(file.read_text())
    assert values['machine']['cores'] >= 1
    good = [result for result in values['results'] if 'error' not in result]
    assert [result['engine']['runtime'] for result in good] == ['openvino', 'onnxruntime']
    for result in good:
        stages = result['stages_ms']
        outer = {'preprocess', 'inference', 'postprocess', 'total'}
        assert set(stages) == {'backbone', 'head', *outer}
        assert 0 < result['share_of_peak']['backbone'] < 1
        assert result['case']['bundle'] == tiny_bundle.name
        assert stages['total']['p5'] <= stages['total']['p50'] <= stages['total']['p99']
        assert stages['total']['p50'] >= stages['head']['p5']
        assert result['frames_per_second'] > 0
        assert 20 < result['rss_mb'] < 2000
    text = capsys.readouterr().out
    assert text.count("precision 'fp8'") == 2
    assert 'openvino' in text


def test_bench_fails_when_nothing_could_be_measured(tiny_bundle, capsys):
    assert bench_bundle([str(tiny_bundle), '--precision', 'fp8', '--runs', '1']) == 1
    assert bench_bundle([str(tiny_bundle), '--runs', '0']) == 1
    assert 'at least 1 run' in capsys.readouterr().err


@pytest.mark.parametrize('program', ['inspect_bundle', 'compile_bundle', 'bench_bundle'])
def test_help_needs_no_runtime(program):
    code = (
        'import sys\n'
        "sys.modules.update({'openvino': None, 'onnxruntime': None, 'onnx': None})\n"
        f'from ood_perception.cli.bundle import {program}\n'
        f'{program}(["--help"])\n'
    )
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, timeout=HANGS, check=False
    )
    assert done.returncode == 0, done.stderr
    text = ' '.join(done.stdout.split())
    assert '.zip or shipped name' in text
    assert 'default: the road' in text
