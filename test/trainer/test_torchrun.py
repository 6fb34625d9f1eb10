# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Several processes at one training give the head of one."""

from __future__ import annotations

import subprocess
import sys

import pytest
from limits import HANGS
from paths import ROOT

torch = pytest.importorskip('torch')
pytest.importorskip('transformers')
pytest.importorskip('onnx')

from miniature_recipes import miniature  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from ood_perception.bundle.store import load_bundle  # noqa: E402
from trainer.calibration.monotone_curve import CurveModule  # noqa: E402
from trainer.heads.pixood.training import load_model  # noqa: E402

__all__ = ['miniature']  # fixtures


def torchrun(root, processes, stage='train'):
    """Train the miniature by so many processes, with a cache of their own; return the folder."""
    out = root / f'by_{processes}'
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone']
    command += ['--nproc-per-node', str(processes), '-m', 'trainer', stage]
    command += [str(root / 'recipe.yaml'), '--out', str(out), '--cache', str(out / 'cache')]
    command += ['--quiet', '--threads', '1']
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=HANGS, check=False
    )
    assert done.returncode == 0, done.stderr
    return out


def tensors_of(out):
    """Return all that was learned, by name."""
    found = {}
    for kind in ('classifier', 'fit-pixood', 'calibrate-pixood'):
        (folder,) = out.glob(f'{kind}-*/')
        for file in folder.glob('*.safetensors'):
            found |= {f'{kind}/{name}': value for name, value in load_file(file).items()}
    return found


def p_values(out):
    """Return what the served calibration curves make of the same scores, by class."""
    (folder,) = out.glob('calibrate-pixood-*/')
    curves = load_model(folder).held_out_curves
    scores = torch.linspace(-100, 200, 5000)
    return {name: 10 ** -CurveModule(curve)(scores) for name, curve in curves.items()}


@pytest.mark.slow
def test_two_processes_give_the_head_of_one(miniature):
    one, two = (tensors_of(torchrun(miniature, count)) for count in (1, 2))
    assert one.keys() == two.keys()
    assert len(one) > 6
    for name, value in one.items():
        if 'held_out' not in name:  # a curve of counts: rounding moves a step of it
            torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-3, msg=name)
    first, second = (p_values(miniature / f'by_{count}') for count in (1, 2))
    for name, values in first.items():
        torch.testing.assert_close(second[name], values, rtol=0, atol=0.01)
    assert load_bundle(miniature / 'by_2' / 'bundle').manifest.name == 'miniature'
    assert not list((miniature / 'by_2').glob('*.ckpt'))
