# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The bundles of a study: what they share, and the list that evaluate reads."""

from __future__ import annotations

import pytest
import yaml

pytest.importorskip('torch')
from paths import ROOT

from ood_perception.bundle.store import default_bundle_path, load_bundle
from trainer.evaluation.runs import Settings, listed_runs
from trainer.study import bundles as leaderboard_bundles
from trainer.study.bundles import LeaderboardBundles
from trainer.study.config import load_leaderboard

RECIPE = str(ROOT / 'config' / 'train' / 'pixood_camvid.yaml')


class Builder:
    """In place of Workflow: tells what was to be built where, and which store it was given."""

    built: tuple = ()

    def __init__(self, recipe, folder, store=None, cache=None):
        self.folder, self.store = folder, store

    def pack(self):
        (self.folder / 'bundle').mkdir(parents=True, exist_ok=True)
        (self.folder / 'bundle' / 'manifest.json').touch()
        Builder.built = (*Builder.built, (self.folder.name, self.store))
        return load_bundle(default_bundle_path(), verify=False).manifest


@pytest.fixture
def builder(monkeypatch):
    Builder.built = ()
    monkeypatch.setattr(leaderboard_bundles, 'Workflow', Builder)
    return Builder


def bundles(tmp_path, rows, only=()):
    path = tmp_path / 'study.yaml'
    content = {'folder': str(tmp_path / 'out'), 'sets': ['pasted'], 'rows': rows}
    path.write_text(yaml.safe_dump(content))
    return LeaderboardBundles(load_leaderboard(path), only)


def row(name, *changes):
    return {'name': name, 'recipe': RECIPE, 'set': list(changes)}


def test_rows_are_built_in_one_store(tmp_path, builder):
    rows = [
        row('K 50', 'condensation.etalons=50'),
        row('_store', 'condensation.etalons=100'),
    ]
    assert bundles(tmp_path, rows).build() == {}
    store, seed = tmp_path / 'out' / 'bundles' / '_store', 'seed-42'
    assert builder.built == ((f'k-50-{seed}', store), (f'store-{seed}', store))
    builder.built = ()
    bundles(tmp_path, rows, only=['K 50']).build()
    assert builder.built == ((f'k-50-{seed}', store),)


def test_a_training_is_counted_among_all_of_the_study_also_where_it_alone_is_asked_for(
    tmp_path, builder, caplog
):
    rows = [{'name': 'shipped'}, {**row('K 50'), 'seeds': [1, 2]}, row('K 100')]
    with caplog.at_level('INFO'):
        bundles(tmp_path, rows, only=['K 100']).build()
    assert 'training 4 of 4: K 100, seed 42' in caplog.messages
    caplog.clear()
    with caplog.at_level('INFO'):
        bundles(tmp_path, rows, only=['K 50']).build()
    trainings = [line for line in caplog.messages if line.startswith('training')]
    assert trainings == ['training 2 of 4: K 50, seed 1', 'training 3 of 4: K 50, seed 2']


def test_the_list_names_every_bundle_that_there_is(tmp_path, builder):
    rows = [{'name': 'shipped'}, row('K 50', 'condensation.etalons=50'), row('wrong', 'a.b=1')]
    assert list(bundles(tmp_path, rows).build()) == ['wrong, seed 42']
    shipped, fifty = listed_runs(tmp_path / 'out' / 'runs.yaml', Settings())
    assert (shipped.name, shipped.bundle) == ('shipped, seed 42', '')
    assert fifty.bundle == str(tmp_path / 'out' / 'bundles' / 'k-50-seed-42' / 'bundle')


def test_a_listed_bundle_may_be_a_shipped_one_by_name(tmp_path):
    (tmp_path / 'runs.yaml').write_text(
        'runs: [{name: a, bundle: water_default}, {name: b, bundle: mine}]\n'
    )
    shipped, mine = listed_runs(tmp_path / 'runs.yaml', Settings())
    assert (shipped.bundle, mine.bundle) == ('water_default', str(tmp_path / 'mine'))
    (tmp_path / 'water_default').mkdir()
    nearer, _ = listed_runs(tmp_path / 'runs.yaml', Settings())
    assert nearer.bundle == str(tmp_path / 'water_default')
