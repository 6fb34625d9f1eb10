# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

pytest.importorskip('torch')
from bundles import road_picture, write_tiny_bundle

from ood_perception.errors import ConfigError
from trainer.datasets.camvid import CLASSES
from trainer.evaluate import main

HEIGHT, WIDTH = 56, 84
BOX = (42, 28, 14, 14)  # x, y, width, height: one patch


def write_pictures(folder, labels, obstacles, name='drive_{}'):
    """Write road pictures with and without an odd square, and their labels."""
    for part in ('images', 'labels'):
        (folder / part).mkdir(parents=True)
    for number, box in enumerate(obstacles):
        picture = cv2.cvtColor(road_picture(HEIGHT, WIDTH, box, seed=number), cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(folder / 'images' / f'{name.format(number)}.png'), picture)
        cv2.imwrite(str(folder / 'labels' / f'{name.format(number)}.png'), labels(box))


def anomaly_labels(box):
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[: HEIGHT // 4] = 255
    if box:
        x, y, width, height = box
        labels[y : y + height, x : x + width] = 1
    return labels


def camvid_labels(_):
    labels = np.full((HEIGHT, WIDTH), 3, np.uint8)
    labels[: HEIGHT // 4] = 0
    return labels


def evaluate(bundle, root, data, tmp_path, *more):
    target = tmp_path / 'result.json'
    main([str(bundle), '--data', *data, '--root', str(root), '--json', str(target), *more])
    return json.loads(target.read_text())


def test_an_odd_square_is_found_through_the_nodes_pipeline(tiny_bundle, tmp_path, capsys):
    write_pictures(tmp_path / 'road_obstacle_dev', anomaly_labels, [BOX, None, BOX])
    got = evaluate(tiny_bundle, tmp_path, ['road_obstacle_dev'], tmp_path, '--precision', 'f32')
    road = got['sets']['road_obstacle_dev']['road']
    assert road['average_precision'] > 0.8
    assert road['auroc'] > 0.98
    assert road['positives'] == 2 * 14 * 14
    assert road['pictures'] == 3
    assert '| road_obstacle_dev | road |' in capsys.readouterr().out


def test_anomalies_outside_the_predicted_region_count_as_missed(tiny_bundle, tmp_path):
    """The square in the sky is outside the hull of the road: it is lost, and said to be."""
    sky = (42, 0, 14, 14)
    write_pictures(
        tmp_path / 'lost_and_found_dev', lambda box: np.uint8(anomaly_labels(box) == 1), [BOX, sky]
    )
    got = evaluate(tiny_bundle, tmp_path, ['lost_and_found_dev'], tmp_path, '--precision', 'f32')
    regions = got['sets']['lost_and_found_dev']
    assert regions['image']['missed'] == 0
    assert regions['ground']['missed'] >= 14 * 14 * 0.5
    assert regions['ground']['average_precision_missed'] < regions['ground']['average_precision']


def test_the_promise_is_counted_per_sequence_and_class(tmp_path):
    bundle = write_tiny_bundle(
        tmp_path / 'bundle', classes=CLASSES.names, compiled_classes=('Road', 'Pavement')
    )
    write_pictures(tmp_path / 'camvid' / 'test', camvid_labels, [None] * 3, 'a_{}')
    picture = tmp_path / 'camvid' / 'test'
    for part in ('images', 'labels'):
        (picture / part / 'a_2.png').rename(picture / part / 'b_2.png')
    got = evaluate(bundle, tmp_path, ['camvid/test'], tmp_path, '--precision', 'f32')
    rows = got['sets']['camvid/test']['rows']
    assert {row['group'] for row in rows} == {'all', 'a', 'b'}
    assert {row['class_name'] for row in rows} == {'Road', 'pooled'}
    whole = [row for row in rows if row['group'] == 'all' and row['class_name'] == 'Road']
    assert [row['promised'] for row in whole] == [0.01, 0.02, 0.05]
    assert all(row['pixels'] == 3 * HEIGHT * 3 // 4 * WIDTH for row in whole)


def test_other_classes_promise_nothing(tiny_bundle, tmp_path):
    write_pictures(tmp_path / 'camvid' / 'test', camvid_labels, [None])
    with pytest.raises(ConfigError, match='needs the same classes'):
        evaluate(tiny_bundle, tmp_path, ['camvid/test'], tmp_path, '--precision', 'f32')


def test_unknown_sets_are_named(tiny_bundle, tmp_path):
    with pytest.raises(ConfigError, match="unknown set 'streets'; known are"):
        evaluate(tiny_bundle, tmp_path, ['streets'], tmp_path, '--precision', 'f32')
