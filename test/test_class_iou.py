# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Agreement with labels: counted by hand, against scikit-learn, and through a whole bundle."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

pytest.importorskip('torch')
pytest.importorskip('onnx')

from bundles import COLORS, ODD, write_tiny_bundle

from trainer.__main__ import main
from trainer.evaluation.class_iou import Agreement, agreement_table

CLASSES = ('Water', 'Sky', 'Car')
HEIGHT, WIDTH = 56, 84


def counted(labels, found):
    agreement = Agreement('b', 's', 'most likely class', CLASSES)
    agreement.add(np.array(labels, np.uint8), np.array(found, np.uint8))
    return agreement.record('Car')


def test_by_hand():
    labels = [[0, 0, 0, 0, 1, 1, 2, 255]]
    found = [[0, 0, 0, 2, 1, 0, 2, 2]]
    record = counted(labels, found)
    assert record['iou'] == {'Water': 3 / 5, 'Sky': 1 / 2, 'Car': 1 / 2}
    assert record['mean_iou'] == pytest.approx((0.6 + 0.5 + 0.5) / 3)
    assert record['pixel_accuracy'] == 5 / 7
    assert record['called_Car'] == {'Water': 1 / 4, 'Sky': 0.0}


def test_a_class_that_does_not_occur_has_no_iou():
    record = counted([[0, 0, 255]], [[0, 0, 2]])
    assert record['iou'] == {'Water': 1.0, 'Sky': None, 'Car': None}
    assert record['mean_iou'] == 1.0
    assert '100.0' in agreement_table([record])


def test_against_scikit_learn():
    metrics = pytest.importorskip('sklearn.metrics')
    rng = np.random.default_rng(0)
    for _ in range(20):
        labels, found = rng.integers(0, 3, (2, 20, 30))
        record = counted(labels, found)
        wanted = metrics.jaccard_score(labels.ravel(), found.ravel(), average=None)
        np.testing.assert_allclose(list(record['iou'].values()), wanted)


@pytest.fixture
def sea(tmp_path):
    """Sky above, water below, one odd square that its labels call Car."""
    folder = tmp_path / 'sea'
    for part in ('images', 'labels'):
        (folder / part).mkdir(parents=True)
    picture = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    picture[:28], picture[28:] = COLORS['Sky'], COLORS['Water']
    picture[28:42, 42:56] = ODD
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[:28], labels[28:42, 42:56] = 1, 2
    cv2.imwrite(str(folder / 'images/a.png'), picture[:, :, ::-1])
    cv2.imwrite(str(folder / 'labels/a.png'), labels)
    names = ', '.join(f'{{name: {name}}}' for name in CLASSES)
    (folder / 'classes.yaml').write_text(f'classes: [{names}]\n')
    return folder


@pytest.fixture(scope='module')
def bundle(tmp_path_factory):
    return write_tiny_bundle(
        tmp_path_factory.mktemp('sea') / 'bundle',
        classes=CLASSES,
        in_distribution=('Water', 'Sky'),
        ground_classes=('Water',),
    )


def test_flagged_pixels_become_the_rejecting_class(bundle, sea, tmp_path, capsys):
    out = tmp_path / 'out.json'
    data = ['--data', f'folders={sea}', '--reject', 'Car', '--threads', '1', '--quiet']
    places = ['--json', str(out), '--overlays', str(tmp_path / 'look')]
    assert main(['class-iou', str(bundle), *data, *places]) == 0
    likely, final = json.loads(out.read_text())
    assert (likely['map'], final['map']) == ('most likely class', 'final map')
    assert final['iou']['Car'] > 0.6
    assert final['iou']['Car'] >= likely['iou']['Car']
    assert final['iou']['Sky'] > 0.9
    assert '| final map |' in capsys.readouterr().out
    (overlay,) = (tmp_path / 'look').rglob('*.jpg')
    assert cv2.imread(str(overlay)).shape == (HEIGHT, 4 * WIDTH, 3)


def test_other_classes_are_refused(bundle, sea, capsys):
    (sea / 'classes.yaml').write_text('classes: [{name: a}, {name: b}, {name: c}]\n')
    arguments = ['class-iou', str(bundle), '--data', f'folders={sea}', '--quiet']
    assert main(arguments) == 2
    assert 'agreement needs the same classes' in capsys.readouterr().err
    assert main([*arguments, '--reject', 'Boat']) == 2
