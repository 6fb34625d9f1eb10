# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Several bundles in one call, and two folders of results: which one is better, in words."""

from __future__ import annotations

import json

import pytest
import yaml

pytest.importorskip('torch')
from bundles import write_tiny_bundle
from evaluated_sets import BOX, F32, SETS, anomaly_labels, write_images

from ood_perception.errors import ConfigError, DataError
from ood_perception.evaluation.compare import in_words
from trainer.evaluation.evaluate import main

MOVED = (28, 28, 14, 14)


@pytest.fixture(scope='module')
def roads(tmp_path_factory):
    root = tmp_path_factory.mktemp('roads')
    boxes = [BOX, MOVED, None, BOX, MOVED, BOX]
    write_images(root / 'road_obstacle_dev', anomaly_labels, boxes)
    return root


@pytest.fixture(scope='module')
def bundles(tmp_path_factory):
    """Two bundles of different grids and filters."""
    folder = tmp_path_factory.mktemp('bundles')
    write_tiny_bundle(folder / 'good')
    write_tiny_bundle(folder / 'coarse', upsampling=1, seed=3)
    return folder


def words(roads, out, *more):
    return ['--data', *SETS[:1], '--root', str(roads), '--out', str(out), *F32, *more]


@pytest.fixture(scope='module')
def together(bundles, roads, tmp_path_factory):
    out = tmp_path_factory.mktemp('together')
    main([f'fine={bundles / "good"}', str(bundles / 'coarse'), *words(roads, out)])
    return out, json.loads((out / 'results.json').read_text())


def test_several_bundles_are_compared_with_the_first(together):
    out, values = together
    assert [run['name'] for run in values['runs']] == ['fine', 'coarse']
    (row,) = values['comparisons']
    assert (row['first'], row['second'], row['region']) == ('fine', 'coarse', 'road')
    metrics = row['metrics']
    assert metrics['images'] == 6
    for run, side in zip(values['runs'], ('first', 'second'), strict=True):
        record = run['sets'][SETS[0]]['regions']['road']
        assert metrics['auroc'][side] == record['auroc']
    low, high = metrics['auroc']['interval']
    assert low <= metrics['auroc']['difference'] <= high
    page = (out / 'index.html').read_text()
    assert 'Differences' in page
    assert 'fine minus coarse' in page


def test_two_folders_give_the_same_comparison(bundles, roads, together, tmp_path, capsys):
    for name in ('good', 'coarse'):
        main([str(bundles / name), *words(roads, tmp_path / name)])
    capsys.readouterr()
    folders = [str(tmp_path / name) for name in ('good', 'coarse')]
    assert main(['--compare', *folders, '--out', str(tmp_path / 'both')]) == 0
    got = json.loads((tmp_path / 'both' / 'comparison.json').read_text())
    assert got['comparisons'][0]['metrics'] == together[1]['comparisons'][0]['metrics']
    assert 'resolved' in capsys.readouterr().out
    assert 'How to read this' in (tmp_path / 'both' / 'index.html').read_text()


def test_only_images_of_the_same_content_are_paired(bundles, roads, tmp_path):
    main([str(bundles / 'good'), *words(roads, tmp_path / 'six')])
    main([str(bundles / 'coarse'), *words(roads, tmp_path / 'two', '--limit', '2')])
    folders = [str(tmp_path / name) for name in ('six', 'two')]
    main(['--compare', *folders, '--out', str(tmp_path / 'both')])
    got = json.loads((tmp_path / 'both' / 'comparison.json').read_text())
    assert got['comparisons'][0]['metrics']['images'] == 2


def test_folders_without_common_images_are_refused(bundles, roads, tmp_path):
    other = tmp_path / 'data'
    write_images(other / 'road_obstacle_dev', anomaly_labels, [(0, 28, 14, 14)])
    main([str(bundles / 'good'), *words(roads, tmp_path / 'a')])
    main([str(bundles / 'good'), *words(other, tmp_path / 'b')])
    with pytest.raises(DataError, match='share no image'):
        main(['--compare', str(tmp_path / 'a'), str(tmp_path / 'b'), '--out', str(tmp_path / 'c')])
    with pytest.raises(DataError, match=r'results\.json cannot be read'):
        main(['--compare', str(tmp_path / 'a'), str(tmp_path), '--out', str(tmp_path / 'c')])


def test_a_list_of_runs_may_share_a_bundle(bundles, roads, tmp_path):
    runs = tmp_path / 'runs.yaml'
    place = bundles / 'good'
    entries = [
        {'name': 'own classes', 'bundle': str(place)},
        {'name': 'sky is normal', 'bundle': str(place), 'in_distribution': ['Road', 'Sky']},
    ]
    runs.write_text(yaml.safe_dump({'runs': entries}))
    main(['--runs', str(runs), *words(roads, tmp_path / 'out')])
    values = json.loads((tmp_path / 'out' / 'results.json').read_text())
    assert [run['in_distribution'] for run in values['runs']] == [['Road'], ['Road', 'Sky']]


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('runs: []', 'the list "runs" is empty'),
        ('runs: [{bundle: x}]', 'runs 1: '),
        ('runs: [{name: a, colour: red}]', 'runs 1: '),
        (None, 'cannot be read'),
    ],
)
def test_a_wrong_list_of_runs_is_named(roads, tmp_path, content, message):
    if content is not None:
        (tmp_path / 'runs.yaml').write_text(content)
    with pytest.raises(ConfigError, match=message):
        main(['--runs', str(tmp_path / 'runs.yaml'), *words(roads, tmp_path / 'out')])


def test_runs_need_names_of_their_own(bundles, roads, tmp_path):
    with pytest.raises(ConfigError, match='appear twice: name them'):
        main([str(bundles / 'good'), f'good={bundles / "coarse"}', *words(roads, tmp_path)])


def test_words_say_who_is_better():
    def row(difference, low, high):
        return {'difference': difference, 'interval': [low, high]}

    up, down, open_ = row(0.03, 0.01, 0.05), row(-0.03, -0.05, -0.01), row(0.01, -0.01, 0.04)
    assert in_words('auroc', up, 'a', 'b') == 'resolved: a is better, +3.0 [+1.0, +5.0]'
    assert in_words('auroc', down, 'a', 'b').startswith('resolved: b is better')
    assert in_words('fpr95', up, 'a', 'b').startswith('resolved: b is better')
    assert in_words('fpr95', open_, 'a', 'b').startswith('not resolved: +1.0')
    assert in_words('auroc', row(None, None, None), 'a', 'b') == 'not defined'
