# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Every long program that is killed at any moment leaves its old result whole; caches work on."""

import json
import shutil
from pathlib import Path

import pytest
from bag_files import two_cameras, write_bag
from bundles import donor_of, write_tiny_bundle
from killing import killed_at_random
from paths import need_data

from ood_perception.bundle.store import load_bundle

pytestmark = pytest.mark.slow
F32 = ('--precision', 'f32', '--threads', '1')


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A working directory and a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('OOD_PERCEPTION_CACHE', str(tmp_path / 'cache'))
    return tmp_path


def bundle(path):
    """Return the checksum of a bundle whose every file is as its manifest says."""
    return load_bundle(path).sha256


def test_evaluate_bag(folder):
    def whole():
        report = json.loads(Path('out/report.json').read_text())
        assert Path('out/index.html').read_text().rstrip().endswith('</html>')
        assert len(Path('out/frames.csv').read_text().splitlines()) == 1 + 8
        assert Path('out/result/metadata.yaml').stat().st_size > 0
        return report

    write_bag('bag', two_cameras())
    words = ['bag', '--bundle', write_tiny_bundle('tiny'), '--out', 'out', *F32]
    killed_at_random(('ood_perception.cli.evaluate_bag', 'evaluate_bag'), words, whole)


def test_compile_bundle(folder):
    """From a .zip without weights: unpacking, completion, the trial and the engine's cache."""
    donor = donor_of(write_tiny_bundle('tiny', external_weights=True)).resolve()
    shutil.make_archive('tiny', 'zip', 'tiny')
    words = ['tiny.zip', '--engine', 'openvino', '--weights', donor, *F32]
    program = ('ood_perception.cli.bundle', 'compile_bundle')
    killed_at_random(program, words, lambda: 0, caches=['cache'])


def test_adapt_bundle(folder):
    import cv2
    from road_drives import road, write_home

    write_home('home')
    Path('clean').mkdir()
    for number in range(30):
        cv2.imwrite(f'clean/{number:03d}.png', road(number)[..., ::-1])
    words = ['home', '--clean', 'clean', '--bundle', 'mine', '--overwrite', *F32]
    program = ('ood_perception.cli.adapt', 'adapt_bundle')
    killed_at_random(program, words, lambda: bundle('mine'))


def test_train(folder):
    pytest.importorskip('torch')
    from miniature_recipes import write_miniature

    write_miniature(folder)
    words = ['train', 'recipe.yaml', '--out', 'out', '--cache', 'tokens', '--bundle', 'mine']
    words += ['--quiet', '--threads', '1']
    killed_at_random(
        ('trainer.__main__', 'main'), words, lambda: bundle('mine'), caches=['out', 'tokens']
    )


def test_quantize(folder):
    pytest.importorskip('torch')
    from quantized_bundles import write_quantized_bundle

    root = need_data('camvid').parent
    need_data('outlier_objects')
    write_quantized_bundle('tiny')
    words = ['quantize', 'tiny', '--root', root, '--frames', '1', '--images', '1', '--kept']
    words += ['--out', 'out', '--threads', '1']

    def whole():  # the speed that it measures is another one each time
        return sorted(load_bundle('tiny').manifest.precisions)

    killed_at_random(('trainer.__main__', 'main'), words, whole, caches=['out'])


def test_evaluate(folder):
    pytest.importorskip('torch')
    from evaluated_sets import BOX, SETS, anomaly_labels, write_images

    def whole():
        assert Path('out/index.html').read_text().rstrip().endswith('</html>')
        return json.loads(Path('out/results.json').read_text())['runs']

    write_images(Path(SETS[0]), anomaly_labels, [BOX, None, BOX])
    words = ['evaluate', write_tiny_bundle('tiny'), '--data', SETS[0], '--root', '.', *F32]
    words += ['--out', 'out', '--quiet']
    killed_at_random(('trainer.__main__', 'main'), words, whole)
