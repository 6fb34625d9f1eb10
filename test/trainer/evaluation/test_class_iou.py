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

from ood_perception.evaluation.class_labels import FINAL, LIKELY, label_agreement, label_groups
from ood_perception.image.geometry import geometry_for
from ood_perception.reports.tables import group_table
from ood_perception.types import Detection, Frame
from trainer.__main__ import main

CLASSES = ('Water', 'Sky', 'Car')
HEIGHT, WIDTH = 56, 84


def detection(found, mask=None):
    """Return a detection whose grid is the image."""
    cells = np.array(found, np.uint8)
    flagged = np.zeros(cells.shape, bool) if mask is None else np.array(mask, bool)
    frame = Frame(np.zeros((*cells.shape, 3), np.uint8))
    return Detection(
        frame, np.zeros(cells.shape, np.float32), cells, np.ones(cells.shape, bool), flagged, (),
        geometry_for(cells.shape, cells.shape, 'stretch'), 0.01,
    )  # fmt: skip


def groups(images, reject=2):
    """Return the groups of images (labels, found, mask)."""
    counts = [
        label_agreement(detection(found, mask), np.array(labels, np.uint8), len(CLASSES), reject)
        for labels, found, mask in images
    ]
    return label_groups(counts, CLASSES, reject)


def test_by_hand():
    labels = [[0, 0, 0, 0, 1, 1, 2, 255]]
    found = [[0, 0, 0, 2, 1, 0, 2, 2]]
    mask = [[0, 0, 0, 0, 0, 1, 0, 1]]
    likely, final = groups([(labels, found, mask)]).values()
    assert likely['values'] == {
        'mean_iou': pytest.approx((0.6 + 0.5 + 0.5) / 3), 'right_pixels': 5 / 7,
        'IoU Water': 3 / 5, 'IoU Sky': 1 / 2, 'IoU Car': 1 / 2,
        'Water called Car': 1 / 4, 'Sky called Car': 0.0,
    }  # fmt: skip
    # the flagged pixel of the sky, wrongly water before, is wrongly a car now
    assert final['values']['IoU Water'] == 3 / 4
    assert final['values']['IoU Car'] == 1 / 3
    assert final['values']['Sky called Car'] == 1 / 2
    assert set(groups([(labels, found, mask)], reject=None)) == {LIKELY}
    plain = groups([(labels, found, mask)], reject=None)[LIKELY]['values']
    assert not any('called' in name for name in plain)


def test_a_class_that_does_not_occur_has_no_iou():
    values = groups([([[0, 0, 255]], [[0, 0, 2]], None)])[LIKELY]['values']
    assert (values['IoU Water'], values['IoU Sky'], values['mean_iou']) == (1.0, None, 1.0)
    assert values['Sky called Car'] is None


def test_against_scikit_learn():
    metrics = pytest.importorskip('sklearn.metrics')
    rng = np.random.default_rng(0)
    for _ in range(20):
        labels, found = rng.integers(0, 3, (2, 20, 30))
        values = groups([(labels, found, None)])[LIKELY]['values']
        wanted = metrics.jaccard_score(labels.ravel(), found.ravel(), average=None)
        np.testing.assert_allclose([values[f'IoU {name}'] for name in CLASSES], wanted)
        assert values['right_pixels'] == metrics.accuracy_score(labels.ravel(), found.ravel())


def test_intervals_are_over_images():
    """Alike images leave no doubt; one that is all wrong among four leaves a wide interval."""
    good, bad = ([[0, 1]], [[0, 1]], None), ([[0, 1]], [[1, 0]], None)
    same = groups([good] * 4)[LIKELY]
    assert same['intervals']['right_pixels'] == [1.0, 1.0]
    low, high = groups([good] * 3 + [bad])[LIKELY]['intervals']['right_pixels']
    assert low < 0.75 < high


@pytest.fixture
def sea(tmp_path):
    """Sky above, water below, one odd square that its labels call Car."""
    folder = tmp_path / 'sea'
    for part in ('images', 'labels'):
        (folder / part).mkdir(parents=True)
    photo = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    photo[:28], photo[28:] = COLORS['Sky'], COLORS['Water']
    photo[28:42, 42:56] = ODD
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[:28], labels[28:42, 42:56] = 1, 2
    cv2.imwrite(str(folder / 'images/a.png'), photo[:, :, ::-1])
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


def measured(command, bundle, sea, out, *options):
    data = ['--data', f'folders={sea}', '--threads', '1', '--quiet', '--roi', 'none']
    assert main([command, str(bundle), *data, '--out', str(out), *options]) == 0
    document = json.loads((out / 'results.json').read_text())
    return document['runs'][0]['sets'][f'folders={sea}']


def test_flagged_pixels_become_the_rejecting_class(bundle, sea, tmp_path):
    out = tmp_path / 'out'
    plain = measured('evaluate', bundle, sea, out)
    assert set(plain['groups']) == {LIKELY}
    got = measured('evaluate', bundle, sea, out, '--reject', 'Car')
    likely, final = (got['groups'][name] for name in (LIKELY, FINAL))
    assert likely['facts'] == final['facts'] == {'reject': 'Car'}
    assert final['values']['IoU Car'] > 0.6
    assert final['values']['IoU Car'] >= likely['values']['IoU Car']
    assert final['values']['IoU Sky'] > 0.9
    assert likely['values'].items() >= plain['groups'][LIKELY]['values'].items()
    text = (out / 'results.md').read_text()
    assert '| run | mIoU | right pixels | IoU Water | IoU Sky | IoU Car | Water called Car' in text
    assert 'Known classes: the final map' in (out / 'index.html').read_text()
    assert 'final_map,Water called Car,' in (out / 'results.csv').read_text()


def test_other_groups_show_the_columns_that_they_name():
    """Values beside them, as LaRS's IoU of the edge, are in results.json alone."""
    group = {'values': {'mean_iou': 0.5, 'edge_iou': 0.25}, 'intervals': {}}
    run = {'name': 'a', 'sets': {'sea': {'groups': {'maritime': group}}}}
    assert group_table({'runs': [run]}, 'sea', 'maritime') == (['run', 'mIoU'], [['a', '50.0']])


def test_the_earlier_command_is_an_alias(bundle, sea, tmp_path):
    old = measured('class-iou', bundle, sea, tmp_path / 'a', '--reject', 'Car')
    assert old['groups'] == measured(
        'evaluate', bundle, sea, tmp_path / 'b', '--reject', 'Car'
    )['groups']  # fmt: skip


def test_a_set_without_the_classes_says_what_is_left_out(bundle, sea, tmp_path):
    (sea / 'classes.yaml').unlink()
    labels = cv2.imread(str(sea / 'labels/a.png'), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(sea / 'labels/a.png'), (labels == 2).astype(np.uint8))
    options = ['--data', f'anomaly_folders={sea}', '--threads', '1', '--quiet']
    out = ['--out', str(tmp_path / 'out'), '--reject', 'Car']
    assert main(['evaluate', str(bundle), *options, *out]) == 0
    assert '--reject Car is left out' in (tmp_path / 'out' / 'results.md').read_text()


def test_an_unknown_class_is_named(bundle, sea, capsys):
    arguments = ['evaluate', str(bundle), '--data', f'folders={sea}', '--quiet']
    assert main([*arguments, '--reject', 'Boat']) == 2
    assert '--reject Boat: not a class of bundle' in capsys.readouterr().err
