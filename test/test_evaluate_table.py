# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The bundles of a study: what they share, and the list that evaluate reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

pytest.importorskip('torch')
from paths import ROOT

from ood_perception.bundle.store import default_bundle_path, load_bundle
from trainer.evaluation.evaluation_runs import Settings, listed_runs
from trainer.experiments import table_bundles
from trainer.experiments.leaderboard_bundles import LeaderboardBundles
from trainer.experiments.leaderboard_rows import load_leaderboard

RECIPE = str(ROOT / 'config' / 'train' / 'pixood_camvid.yaml')


class Builder:
    """In place of Trainer: makes the artefacts' folders and tells which were there already."""

    built: tuple = ()

    def __init__(self, recipe, folder, cache=None, progress=True):
        self.recipe, self.folder = recipe, Path(folder)

    def pack(self):
        made = []
        for part in ('classifier', 'fit'):
            target = self.folder / part
            if not (target / 'key.json').is_file():
                target.mkdir(parents=True)
                (target / 'weights').write_text(part)
                (target / 'key.json').write_text(json.dumps({'key': part}))
                made.append(part)
        (self.folder / 'bundle').mkdir(exist_ok=True)
        (self.folder / 'bundle' / 'manifest.json').touch()
        Builder.built = (*Builder.built, (self.folder.name, tuple(made)))
        return load_bundle(default_bundle_path(), verify=False).manifest


@pytest.fixture
def builder(monkeypatch):
    Builder.built = ()
    monkeypatch.setattr(table_bundles, 'Trainer', Builder)
    return Builder


def bundles(tmp_path, rows, only=()):
    path = tmp_path / 'study.yaml'
    content = {'folder': str(tmp_path / 'out'), 'sets': ['pasted'], 'rows': rows}
    path.write_text(yaml.safe_dump(content))
    return LeaderboardBundles(load_leaderboard(path), only)


def row(name, *changes):
    return {'name': name, 'recipe': RECIPE, 'set': list(changes)}


def test_rows_take_over_what_their_recipes_share(tmp_path, builder):
    rows = [
        row('K 50', 'condensation.etalons=50'),
        row('K 50, f 1', 'condensation.etalons=50', 'head.upsampling=1'),
        row('K 100', 'condensation.etalons=100'),
        row('linear', 'classifier.kind=linear'),
        row('block 5', 'backbone.layers=[8, 11, 5]'),
    ]
    assert bundles(tmp_path, rows).build() == {}
    both, seed = ('classifier', 'fit'), 'seed-42'
    assert builder.built == (
        *((f'k-50-{seed}', both), (f'k-50-f-1-{seed}', ()), (f'k-100-{seed}', ('fit',))),
        *((f'linear-{seed}', both), (f'block-5-{seed}', both)),
    )
    builder.built = ()
    bundles(tmp_path, rows, only=['K 100']).build()
    assert builder.built == ((f'k-100-{seed}', ()),)


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
