# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The table of RPL: a miniature from pictures to Markdown, part by part."""

from __future__ import annotations

import json

import pytest

torch = pytest.importorskip('torch', reason='the trainer needs torch')
pytest.importorskip('transformers')

from test_trainer_rpl_bundle import recipe_of  # noqa: E402
from test_trainer_uem_table import root  # noqa: E402

from ood_perception.errors import ConfigError  # noqa: E402
from trainer.__main__ import main  # noqa: E402
from trainer.experiments.rpl_rows import load_rpl_table  # noqa: E402
from trainer.hosts import mobilenet_stages  # noqa: E402
from trainer.hosts.mobilenet import MobileNetV2  # noqa: E402

__all__ = ['root']
TABLE = """
recipe: rpl.yaml
folder: FOLDER
sets: {road_anomaly_dev: 56, road_obstacle_dev: 56}
seeds: [1, 2]
resamples: 20
mobilenet: {size: [64, 64], width: 8, fine_width: 4, steps: 6}
trainings:
  - {name: energy, dissimilarity: false, contrast: false}
  - {name: all, against: energy}
  - {name: mobile, host: mobilenetv2, context: false}
"""


@pytest.fixture(scope='module')
def table(root):
    recipe = recipe_of(root)
    recipe.write_text(recipe.read_text().replace('count: 12', 'count: 12, probability: 1.0'))
    (root / 'rpl_table.yaml').write_text(TABLE.replace('FOLDER', str(root / 'rpl_out')))
    return root


def run(root, monkeypatch, *options):
    monkeypatch.setattr('trainer.experiments.seeded_sets.GROUND', ('left',))
    monkeypatch.setattr(mobilenet_stages, 'load_mobilenet', MobileNetV2)  # random weights
    arguments = [str(root / 'rpl_table.yaml'), '--cache', str(root / 'cache'), *options]
    assert main(['rpl-table', *arguments]) == 0
    return json.loads((root / 'rpl_out' / 'rpl_table.json').read_text())


def test_a_part_is_a_part_of_the_whole(table, monkeypatch):
    torch.manual_seed(0)
    first = run(table, monkeypatch, '--only', 'energy', '--seeds', '1')
    assert first['missing'] == {'energy': [2], 'all': [1, 2], 'mobile': [1, 2]}
    rows = {row['name']: row for row in first['sets']['road_anomaly_dev, image']['rows']}
    assert set(rows) == {'energy', 'frozen segmenter'}
    whole = run(table, monkeypatch, '--closed-set', 'train')
    assert not whole['missing']
    again = whole['sets']['road_anomaly_dev, image']
    names = [row['name'] for row in again['rows']]
    assert names == ['frozen segmenter', 'energy', 'all', 'frozen mobilenetv2', 'mobile']
    kept = next(row for row in again['rows'] if row['name'] == 'energy')
    assert kept['average_precision']['seeds'][0] == rows['energy']['average_precision']['seeds'][0]
    pairs = {(one['name'], one['other']) for one in again['verdicts']}
    assert ('all', 'energy') in pairs
    assert ('mobile', 'frozen mobilenetv2') in pairs
    assert len(whole['hosts']) == 4
    text = (table / 'rpl_out' / 'rpl_table.md').read_text()
    assert 'Not run yet' not in text
    assert '| all | energy |' in text


def test_wrong_rows_are_refused(table, tmp_path):
    text = (table / 'rpl_table.yaml').read_text()
    path = table / 'wrong.yaml'
    for old, new, error in (
        ('host: mobilenetv2', 'host: resnet', r"host 'resnet': choose one of segmenter"),
        ('against: energy', 'against: nothing', r"unknown \['nothing'\]"),
        ('name: mobile', 'name: all', r'need names of their own'),
    ):
        path.write_text(text.replace(old, new))
        with pytest.raises(ConfigError, match=error):
            load_rpl_table(path)
