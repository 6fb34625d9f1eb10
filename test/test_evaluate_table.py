# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The bundles of a table: which are built, what they share, and the list that evaluate reads."""

from __future__ import annotations

import pytest
import yaml

pytest.importorskip('torch')
from paths import ROOT

from ood_perception.bundle.store import default_bundle_path, load_bundle
from ood_perception.errors import ConfigError
from trainer.config import load_recipe
from trainer.evaluation.evaluation_runs import Settings, listed_runs
from trainer.experiments import table_bundles
from trainer.experiments.table_bundles import build_bundles, load_bundle_table

SHIPPED = ROOT / 'config' / 'train' / 'table_bundles.yaml'


class Builder:
    """In place of Workflow: tells what was to be built where, and which store it was given."""

    built: tuple = ()

    def __init__(self, recipe, folder, store=None, cache=None, progress=True):
        self.folder, self.store = folder, store

    def pack(self):
        Builder.built = (*Builder.built, (self.folder.name, self.store))
        return load_bundle(default_bundle_path(), verify=False).manifest


@pytest.fixture
def builder(monkeypatch):
    Builder.built = ()
    monkeypatch.setattr(table_bundles, 'Workflow', Builder)
    return Builder


def written(tmp_path, rows):
    path = tmp_path / 'table.yaml'
    recipe = str(ROOT / 'config' / 'train' / 'pixood_camvid.yaml')
    content = {'recipe': recipe, 'folder': str(tmp_path / 'out'), 'rows': rows}
    path.write_text(yaml.safe_dump(content))
    return load_bundle_table(path)


def test_every_row_of_the_shipped_table_is_a_recipe():
    table = load_bundle_table(SHIPPED)
    keys = {load_recipe(table.recipe, row.changes).sha256() for row in table.rows}
    same = [row for row in table.rows if not row.changes]
    assert [row.name for row in same] == ['condensation K 200', '[road] min', 'all min']
    assert len(keys) == len(table.rows) - len(same) + 1
    assert {'single mean', 'condensation K 50', 'f 1', 'gated'} <= {row.name for row in table.rows}


def test_rows_are_built_in_one_store(tmp_path, builder):
    rows = [
        {'name': 'K 50', 'set': ['condensation.etalons=50']},
        {'name': '_store', 'set': ['condensation.etalons=100']},
    ]
    build_bundles(written(tmp_path, rows))
    store = tmp_path / 'out' / '_store'
    assert builder.built == (('k-50', store), ('store', store))
    builder.built = ()
    build_bundles(written(tmp_path, rows), only=['K 50'])
    assert builder.built == (('k-50', store),)


def test_the_list_names_bundles_and_classes(tmp_path, builder):
    rows = [
        {'name': 'shipped'},
        {'name': 'K 50', 'set': ['condensation.etalons=50']},
        {'name': 'all', 'in_distribution': 'all'},
        {'name': 'road', 'in_distribution': ['Road']},
    ]
    path = build_bundles(written(tmp_path, rows))
    shipped, fifty, everything, road = listed_runs(path, Settings())
    assert shipped.bundle == everything.bundle == road.bundle == ''
    assert fifty.bundle == str(tmp_path / 'out' / 'k-50' / 'bundle')
    modelled = [c.name for c in load_bundle(default_bundle_path()).manifest.classes if c.modelled]
    assert list(everything.settings.in_distribution) == modelled
    assert road.settings.in_distribution == ('Road',)


def test_a_listed_bundle_may_be_a_shipped_one_by_name(tmp_path):
    (tmp_path / 'runs.yaml').write_text(
        'runs: [{name: a, bundle: water_default}, {name: b, bundle: mine}]\n'
    )
    shipped, mine = listed_runs(tmp_path / 'runs.yaml', Settings())
    assert (shipped.bundle, mine.bundle) == ('water_default', str(tmp_path / 'mine'))
    (tmp_path / 'water_default').mkdir()
    nearer, _ = listed_runs(tmp_path / 'runs.yaml', Settings())
    assert nearer.bundle == str(tmp_path / 'water_default')


@pytest.mark.parametrize(
    ('rows', 'message'),
    [
        ([{'name': 'a', 'colour': 'red'}], 'row 1'),
        ([{'name': 'a b'}, {'name': 'a, b'}], 'same name'),
        ([{'name': 'a', 'set': ['condensation.etalon=5']}], 'etalon'),
    ],
)
def test_mistakes_are_named_before_anything_is_built(tmp_path, builder, rows, message):
    with pytest.raises(ConfigError, match=message):
        build_bundles(written(tmp_path, rows))
    assert builder.built == ()


def test_an_unknown_row_is_named(tmp_path, builder):
    with pytest.raises(ConfigError, match="no rows \\['b'\\]; rows are \\['a'\\]"):
        build_bundles(written(tmp_path, [{'name': 'a'}]), only=['b'])
