# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Several processes at one training give the head of one."""

from __future__ import annotations

import pytest

torch = pytest.importorskip('torch')
pytest.importorskip('transformers')
pytest.importorskip('onnx')

from miniature_recipes import miniature, write_miniature  # noqa: E402
from torchrun import end, kill_one, learned, start, train  # noqa: E402

from ood_perception.bundle.store import load_bundle  # noqa: E402
from trainer.calibration.monotone_curve import CurveModule  # noqa: E402
from trainer.heads.pixood.training import load_model  # noqa: E402

__all__ = ['miniature']  # fixtures


def p_values(out):
    """Return what the served calibration curves make of the same scores, by class."""
    (folder,) = out.glob('calibrate-pixood-*/')
    curves = load_model(folder).held_out_curves
    scores = torch.linspace(-100, 200, 5000)
    return {name: 10 ** -CurveModule(curve)(scores) for name, curve in curves.items()}


def assert_same(one, other, *kinds):
    one, other = (learned(out, *kinds) for out in (one, other))
    assert one.keys() == other.keys()
    assert len(one) > 3
    for name, value in one.items():
        if 'held_out' not in name:  # a curve of counts: rounding moves a step of it
            torch.testing.assert_close(other[name], value, rtol=1e-3, atol=1e-3, msg=name)


@pytest.mark.slow
def test_two_processes_give_the_head_of_one(miniature):
    one, two = (train(miniature, count) for count in (1, 2))
    assert_same(one, two, 'classifier', 'fit-pixood', 'calibrate-pixood')
    first, second = p_values(one), p_values(two)
    for name, values in first.items():
        torch.testing.assert_close(second[name], values, rtol=0, atol=0.01)
    assert load_bundle(two / 'bundle').manifest.name == 'miniature'
    assert not list(two.glob('*.ckpt'))


@pytest.mark.slow
def test_a_process_that_is_killed_in_the_extraction_costs_no_block_that_was_made(tmp_path):
    root = write_miniature(tmp_path, images=64)
    words = ['--set', 'view.height=448', '--set', 'view.width=448']
    out, cache = root / 'killed', root / 'killed' / 'cache' / 'features'
    running = start(root / 'recipe.yaml', out, 2, *words, stage='features', restarts=1)
    kill_one(running, lambda: len([*cache.glob('*/labels.*.npy')]) > 1)
    made = {path: path.stat().st_mtime_ns for path in cache.glob('*/*.npy')}
    end(running, out)
    assert {path: path.stat().st_mtime_ns for path in made} == made
    whole = train(root, 1, *words, stage='features')
    files = [path.relative_to(whole) for path in whole.glob('cache/features/*/*.npy')]
    assert len(files) == 3 * 4  # two layers and the labels, in blocks of 16 images
    for file in files:
        assert (out / file).read_bytes() == (whole / file).read_bytes()


@pytest.mark.slow
def test_a_process_that_is_killed_in_a_training_costs_what_came_after_the_checkpoint(tmp_path):
    root = write_miniature(tmp_path)
    words = ['--set', 'condensation.epochs=300']
    out = root / 'killed'
    running = start(root / 'recipe.yaml', out, 2, *words, stage='fit', restarts=1)
    kill_one(running, lambda: any(out.glob('fit-pixood-*.ckpt')))
    end(running, out)
    assert 'goes on after epoch' in out.with_suffix('.log').read_text()
    assert_same(train(root, 1, *words, stage='fit'), out, 'classifier', 'fit-pixood')
