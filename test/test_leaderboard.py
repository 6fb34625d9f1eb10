# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The table of cDNP and the leaderboard, from recipes to Markdown, on miniatures."""

from __future__ import annotations

import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import yaml

torch = pytest.importorskip('torch', reason='the trainer needs torch')
pytest.importorskip('transformers')

from paths import ROOT  # noqa: E402
from test_trainer_cli import LARGER, miniature  # noqa: E402

from ood_perception.errors import ConfigError  # noqa: E402
from ood_perception.evaluation.run import RunOptions  # noqa: E402
from ood_perception.pipeline import Settings  # noqa: E402
from trainer.__main__ import main  # noqa: E402
from trainer.config import load_recipe  # noqa: E402
from trainer.evaluation.engine_choice import EngineChoice  # noqa: E402
from trainer.evaluation.evaluation_runs import RunSpec, evaluate_runs  # noqa: E402
from trainer.experiments.knn_rows import load_knn_table  # noqa: E402
from trainer.experiments.leaderboard_bundles import LeaderboardBundles  # noqa: E402
from trainer.experiments.leaderboard_entry import Entry  # noqa: E402
from trainer.experiments.leaderboard_rows import load_leaderboard  # noqa: E402
from trainer.experiments.table_bundles import BundleTable, TableRow, build_bundles  # noqa: E402
from trainer.heads.baselines import SCORES  # noqa: E402
from trainer.heads.knn_search import mean_distances, running_distances  # noqa: E402

__all__ = ['miniature']
CONFIG = ROOT / 'config' / 'train'
SETS = {'road_anomaly_dev': 2, 'road_obstacle_dev': 1}


@pytest.fixture(scope='module')
def root(miniature):
    """Add two small sets of anomalies: a green square on pictures of known colours."""
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


def knn_table(root, rows, **more):
    values = {
        'recipe': 'recipe.yaml', 'folder': str(root / 'knn_table'),
        'sets': dict.fromkeys(SETS, 56), 'rows': rows, 'resamples': 20, **more,
    }  # fmt: skip
    return written(root, 'knn_table', values)


ROWS = [
    {'name': 'reference', 'feature': 'keys_2', 'references': 50},
    {'name': 'few', 'varies': 'N', 'feature': 'keys_2', 'references': 10},
    {'name': 'all', 'varies': 'N', 'feature': 'keys_2', 'references': 0, 'score': 'distance'},
    {'name': 'lse', 'varies': 'score', 'feature': 'keys_2', 'score': 'logsumexp'},
    {'name': 'left', 'varies': 'classes', 'feature': 'keys_2', 'classes': ['left']},
    {'name': 'split', 'varies': 'feature', 'feature': 'values_1', 'head_split': True, 'k': 1},
    {'name': 'coreset', 'varies': 'coreset', 'feature': 'keys_2', 'coreset': 'condensation'},
]


def test_a_prefix_of_the_references_is_searched_like_a_search_of_its_own():
    rng = np.random.default_rng(0)
    grid, references = rng.normal(size=(3, 4, 8)), rng.normal(size=(500, 8))
    wanted = [(10, 1), (10, 3), (0, 3), (600, 2)]
    found = running_distances(torch.from_numpy(grid).float(), references, wanted)
    for count, k in wanted:
        part = references[: count or None]
        expected = mean_distances(grid.reshape(-1, 8), part, k).reshape(3, 4)
        np.testing.assert_allclose(found[count, k], expected, rtol=1e-5)


def test_the_knn_table_measures_every_row_and_goes_on(root, monkeypatch):
    path = knn_table(root, ROWS)
    run(root, 'knn-table', path, '--only', 'few')
    text = (root / 'knn_table' / 'knn_table.md').read_text()
    assert 'Not run yet (6 rows): reference; all; lse' in text
    run(root, 'knn-table', path, '--only', 'reference', 'few')
    text = (root / 'knn_table' / 'knn_table.md').read_text()
    assert 'AP of reference minus' in text
    saved = []
    from trainer.experiments import results

    save = results.ResultFolder.save
    monkeypatch.setattr(
        results.ResultFolder, 'save', lambda *a: (saved.append((a[1].name, a[2])), save(*a))[1]
    )
    run(root, 'knn-table', path)
    assert len(saved) == (len(ROWS) - 2) * len(SETS), 'what was measured is kept'
    document = json.loads((root / 'knn_table' / 'knn_table.json').read_text())
    assert set(document['sets']['road_anomaly_dev']['few']['regions']) == {'image', 'ground'}
    assert set(document['sets']['road_obstacle_dev']['few']['regions']) == {'road'}
    assert set(document['differences']) == {row['name'] for row in ROWS[1:]}
    text = (root / 'knn_table' / 'knn_table.md').read_text()
    assert 'Not run yet' not in text
    assert '| classes | left |' in text
    assert 'head, ms' not in text
    precision = document['sets']['road_obstacle_dev']['all']['regions']['road']
    assert precision['average_precision'] > precision['positives'] / (
        precision['positives'] + precision['negatives']
    )


def test_the_latency_of_the_search_is_shown_beside_the_references_size(root, monkeypatch, capsys):
    from trainer.experiments import knn_latency

    monkeypatch.setattr(knn_latency, 'SIZES', (300, 1000))
    monkeypatch.setattr(knn_latency, 'LISTS', 4)
    monkeypatch.setattr(knn_latency, 'PROBES', 2)
    run(root, 'knn-table', knn_table(root, ROWS), '--only-latency', '--threads', '1')
    text = capsys.readouterr().out
    assert '| references | MB | OpenVINO, ms | torch, ms' in text
    assert '| 1,000 | 0.8 |' in text
    run(root, 'knn-table', knn_table(root, ROWS), '--only', 'few')
    assert '| 1,000 | 0.8 |' in (root / 'knn_table' / 'knn_table.md').read_text()


def test_wrong_keys_rows_and_sets_are_refused(root, capsys):
    for more, words in (
        ({'colour': 'red'}, r"unknown \['colour'\]"),
        ({'reference': 'nobody'}, 'rows need names'),
        ({'rows': [{'name': 'a', 'neighbours': 3}]}, 'known keys are'),
        ({'rows': [{'name': 'a'}, {'name': 'a'}]}, 'names of their own'),
    ):
        with pytest.raises(ConfigError, match=words):
            load_knn_table(knn_table(root, ROWS, **more) if 'rows' not in more else
                           knn_table(root, more['rows']))  # fmt: skip
    path = knn_table(root, ROWS)
    assert main(['knn-table', str(path), '--sets', 'cityscapes']) == 2
    assert "--sets ['cityscapes'] is not in the table" in capsys.readouterr().err


@pytest.fixture(scope='module')
def two_bundles(root):
    """Return a table with bundles of two heads on one backbone, built and not scored."""
    path = board(root, folder=str(root / 'shared_board'))
    only = ('--only', 'PixOOD', 'energy', '--seeds', '1')
    run(root, 'leaderboard', path, *only, '--quiet', '--build-only')
    return dict(LeaderboardBundles(load_leaderboard(path)).there())


def test_bundles_of_one_backbone_share_its_outputs_to_the_bit(root, two_bundles, tmp_path):
    def records(name, shared):
        spec = RunSpec(name, str(two_bundles[name]), Settings())
        choice = EngineChoice('openvino', 'f32', 1, shared=shared)
        out = tmp_path / f'{name}-{shared is not None}'
        runs = evaluate_runs([spec], ['road_anomaly_dev'], root, out, choice, RunOptions()).runs
        return [dict(record) for record in runs[0].sets['road_anomaly_dev'].records]

    shared = tmp_path / 'backbones'
    for name in two_bundles:
        for plain, found in zip(records(name, None), records(name, shared), strict=True):
            for key in plain.keys() - {'read_measure_ms', 'stage_ms'}:
                np.testing.assert_array_equal(plain[key], found[key], key)
        assert len(list(shared.rglob('*.npz'))) == 3  # a picture each, whatever the head


def test_a_fusion_takes_over_the_fits_of_its_members_rows(root):
    heads = ('head.kind=knn', 'knn.feature=keys_2', 'knn.references=50')
    members = ('head.kind=fusion', 'fusion.members=[{kind: pixood}, {kind: knn}]', *heads[1:])
    rows = {'PixOOD': (), 'knn': heads, 'both': members}
    folder = root / 'fusion_board'
    table = tuple(TableRow(name, (*LARGER, 'seed=1', *changes)) for name, changes in rows.items())
    build_bundles(BundleTable(root / 'recipe.yaml', folder, table), (), False, root / 'cache')
    for row, member in (('pixood', 'pixood'), ('knn', 'knn')):
        files = sorted((folder / row / 'fit').iterdir())
        taken = folder / 'both' / 'members' / member / 'fit'
        assert files
        assert all(file.samefile(taken / file.name) for file in files)


def board(root, **more):
    values = {
        'folder': str(root / 'board'), 'sets': [*SETS], 'seeds': [1, 2],
        'rows': [
            {'name': 'PixOOD', 'recipe': 'recipe.yaml', 'set': [*LARGER]},
            {'name': 'knn', 'recipe': 'recipe.yaml',
             'set': [*LARGER, 'head.kind=knn', 'knn.feature=keys_2', 'knn.references=50']},
            {'name': 'energy', 'recipe': 'recipe.yaml', 'seeds': [1],
             'set': [*LARGER, 'head.kind=baseline', 'head.score=energy']},
        ],
        **more,
    }  # fmt: skip
    return written(root, 'board', values)


@pytest.mark.slow
def test_the_leaderboard_is_built_in_parts_and_says_what_is_missing(root):
    path = board(root)
    run(root, 'leaderboard', path, '--only', 'PixOOD', '--seeds', '1', '--quiet')
    text = (root / 'board' / 'leaderboard.md').read_text()
    assert 'Not run yet: knn; energy.' in text
    assert 'Seeds 2 not run yet: PixOOD.' in text
    run(root, 'leaderboard', path, '--latency', '--quiet', '--threads', '1')
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
    for column in ('component_average_precision', 'component_f1'):
        for name in ('PixOOD', 'energy'):  # two seeds, and one
            value = rows[name][column]
            assert value['interval'][0] <= value['mean'] <= value['interval'][1]
    assert document['costs']['knn']['parameters'] > 50 * 16
    assert document['costs']['energy']['head_ms'] > 0
    text = (root / 'board' / 'leaderboard.md').read_text()
    assert 'not run yet' not in text.lower()
    assert text.count('| energy |') == 4  # three regions and the costs
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
    arguments = ['leaderboard', str(path), '--cache', str(root / 'cache'), '--quiet']
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
        assert main(['leaderboard', str(path), '--use', wrong]) == 2
        assert 'give ROW=FOLDER' in capsys.readouterr().err
    run(root, 'leaderboard', path, '--seeds', '7', '--use', f'trained elsewhere={finished}',
        '--quiet', '--only', 'trained elsewhere')  # fmt: skip
    text = (root / 'board' / 'leaderboard.md').read_text()
    assert 'Bundles trained by their own commands: trained elsewhere, seed 7.' in text
    assert 'Seeds 8 not run yet: trained elsewhere.' in text
    assert 'Not run yet' not in text
    before = json.loads((root / 'board' / 'leaderboard.json').read_text())
    regions = before['sets']['road_obstacle_dev']['regions']['road']
    assert regions['trained elsewhere']['difference'] is not None


def test_rows_of_one_seed_share_their_classifier(root):
    bundles = root / 'board' / 'bundles'
    names = ('pixood-seed-1', 'knn-seed-1', 'energy-seed-1')
    inodes = {(bundles / n / 'classifier' / 'classifier.safetensors').stat().st_ino for n in names}
    assert len(inodes) == 1
    other = bundles / 'pixood-seed-2' / 'classifier' / 'classifier.safetensors'
    assert other.stat().st_ino not in inodes


def test_seeds_are_averaged_within_each_draw_of_pictures(monkeypatch):
    """Two seeds that err on opposite pictures: their mean varies less than either."""
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
    from trainer.experiments import leaderboard_entry as module

    each = iter([dict.fromkeys(module.METRICS, values) for values in drawn.values()])
    monkeypatch.setattr(module, '_samples', lambda *_: next(each))
    found = {
        seed: {'regions': {'road': dict.fromkeys(module.METRICS, float(np.round(v.mean(), 1)))}}
        for seed, v in drawn.items()
    }
    return Entry({s: SimpleNamespace(summary=v, records=()) for s, v in found.items()}, 'road')


def test_wrong_leaderboards_are_refused(root, capsys):
    for more, words in (
        ({'colour': 'red'}, r"unknown \['colour'\]"),
        ({'reference': 'nobody'}, 'a reference'),
        ({'rows': [{'name': 'a', 'recipee': 'x'}]}, 'known keys are'),
    ):
        with pytest.raises(ConfigError, match=words):
            load_leaderboard(board(root, **more))
    assert main(['leaderboard', str(board(root)), '--only', 'UEM']) == 2
    assert "--only ['UEM']: rows are" in capsys.readouterr().err


def test_shipped_tables_and_recipes_can_be_read():
    table = load_knn_table(CONFIG / 'knn_table.yaml')
    assert table.reference in [row.name for row in table.rows]
    assert table.rows[0].knn == load_recipe(CONFIG / 'knn_camvid.yaml').knn
    assert {row.knn.references for row in table.rows} >= {1000, 3000, 10_000, 30_000, 100_000, 0}
    config = load_leaderboard(CONFIG / 'leaderboard.yaml')
    kinds = set()
    for row in config.rows:
        recipe = load_recipe(row.recipe, row.bundle_row(42).changes)
        kinds.add((recipe.head.kind, recipe.head.score if recipe.head.kind == 'baseline' else ''))
    assert {kind for kind, _ in kinds} >= {'pixood', 'knn', 'fusion', 'uem', 'baseline'}
    assert {score for kind, score in kinds if kind == 'baseline'} == set(SCORES)
