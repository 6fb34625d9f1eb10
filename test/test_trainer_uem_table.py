# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The table of UEM: scores against closed forms, and a miniature from pictures to Markdown."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='the trainer needs torch')
pytest.importorskip('transformers')

from safetensors.torch import save_file  # noqa: E402
from scipy.special import logsumexp, softmax  # noqa: E402
from scipy.stats import entropy  # noqa: E402
from test_trainer_cli import write_data  # noqa: E402
from test_trainer_uem_bundle import RECIPE, write_objects  # noqa: E402
from tiny_backbones import tiny_backbone  # noqa: E402

from ood_perception.errors import ConfigError  # noqa: E402
from ood_perception.metrics.bootstrap import Interval  # noqa: E402
from trainer.__main__ import main  # noqa: E402
from trainer.experiments.seeded_entries import mean_interval, verdict  # noqa: E402
from trainer.experiments.uem_rows import load_uem_table  # noqa: E402
from trainer.experiments.uem_scores import combined_scores  # noqa: E402

TABLE = """
recipe: recipe.yaml
folder: FOLDER
sets: {road_anomaly_dev: 56, road_obstacle_dev: 56}
seeds: [1, 2]
resamples: 20
sliding: {window: [28, 42], stride: [14, 14]}
trainings:
  - {name: D-D}
  - {name: G-G, segmenter: gmm, form: generative, combine: sum, class_norm: false}
  - {name: "D-D, few", most: 2}
changes: [uem.steps=10, uem.with_views=true]
"""


def test_the_scores_are_their_definitions():
    rng = np.random.default_rng(0)
    known, unknown = rng.normal(size=(40, 5)) * 4, rng.normal(size=(40, 2))
    scores = combined_scores(torch.tensor(known), torch.tensor(unknown))
    share = softmax(known, 1)
    expected = {
        'llr': unknown[:, 1] - unknown[:, 0] - known.max(1),
        'id': -known.max(1),
        'ood': unknown[:, 1] - unknown[:, 0],
        'max_softmax': -np.log(share.max(1)),
        'energy': -logsumexp(known, 1),
        'entropy': entropy(share, axis=1),
    }
    assert set(scores) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(scores[name], value, rtol=1e-9, err_msg=name)


def test_seeds_are_averaged_within_each_draw_of_pictures():
    draws = np.linspace(0, 1, 101)
    interval = mean_interval([draws, 1 - draws])  # the seeds disagree, their mean never moves
    assert (interval.low, interval.high) == (0.5, 0.5)


def test_a_verdict_needs_an_interval_on_one_side_of_zero():
    assert verdict(Interval(0.01, 0.2)) == 'yes'
    assert verdict(Interval(-0.2, -0.01)) == 'no, worse'
    assert verdict(Interval(-0.01, 0.2)) == 'not resolved'
    assert verdict(Interval(float('nan'), float('nan'))) == 'not resolved'


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp('table')
    write_data(root / 'data')
    write_objects(root / 'outlier_objects')
    for name, value in (('road_anomaly_dev', 2), ('road_obstacle_dev', 1)):
        rng = np.random.default_rng(value)
        for kind in ('images', 'labels'):
            (root / name / kind).mkdir(parents=True)
        for index in range(3):
            image = rng.integers(0, 255, (60, 60, 3), np.uint8)
            labels = np.zeros((60, 60), np.uint8)
            labels[20:40, 20:40] = value
            cv2.imwrite(str(root / name / 'images' / f'{index}.png'), image)
            cv2.imwrite(str(root / name / 'labels' / f'{index}.png'), labels)
    state = tiny_backbone(depth=4).model.state_dict()
    save_file({k: v.contiguous() for k, v in state.items()}, root / 'tiny.safetensors')
    recipe = RECIPE.replace('WEIGHTS', str(root / 'tiny.safetensors'))
    recipe = recipe.replace('FORM', 'discriminative').replace('ROOT', str(root / 'data'))
    (root / 'recipe.yaml').write_text(recipe)
    (root / 'table.yaml').write_text(TABLE.replace('FOLDER', str(root / 'out')))
    return root


def run(root, monkeypatch, *options):
    monkeypatch.setattr('trainer.experiments.seeded_sets.GROUND', ('left',))
    arguments = [str(root / 'table.yaml'), '--cache', str(root / 'cache'), *options]
    assert main(['uem-table', *arguments]) == 0
    return json.loads((root / 'out' / 'uem_table.json').read_text())


def test_a_part_is_a_part_of_the_whole(root, monkeypatch):
    first = run(root, monkeypatch, '--only', 'D-D', '--seeds', '1')
    assert first['missing']
    row = {r['score']: r for r in first['sets']['road_anomaly_dev, image']['rows']}['llr']
    whole = run(root, monkeypatch, '--closed-set', 'train')
    assert not whole['missing']
    assert set(whole['sets']) == {
        'road_anomaly_dev, image', 'road_anomaly_dev, ground', 'road_obstacle_dev, road',
    }  # fmt: skip
    rows = whole['sets']['road_anomaly_dev, image']['rows']
    again = next(r for r in rows if (r['name'], r['score']) == ('D-D', 'llr'))
    assert again['average_precision']['seeds'][0] == row['average_precision']['seeds'][0]
    assert again['seeds'] == [1, 2]
    assert len(rows) == 2 * 6 + 2  # two segmenters, three modules
    few = next(r for r in rows if (r['name'], r['score']) == ('D-D, few', 'llr'))
    assert few['average_precision']['seeds'] != again['average_precision']['seeds']
    for values in whole['trainings']:
        assert [look[0] for look in values['history']] == [10]
    assert len(whole['segmenters']) == 4
    both = whole['closed_sets']
    assert set(both) == {'linear-discriminative-train', 'gmm-generative-train'}
    for values in both.values():
        assert values['with'] == values['without'] > 0
        assert values['different'] == 0
    against = {r['other'] for r in whole['sets']['road_obstacle_dev, road']['llr_beats']}
    assert against == {'ID (max-logit)', 'OOD', 'LLR of D-D'}
    text = (root / 'out' / 'uem_table.md').read_text()
    assert 'Not run yet' not in text
    assert '| G-G | LLR |' in text


def test_sliding_windows_are_other_results(root, monkeypatch):
    options = ('--only', 'D-D', '--seeds', '1', '--sets', 'road_obstacle_dev', '--sliding')
    values = run(root, monkeypatch, *options)
    rows = values['sets']['road_obstacle_dev, road']['rows']
    assert {row['score'] for row in rows} == {
        'llr', 'id', 'ood', 'max_softmax', 'energy', 'entropy',
    }  # fmt: skip


def test_wrong_keys_and_names_are_refused(root, tmp_path, capsys):
    path = root / 'wrong.yaml'
    path.write_text((root / 'table.yaml').read_text() + 'colour: red\n')
    with pytest.raises(ConfigError, match=r"unknown \['colour'\]"):
        load_uem_table(path)
    assert main(['uem-table', str(root / 'table.yaml'), '--only', 'X-X']) == 2
    assert "['X-X'] is not in the table" in capsys.readouterr().err
