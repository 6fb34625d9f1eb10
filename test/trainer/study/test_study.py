# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Studies, from their YAML to bundles and Markdown, on miniatures."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import yaml

torch = pytest.importorskip('torch', reason='the trainer needs torch')
pytest.importorskip('transformers')

from miniature_recipes import LARGER, miniature  # noqa: E402
from owned_sets import write_set  # noqa: E402
from paths import ROOT  # noqa: E402
from stores import kept, only  # noqa: E402
from uem_recipes import write_objects  # noqa: E402

from ood_perception.engines.base import EngineOptions  # noqa: E402
from ood_perception.errors import ConfigError  # noqa: E402
from ood_perception.evaluation.run import RunOptions  # noqa: E402
from ood_perception.pipeline import Settings  # noqa: E402
from trainer.__main__ import main  # noqa: E402
from trainer.evaluation.runs import Evaluation, RunSpec  # noqa: E402
from trainer.heads.baselines.model import SCORES  # noqa: E402
from trainer.recipe import load_recipe  # noqa: E402
from trainer.study.bundles import STORE, LeaderboardBundles  # noqa: E402
from trainer.study.config import load_leaderboard  # noqa: E402
from trainer.study.report import Entry  # noqa: E402
from trainer.workflow import Workflow  # noqa: E402

__all__ = ['miniature']
CONFIG = ROOT / 'config' / 'train'
SETS = {'road_anomaly_dev': 2, 'road_obstacle_dev': 1}


@pytest.fixture(scope='module')
def root(miniature):
    """Add two small sets of anomalies: a green square on images of known colours."""
    for name, value in SETS.items():
        for kind in ('images', 'labels'):
            (miniature / name / kind).mkdir(parents=True)
        rng = np.random.default_rng(value)
        for index in range(3):
            image = np.full((60, 60, 3), (200, 60, 60)) + rng.normal(0, 30, (60, 60, 3))
            image[20:40, 20:40] = (30, 220, 40)
            labels = np.zeros((60, 60), np.uint8)
            labels[20:40, 20:40] = value
            pixels = np.clip(image, 0, 255).astype(np.uint8)
            cv2.imwrite(str(miniature / name / 'images' / f'{index}.png'), pixels)
            cv2.imwrite(str(miniature / name / 'labels' / f'{index}.png'), labels)
    return miniature


@pytest.fixture(autouse=True)
def data(root, monkeypatch):
    monkeypatch.setenv('OOD_DATA', str(root))


def written(root, name, values):
    path = root / f'{name}.yaml'
    path.write_text(yaml.safe_dump(values))
    return path


def run(root, command, path, *options):
    cache = ['--cache', str(root / 'cache')]
    assert main([command, str(path), *cache, *options]) == 0


@pytest.fixture(scope='module')
def two_bundles(root):
    """Return a table with bundles of two heads on one backbone, built and not scored."""
    path = board(root, folder=str(root / 'shared_board'))
    only = ('--only', 'PixOOD', 'energy', '--seeds', '1')
    run(root, 'study', path, *only, '--quiet', '--build-only')
    return dict(LeaderboardBundles(load_leaderboard(path)).there())


def test_bundles_of_one_backbone_share_its_outputs_to_the_bit(root, two_bundles, tmp_path):
    def records(name, shared):
        spec = RunSpec(name, str(two_bundles[name]), Settings())
        out = tmp_path / f'{name}-{shared is not None}'
        engine = EngineOptions('openvino', 'f32', 1)
        evaluation = Evaluation(root, out, engine, RunOptions(), shared=shared)
        runs = evaluation.results([spec], ['road_anomaly_dev']).runs
        return [dict(record) for record in runs[0].sets['road_anomaly_dev'].records]

    shared = tmp_path / 'backbones'
    for name in two_bundles:
        for plain, found in zip(records(name, None), records(name, shared), strict=True):
            for key in plain.keys() - {'read_measure_ms', 'stage_ms'}:
                np.testing.assert_array_equal(plain[key], found[key], key)
        assert len(list(shared.rglob('*.npz'))) == 3  # an image each, whatever the head


def test_a_fusion_takes_over_the_fits_of_its_members_rows(root):
    heads = ('head.kind=knn', 'knn.feature=keys_2', 'knn.references=50')
    members = ('head.kind=fusion', 'fusion.members=[{kind: pixood}, {kind: knn}]', *heads[1:])
    folder = root / 'fusion_board'
    for name, changes in (('pixood', ()), ('knn', heads), ('both', members)):
        recipe = load_recipe(root / 'recipe.yaml', (*LARGER, 'seed=1', *changes))
        store = folder / '_store'
        Workflow(recipe, folder / name, store=store, cache=root / 'cache').pack()
    for kind in ('classifier', 'fit-pixood', 'fit-knn', 'fit-fusion'):
        assert only(store, kind), 'it is made once'


def board(root, **more):
    values = {
        'folder': str(root / 'board'), 'sets': [*SETS], 'seeds': [1, 2],
        'rows': [
            {'name': 'PixOOD', 'recipe': 'recipe.yaml', 'set': [*LARGER]},
            {'name': 'knn', 'recipe': 'recipe.yaml',
             'set': [*LARGER, 'head.kind=knn', 'knn.feature=keys_2', 'knn.references=50']},
            {'name': 'energy', 'recipe': 'recipe.yaml', 'seeds': [1],
             'set': [*LARGER, 'head.kind=baseline', 'head.score=energy'], 'against': ['knn']},
        ],
        **more,
    }  # fmt: skip
    return written(root, 'board', values)


@pytest.mark.slow
def test_the_leaderboard_is_built_in_parts_and_says_what_is_missing(root):
    path = board(root, objects=True)
    run(root, 'study', path, '--only', 'PixOOD', '--seeds', '1', '--quiet')
    text = (root / 'board' / 'leaderboard.md').read_text()
    assert 'Not run yet: knn; energy.' in text
    assert 'Seeds 2 not run yet: PixOOD.' in text
    run(root, 'study', path, '--latency', '--quiet', '--threads', '1')
    document = json.loads((root / 'board' / 'leaderboard.json').read_text())
    assert document['missing'] == {}
    rows = document['sets']['road_obstacle_dev']['regions']['road']
    assert list(rows) == ['PixOOD', 'knn', 'energy']
    for name, count in (('PixOOD', 2), ('knn', 2), ('energy', 1)):
        value = rows[name]['average_precision']
        assert len(value['seeds']) == count
        assert value['mean'] == pytest.approx(np.mean(value['seeds']))
    assert rows['PixOOD']['difference'] is None
    assert len(rows['knn']['difference']) == 2
    named = document['sets']['road_obstacle_dev']['against']['road']
    assert [(one['row'], one['other']) for one in named] == [('energy', 'knn')]
    for column in ('component_average_precision', 'component_f1'):
        for name in ('PixOOD', 'energy'):  # two seeds, and one
            value = rows[name][column]
            assert value['interval'][0] <= value['mean'] <= value['interval'][1]
    assert document['costs']['knn']['parameters'] > 50 * 16
    assert document['costs']['energy']['head_ms'] > 0
    assert document['costs']['energy']['frame_cpu_ms'] > 0
    objects = document['sets']['road_anomaly_dev']['objects']['knn']
    for values in objects.values():  # by size and by row
        known = [value is not None for value in values['average_precision']]
        assert known == [count > 0 for count in values['objects']]
    text = (root / 'board' / 'leaderboard.md').read_text()
    assert 'not run yet' not in text.lower()
    # three regions, each with the row that it names to be compared with; by size and by row of two
    # sets; and the costs
    assert text.count('| energy |') == 11
    assert text.count('| energy | knn | [') == 3
    assert 'component-averaged AP | component F1' in text


def test_components_are_those_of_the_region(root):
    """The page's F1 of the ground is the evaluation's, with what lies outside left out."""
    document = json.loads((root / 'board' / 'leaderboard.json').read_text())
    regions = document['sets']['road_anomaly_dev']['regions']
    for name in ('image', 'ground'):
        assert set(regions[name]['knn']) >= {'component_f1', 'component_average_precision'}
        assert len(regions[name]['knn']['component_f1']['seeds']) == 2


def test_a_head_that_cannot_be_built_is_named_and_keeps_none_from_the_table(root, capsys):
    rows = [
        {'name': 'PixOOD', 'recipe': 'recipe.yaml', 'set': [*LARGER], 'seeds': [1]},
        {'name': 'tomorrow', 'recipe': 'nowhere.yaml', 'seeds': [1]},
        {'name': 'unknown kind', 'recipe': 'recipe.yaml', 'set': ['head.kind=oracle'],
         'seeds': [1]},
    ]  # fmt: skip
    path = board(root, rows=rows)
    arguments = ['study', str(path), '--cache', str(root / 'cache'), '--quiet']
    assert main(arguments) == 3
    text = (root / 'board' / 'leaderboard.md').read_text()
    assert 'Not run yet: tomorrow (' in text
    assert 'unknown kind (' in text
    assert 'nowhere.yaml' in text
    assert '| PixOOD |' in text


def test_a_finished_bundle_takes_the_place_of_a_training(root, monkeypatch, capsys):
    finished = root / 'board' / 'bundles' / 'knn-seed-2' / 'bundle'
    rows = [
        {'name': 'PixOOD', 'recipe': 'recipe.yaml', 'set': [*LARGER], 'seeds': [1]},
        {'name': 'trained elsewhere', 'recipe': 'nowhere.yaml', 'seeds': [7, 8]},
    ]
    path = board(root, rows=rows)
    for wrong in ('nobody=' + str(finished), 'trained elsewhere'):
        assert main(['study', str(path), '--use', wrong]) == 2
        assert 'give ROW=FOLDER' in capsys.readouterr().err
    run(root, 'study', path, '--seeds', '7', '--use', f'trained elsewhere={finished}',
        '--quiet', '--only', 'trained elsewhere')  # fmt: skip
    text = (root / 'board' / 'leaderboard.md').read_text()
    assert 'Bundles trained by their own commands: trained elsewhere, seed 7.' in text
    assert 'Seeds 8 not run yet: trained elsewhere.' in text
    assert 'Not run yet' not in text
    before = json.loads((root / 'board' / 'leaderboard.json').read_text())
    regions = before['sets']['road_obstacle_dev']['regions']['road']
    assert regions['trained elsewhere']['difference'] is not None


def test_rows_of_one_seed_share_their_classifier(root):
    assert len(kept(root / 'board' / 'bundles' / STORE, 'classifier')) == 2  # of two seeds


def test_seeds_are_averaged_within_each_draw_of_images(monkeypatch):
    """Two seeds that err on opposite images: their mean varies less than either."""
    common = np.random.default_rng(0).normal(size=1000)
    common -= common.mean()
    value = entry(monkeypatch, {1: 0.5 + common, 2: 0.7 - common}).value('average_precision')
    assert value['mean'] == pytest.approx(0.6)
    np.testing.assert_allclose(value['interval'], [0.6, 0.6])


def test_differences_are_over_the_seeds_that_both_rows_have(monkeypatch):
    common = np.random.default_rng(0).normal(size=1000)
    three = entry(monkeypatch, {1: common, 2: common + 5, 3: common + 7})
    one, other = entry(monkeypatch, {2: common + 6}), entry(monkeypatch, {9: common + 6})
    for row, expected in ((one, 1), (other, 2)):  # no seed in common: the means of all
        interval = row.difference(three)
        assert (interval.low, interval.high) == pytest.approx((expected, expected))


def entry(monkeypatch, drawn):
    """Return a row with these draws, float (1000,) per seed, in every metric."""
    from trainer.study import report as module

    each = iter([dict.fromkeys(module.METRICS, values) for values in drawn.values()])
    monkeypatch.setattr(module, '_samples', lambda *_: next(each))
    found = {
        seed: {'regions': {'road': dict.fromkeys(module.METRICS, float(np.round(v.mean(), 1)))}}
        for seed, v in drawn.items()
    }
    return Entry({s: SimpleNamespace(summary=v, records=()) for s, v in found.items()}, 'road')


def test_wrong_studies_are_refused(root, capsys):
    one = {'name': 'a b', 'recipe': 'recipe.yaml'}
    for more, words in (
        ({'colour': 'red'}, r"unknown \['colour'\]"),
        ({'reference': 'nobody'}, r"name \['nobody'\]: no row"),
        ({'rows': [{**one, 'against': ['somebody']}]}, r"name \['somebody'\]: no row"),
        ({'rows': [{'name': 'a', 'recipee': 'x'}]}, 'known keys are'),
        ({'rows': [{**one, 'set': 'seed=1'}]}, 'expected a list'),
        ({'rows': [one, {'name': 'a, b'}]}, 'names of their own'),
        ({'rows': []}, 'names of their own'),
    ):
        with pytest.raises(ConfigError, match=words):
            load_leaderboard(board(root, **more))
    assert main(['study', str(board(root)), '--only', 'UEM']) == 2
    assert "--only ['UEM']: rows are" in capsys.readouterr().err
    assert main(['study', str(root / 'recipe.yaml')]) == 2, 'a recipe is no study'
    assert 'known keys are folder, sets, rows' in capsys.readouterr().err


@pytest.mark.parametrize('name', ['leaderboard', 'baselines', 'table-bundles'])
def test_earlier_names_of_the_command_are_aliases(root, name, capsys):
    assert main([name, str(board(root)), '--only', 'UEM']) == 2
    assert "--only ['UEM']: rows are" in capsys.readouterr().err


def test_a_set_of_another_task_is_refused_before_it_is_scored(root, two_bundles, capsys):
    write_set('lars', root / 'lars', ('val',), 1)
    path = board(root, folder=str(root / 'shared_board'), sets=['lars/val'])
    assert main(['study', str(path), '--report-only']) == 2
    assert 'trainer evaluate --runs' in capsys.readouterr().err


def test_a_set_of_known_classes_gives_observed_rates(root, two_bundles):
    sets = [f'folders/train={root / "data"}']
    board(root, folder=str(root / 'shared_board'), sets=sets, images=3, precision='bf16')
    run(root, 'study', root / 'board.yaml', '--report-only', '--quiet')
    document = json.loads((root / 'shared_board' / 'leaderboard.json').read_text())
    (record,) = document['sets'].values()
    assert record['images'] == 3
    for rows in record['rates'].values():
        assert [row['target'] for row in rows] == [0.01, 0.02, 0.05]
        assert [row['observed'] for row in rows] == sorted(row['observed'] for row in rows)
        low, high = rows[0]['interval']
        assert low <= rows[0]['observed'] <= high
    text = (root / 'shared_board' / 'leaderboard.md').read_text()
    assert '| run | 1 % | 2 % | 5 % |' in text
    assert '| energy, seed 1 |' in text
    assert 'The backbone runs in bf16.' in text


def test_changes_of_the_study_come_before_the_rows_own(root):
    rows = [{'name': 'a', 'recipe': 'recipe.yaml', 'set': ['view.height=28']}, {'name': 'shipped'}]
    config = load_leaderboard(board(root, set=['view.height=42', 'head.upsampling=2'], rows=rows))
    row, shipped = config.rows
    recipe = load_recipe(Path(row.recipe), row.changes(7))
    assert (recipe.view.height, recipe.head.upsampling, recipe.seed) == (28, 2, 7)
    assert shipped.runs() == [('shipped, seed 1', 1)]
    assert config.reference == 'a'


def test_a_choice_is_made_on_pasted_objects(root):
    """The set is made of images that only choose, with objects that no training sees."""
    write_objects(root / 'outlier_objects')
    rows = [
        {'name': name, 'recipe': 'recipe.yaml', 'set': [*LARGER, f'head.upsampling={factor}']}
        for name, factor in (('a', 3), ('b', 2))
    ]
    path = board(root, folder=str(root / 'choice'), sets=['pasted'], rows=rows, seeds=[1])
    run(root, 'study', path, '--quiet')
    recipe = load_recipe(root / 'recipe.yaml')
    data = Workflow(recipe, root / 'unused').data
    chosen = [data.images.names[i] for i in data.split[1]]
    made = sorted(file.stem for file in (root / 'choice' / 'pasted' / 'images').iterdir())
    assert made == sorted(chosen)
    labels = cv2.imread(str(root / 'choice' / 'pasted' / 'labels' / f'{made[0]}.png'), -1)
    assert (labels == 1).any()
    ground = cv2.imread(str(root / 'choice' / 'pasted' / 'ground' / f'{made[0]}.png'), -1) > 0
    assert 0 < ground.sum() < ground.size
    assert (labels[~ground] == 255).all()
    assert (labels == 0).any()
    document = json.loads((root / 'choice' / 'leaderboard.json').read_text())
    assert set(document['sets']['pasted']['regions']) == {'image', 'ground'}
    assert '### pasted (' in (root / 'choice' / 'leaderboard.md').read_text()


def test_pasted_objects_need_the_images_of_a_recipe(root, two_bundles, capsys):
    path = board(root, sets=['pasted'], rows=[{'name': 'shipped'}])
    assert main(['study', str(path), '--report-only']) == 2
    assert "'shipped' has none" in capsys.readouterr().err


def studies():
    files = sorted(CONFIG.glob('*.yaml'))
    return [path for path in files if 'rows' in yaml.safe_load(path.read_text())]


@pytest.mark.parametrize('path', studies(), ids=lambda path: path.stem)
def test_every_row_of_a_shipped_study_is_a_recipe_of_its_own(path):
    config = load_leaderboard(path)
    trained = [row for row in config.rows if row.recipe]
    keys = {load_recipe(Path(row.recipe), row.changes(42)).sha256() for row in trained}
    assert len(keys) == len(trained) > 3


def test_the_leaderboard_has_every_head_and_every_baseline():
    recipes = {
        name: [load_recipe(Path(row.recipe), row.changes(42)) for row in config.rows]
        for name in ('leaderboard', 'baselines')
        if (config := load_leaderboard(CONFIG / f'{name}.yaml'))
    }
    kinds = {recipe.head.kind for recipe in recipes['leaderboard']}
    assert kinds >= {'pixood', 'knn', 'fusion', 'uem', 'rpl', 'nflowjs', 'baseline'}
    for several in recipes.values():
        assert {r.head.score for r in several if r.head.kind == 'baseline'} == set(SCORES)
    references = {
        load_recipe(Path(row.recipe), row.changes(42)).knn.references
        for row in load_leaderboard(CONFIG / 'knn_table.yaml').rows
    }
    assert references >= {1000, 3000, 10_000, 30_000, 100_000, 0}
