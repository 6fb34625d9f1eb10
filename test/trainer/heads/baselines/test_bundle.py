# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""All baselines of one network by one study, as bundles that an engine reproduces."""

from __future__ import annotations

import pytest
import yaml

torch = pytest.importorskip('torch', reason='the trainer needs torch')
pytest.importorskip('transformers')
pytest.importorskip('sklearn')

from miniature_recipes import LARGER, miniature, train  # noqa: E402
from stores import kept  # noqa: E402
from uem_recipes import places  # noqa: E402
from uem_recipes import train as train_uem  # noqa: E402

from ood_perception.bundle.store import load_bundle  # noqa: E402
from ood_perception.bundle.weights.completion import complete  # noqa: E402
from ood_perception.engines import create_engine  # noqa: E402
from ood_perception.engines.base import EngineOptions  # noqa: E402
from trainer.__main__ import main  # noqa: E402
from trainer.heads.baselines.model import SCORES  # noqa: E402
from trainer.study.bundles import STORE  # noqa: E402

__all__ = ['miniature', 'places']
CHANGES = (*LARGER, 'baseline.components=2', 'baseline.reduced=4', 'head.kind=baseline')


@pytest.fixture(scope='module')
def runs(miniature):
    rows = [
        {'name': score, 'recipe': 'recipe.yaml', 'set': [f'head.score={score}']}
        for score in SCORES
    ]
    folder, path = miniature / 'every', miniature / 'baselines.yaml'
    study = {'folder': str(folder), 'sets': ['pasted'], 'set': [*CHANGES], 'rows': rows}
    path.write_text(yaml.safe_dump(study))
    options = ['--build-only', '--cache', str(miniature / 'cache'), '--quiet']
    assert main(['baselines', str(path), *options]) == 0
    return folder / 'runs.yaml'


def test_one_command_makes_a_bundle_of_every_score(runs):
    listed = yaml.safe_load(runs.read_text())['runs']
    assert [run['name'] for run in listed] == [f'{score}, seed 42' for score in SCORES]
    store = (runs.parent / listed[0]['bundle']).parent.parent / STORE
    assert len(kept(store, 'classifier')) == 1, 'one classifier serves all'


@pytest.mark.parametrize('runtime', ['openvino', 'onnxruntime'])
def test_engines_reproduce_every_score(runs, runtime):
    for run in yaml.safe_load(runs.read_text())['runs']:
        bundle = load_bundle(runs.parent / run['bundle'])
        assert bundle.manifest.heads[0].name == run['name'].partition(',')[0]
        with create_engine(complete(bundle), EngineOptions(runtime, 'f32', 1)) as engine:
            assert engine.compiled_classes == ('left', 'right')  # the golden vectors held


def test_the_scores_of_a_segmenter(places):
    changes = ('baseline.source=segmenter', 'views.views=1', 'head.kind=baseline')
    changes += ('patches.fewest_patches=10', 'patches.fewest_images=2')
    for score in ('energy', 'mahalanobis'):
        options = [w for c in (*changes, f'head.score={score}') for w in ('--set', c)]
        bundle = train_uem(places, 'discriminative', f'segmenter-{score}', *options)
        assert [stage.name for stage in bundle.manifest.stages] == ['backbone', 'decoder', 'head']
        with create_engine(complete(bundle), EngineOptions('openvino', 'f32', 1)) as engine:
            assert engine.compiled_classes == ('left', 'right')


def test_the_etalon_distance_is_not_a_segmenters(miniature, capsys):
    changes = ('baseline.source=segmenter', 'head.kind=baseline', 'head.score=distance')
    options = [w for c in changes for w in ('--set', c)]
    assert train(miniature, 'no-distance', *options) == 2
    assert 'source=classifier' in capsys.readouterr().err
    options = ['--set', 'head.kind=baseline', '--set', 'head.score=x']
    assert train(miniature, 'no-score', *options) == 2
    assert "head score 'x': choose one of max_logit" in capsys.readouterr().err
