# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""`trainer evaluate`: open-set mIoU and the leaderboard's variant, worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip('torch')
from bundles import COLORS, ODD, color_of, write_tiny_bundle
from evaluated_sets import evaluate
from sets_on_disk import flat, write_png, write_town

from ood_perception.evaluation.second_pass import two_folds
from trainer.datasets import SETS

ROAD = COLORS['Road']
NAMES = SETS['streethazards'].class_map.names
BUILDING, STREET, ANOMALY = NAMES.index('building'), NAMES.index('road'), 14


@pytest.fixture(scope='module')
def towns(tmp_path_factory):
    """
    In each town one image of anomalies alone and one without; t5 has a wrong patch of road.

    The anomalies of t6 are weaker than those of t5 and look like buildings. Scores are
    interpolated between patches, so no image holds both kinds.
    """
    root = tmp_path_factory.mktemp('towns')
    road, building = color_of('road'), color_of('building')
    weak, strong = beside(building, 60), beside(building, 125)
    write_town(root, 't5', 1, [[strong] * 6] * 4, [[ANOMALY] * 6] * 4)
    houses, streets = [[building] * 6] * 2, [[road] * 6, [*[road] * 5, building]]
    known = [[BUILDING + 2] * 6] * 2 + [[STREET + 2] * 6] * 2
    write_town(root, 't5', 2, [*houses, *streets], known)
    write_town(root, 't6', 1, [[weak] * 6] * 4, [[ANOMALY] * 6] * 4)
    write_town(root, 't6', 2, [[road] * 6] * 4, [[STREET + 2] * 6] * 4)
    return root


def beside(color, step):
    """Return a colour that differs in the first channel."""
    red, *others = color
    return (red + step if red < 128 else red - step, *others)


@pytest.fixture(scope='module')
def town_bundle(tmp_path_factory):
    return write_tiny_bundle(
        tmp_path_factory.mktemp('town') / 'town',
        classes=NAMES, in_distribution=NAMES, ground_classes=('road', 'sidewalk'), upsampling=1,
    )  # fmt: skip


@pytest.fixture(scope='module')
def visited(town_bundle, towns, tmp_path_factory):
    out = tmp_path_factory.mktemp('visited')
    return out, evaluate(town_bundle, towns, ['streethazards/test'], out)


def test_open_set_by_hand(visited):
    """
    In patches. t5 at t6's threshold: all anomalies unknown; road 11 of 12, building 12 of 13.

    t6 at t5's threshold, which is higher: no anomaly is unknown, 24 are building: IoU 0; road 1.
    """
    group = visited[1]['runs'][0]['sets']['streethazards/test']['groups']['open_set']
    closed = (35 / 36 + 12 / 13) / 2
    opened = ((11 / 12 + 12 / 13) / 2 + (0 + 1) / 2) / 2
    assert group['values']['mean_iou'] == pytest.approx(closed)
    assert group['values']['open_mean_iou'] == pytest.approx(opened)
    assert group['values']['lost'] == pytest.approx(closed - opened)
    first, second = group['facts']['folds']
    assert (first['sequences'], second['sequences']) == (['t5'], ['t6'])
    assert first['threshold'] < second['threshold']
    classes = {row['name']: row for row in group['facts']['classes']}
    assert classes['building']['open_iou'] == pytest.approx(12 / (13 + 24))
    page = ' '.join((visited[0] / 'index.html').read_text().split())
    assert 'mIoU, open' in page
    assert f'with unknown where the score says so {100 * opened:.1f} %' in page
    assert 'threshold (surprisal), from the other half' in page


def test_other_classes_have_no_open_set_number_and_the_page_says_so(tiny_bundle, towns, tmp_path):
    got = evaluate(tiny_bundle, towns, ['streethazards/test'], tmp_path)
    one = got['runs'][0]['sets']['streethazards/test']
    assert one['groups'] == {}
    assert 'the bundle knows Road, Pavement, Sky' in one['notes'][0]
    assert 'Open-set mean IoU is left out' in (tmp_path / 'index.html').read_text()


def test_halves_keep_sequences_whole():
    assert two_folds(['a', 'a', 'b']).tolist() == [0, 0, 1]
    assert two_folds(['a', 'b', 'b', 'b', 'c']).tolist() == [0, 0, 0, 0, 1]
    assert two_folds(['a'] * 4).tolist() == [0, 0, 1, 1]
    assert two_folds(['a']).tolist() == [0]


def test_the_leaderboards_rules_by_hand(tiny_bundle, tmp_path):
    """
    A band of 28 rows across the road: every anomaly pixel above every normal one.

    The threshold is the lowest anomaly score, and the benchmark flags score > it: the row that
    has it is lost, 27 of 28 are left.
    """
    labels = np.zeros((56, 84), np.uint8)
    labels[28:] = 1
    photo = flat(56, 84, ROAD)
    photo[28:] = ODD
    folder = tmp_path / 'road_obstacle_dev'
    for number, (image, truth) in enumerate([(photo, labels), (flat(56, 84, ROAD), 0 * labels)]):
        write_png(folder / f'images/{number}.png', image)
        write_png(folder / f'labels/{number}.png', truth)
    words = ('--variant', 'smiyc')
    got = evaluate(tiny_bundle, tmp_path, ['road_obstacle_dev'], tmp_path / 'out', *words)
    group = got['runs'][0]['sets']['road_obstacle_dev']['groups']['smiyc']
    values = group['values']
    for name in ('average_precision', 'auroc', 'best_f1', 'ppv', 'mean_f1'):
        assert values[name] == 1.0, name
    assert values['fpr95'] == 0.0
    assert values['siou'] == pytest.approx(27 / 28)
    assert group['facts']['track'] == 'ObstacleTrack'
    page = (tmp_path / 'out' / 'index.html').read_text()
    assert 'As the SegmentMeIfYouCan leaderboard computes it' in page
    text = (tmp_path / 'out' / 'results.md').read_text()
    assert '| sIoU | PPV | mean F1 |' in text
