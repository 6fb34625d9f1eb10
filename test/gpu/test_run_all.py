# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The GPU script: a dry run on the CPU, calm without a GPU, and itself where there is one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip('torch')
pytest.importorskip('transformers')
SCRIPT = Path(__file__).with_name('run_all.py')


def run(*arguments):
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=580)


def cases_of(path):
    found = json.loads(path.read_text())
    return {case['case']: case.get('result') for case in found['cases']}, found


def test_without_a_gpu_it_says_so_and_ends_well():
    if torch.cuda.is_available():
        pytest.skip('this machine has a GPU')
    result = run()

    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith('nothing was measured: torch ')
    assert 'sees no NVIDIA GPU' in result.stdout


@pytest.mark.slow
def test_a_dry_run_goes_through_every_case(tmp_path):
    result = run('--dry-run', '--json', tmp_path / 'gpu.json')

    assert result.returncode == 0, result.stderr
    cases, found = cases_of(tmp_path / 'gpu.json')
    assert found['left_out'] == []
    assert cases['tiny 56x84 torch']['token_cosine']['least'] > 0.99
    for classes in (2, 19):
        for factor in (1, 7):
            head = cases[f'tiny 56x84 torch head {classes} classes x{factor}']
            assert head['eager_ms'] > 0
    shares = [case['share'] for case in found['cases'] if 'share' in case]
    assert len(shares) == 4
    ran = cases['tiny 56x84 onnxruntime_fused f32']
    assert ran['surprisal_difference_99.9'] < 1e-3
    built = cases['tiny 56x84 tensorrt_fused fp16']
    if isinstance(built, dict):
        assert built['bytes'] > 1000
    else:
        assert 'needs its package' in built


def test_what_the_time_does_not_suffice_for_is_named(tmp_path):
    result = run('--dry-run', '--seconds', '1', '--json', tmp_path / 'gpu.json')

    assert result.returncode == 0, result.stderr
    assert 'left out: tiny 56x84 torch,' in result.stdout


@pytest.mark.gpu
@pytest.mark.slow
def test_on_a_gpu_everything_is_measured(tmp_path):
    if not torch.cuda.is_available():
        pytest.skip('torch sees no NVIDIA GPU')
    result = run('--json', tmp_path / 'gpu.json', '--seconds', '420')

    assert result.returncode == 0, result.stderr
    cases, _ = cases_of(tmp_path / 'gpu.json')
    first = cases['dinov2-s14 518x1036 torch']
    assert first['half_graph_ms'] < first['f32_eager_ms']
    assert first['token_cosine']['mean'] > 0.999
