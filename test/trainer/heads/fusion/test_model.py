# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Fusions: the combinations against scipy, the head's contract, a bundle that engines run."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='the trainer needs torch')
pytest.importorskip('transformers')

from feature_sets import make_feature_set  # noqa: E402
from miniature_recipes import miniature, train  # noqa: E402
from monotone_curves import surprisal_of  # noqa: E402
from pixood_models import a_curve, some_model  # noqa: E402
from stores import kept, only, report  # noqa: E402

from ood_perception.bundle.store import load_bundle  # noqa: E402
from ood_perception.bundle.weights.completion import complete  # noqa: E402
from ood_perception.engines import create_engine  # noqa: E402
from ood_perception.engines.base import EngineOptions  # noqa: E402
from ood_perception.errors import ConfigError  # noqa: E402
from ood_perception.pipeline import Pipeline, Settings  # noqa: E402
from ood_perception.postprocess.roi import RoiSettings  # noqa: E402
from ood_perception.types import Frame  # noqa: E402
from trainer.heads.fusion import config as fusion_config  # noqa: E402
from trainer.heads.fusion.config import FusionConfig, MemberConfig  # noqa: E402
from trainer.heads.fusion.model import COMBINATIONS, FusionHead  # noqa: E402
from trainer.heads.knn.model import KnnHead, KnnModel  # noqa: E402
from trainer.heads.pixood.model import PixOODHead  # noqa: E402

__all__ = ['miniature']
MEMBERS = 'fusion.members=[{kind: pixood}, {kind: knn}]'
FUSION = ('head.kind=fusion', 'knn.references=60', 'knn.feature=keys_2', MEMBERS)


def options(*changes):
    return [word for change in changes for word in ('--set', change)]


def test_max_and_mean_are_the_least_and_the_geometric_mean_p_value():
    surprisal = [torch.tensor([1.0, 3.0]), torch.tensor([2.0, 0.0])]
    assert COMBINATIONS['max'](surprisal).tolist() == [2.0, 3.0]
    assert COMBINATIONS['mean'](surprisal).tolist() == [1.5, 1.5]


@pytest.mark.parametrize('combine', sorted(COMBINATIONS))
def test_what_independent_heads_flag_without_a_table(combine):
    """A maximum of two flags twice the rate, the mean flags less."""
    p = np.random.default_rng(1).uniform(size=(2, 2_000_000))
    combined = COMBINATIONS[combine]([torch.from_numpy(-np.log10(one)) for one in p])
    share = float((combined >= 2).double().mean())
    x = 4 * np.log(10)  # mean surprisal 2: -ln p1 p2 >= 4 ln 10, Gamma of shape 2
    expected = {'max': 1 - 0.99**2, 'mean': np.exp(-x) * (1 + x)}
    assert abs(share - expected[combine]) < 5 * np.sqrt(expected[combine] / 2e6)


@pytest.fixture(scope='module')
def members():
    """Return a PixOOD head of three classes and a nearest-neighbour head beside it."""
    model = some_model()
    pixood = PixOODHead(model, 3, 'min')
    rng = np.random.default_rng(3)
    references = rng.normal(size=(50, 32)).astype(np.float16)
    knn = KnnModel(
        model.classes, 'keys_2', 1, references, 3, model.classifier, -3.0, 1.0, 9.0, 'bilinear'
    )
    return pixood, KnnHead(knn, (), 3, curve=a_curve(rng))


@pytest.fixture(scope='module')
def tokens():
    features = make_feature_set(layers=('tokens_1', 'tokens_2', 'keys_2'), images=2, dim=32)
    return [torch.from_numpy(np.array(value)).float() for value in features.tokens.values()]


@pytest.mark.parametrize('combine', sorted(COMBINATIONS))
def test_the_least_over_classes_is_that_of_the_combined_maps(members, tokens, combine):
    pixood, knn = members
    rng = np.random.default_rng(5)
    curve = a_curve(rng)
    head = FusionHead(members, combine, [curve] * 3)
    assert head.layers == ('tokens_1', 'tokens_2', 'keys_2')
    assert head.compiled_classes == pixood.compiled_classes == ('road', 'pavement', 'sky')
    chosen = torch.tensor([1.0, 0.0, 1.0])
    surprisal, labels, *own = head.outputs(*tokens, chosen)
    parts = [pixood(*tokens[:2], chosen)[0], knn(*tokens, torch.ones(4))[0]]
    expected = surprisal_of(curve, COMBINATIONS[combine](parts).numpy())
    np.testing.assert_allclose(surprisal.numpy(), expected, rtol=2e-4, atol=1e-4)
    torch.testing.assert_close(torch.stack([own[0], own[2]]).amin(0), surprisal)
    assert torch.equal(labels, pixood(*tokens[:2], chosen)[1])
    assert any('PixOOD' in line for line in head.notices)


def test_members_of_one_score_each_make_a_fusion_of_one_score(members, tokens):
    knn = members[1]
    head = FusionHead([knn, knn], 'mean', [a_curve(np.random.default_rng(0))])
    assert head.selection == 'unified'
    raw, _ = head.raw_scores(*[tokens[i] for i in (0, 1, 2)])
    assert raw.shape == (2, 1, 18, 24)
    torch.testing.assert_close(raw[:, 0], knn(*tokens, torch.ones(4))[0])


def test_impossible_fusions_are_refused(members):
    pixood = members[0]
    with pytest.raises(ConfigError, match=r"'knn': 3.*head\.upsampling"):
        FusionHead([PixOODHead(some_model(), 7, 'min'), members[1]], 'max')
    few = PixOODHead(some_model(), 3, 'min', classes=('road',))
    with pytest.raises(ConfigError, match=r'head\.classes'):
        FusionHead([few, pixood], 'max')
    with pytest.raises(ConfigError, match='run calibrate'):
        FusionHead(members, 'max')(*(torch.zeros(1, 2, 2, 32),) * 3, torch.ones(3))
    for kinds in (['knn'], ['knn', 'knn'], ['knn', 'fusion']):
        with pytest.raises(ConfigError, match='at least two kinds'):
            FusionConfig(tuple(MemberConfig(kind) for kind in kinds))
    assert tuple(COMBINATIONS) == fusion_config.COMBINATIONS
    with pytest.raises(ConfigError, match="combine 'vote': choose one of max"):
        FusionConfig((MemberConfig('knn'), MemberConfig('pixood')), 'vote')


@pytest.fixture(scope='module', params=sorted(COMBINATIONS))
def bundle(request, miniature):
    changes = options(*FUSION, f'fusion.combine={request.param}')
    assert train(miniature, f'fusion-{request.param}', *changes) == 0
    return request.param, load_bundle(miniature / f'fusion-{request.param}' / 'bundle')


@pytest.mark.parametrize('runtime', ['openvino', 'onnxruntime', 'faiss'])
def test_every_cpu_engine_reproduces_torch(bundle, runtime):
    pytest.importorskip(runtime)
    for classes in ((), ('right',)):  # whole, and cut down to one class
        choice = EngineOptions(runtime, 'f32', 1, compiled_classes=classes)
        with create_engine(complete(bundle[1]), choice) as engine:
            assert engine.compiled_classes == (classes or ('left', 'right'))


def test_the_bundle_says_what_it_is_made_of_and_what_it_would_flag_uncalibrated(bundle):
    combine, packed = bundle
    manifest = packed.manifest
    assert manifest.heads[0].name == 'fusion'
    assert set(manifest.provenance['members']) == {'pixood', 'knn'}
    assert manifest.provenance['recipe']['fusion']['combine'] == combine
    assert 'uem' not in manifest.provenance['recipe']
    rates = manifest.calibration['uncalibrated']['pooled']
    assert set(rates) == {'0.01', '0.02', '0.05'}
    if combine == 'max':
        assert 0.009 < rates['0.01'] <= 0.021  # between the rate and H times the rate
    assert [stage.name for stage in manifest.stages] == ['backbone', 'head']


def test_members_share_one_classifier(miniature, bundle):
    store = miniature / f'fusion-{bundle[0]}'
    assert len(kept(store, 'classifier')) == 1, 'it is trained once'
    members = report(store, 'fit-fusion')['members']
    assert members == {kind: only(store, f'calibrate-{kind}').name for kind in ('pixood', 'knn')}


def test_the_class_choice_reaches_the_fusion(bundle):
    packed = complete(bundle[1])
    frame = Frame(np.random.default_rng(0).integers(0, 255, (56, 56, 3), np.uint8))
    with create_engine(packed, EngineOptions('openvino', 'f32', 1)) as engine:
        maps = [
            Pipeline(packed, engine, Settings(roi=RoiSettings('none'), in_distribution=chosen))
            .run([frame])[0]
            .surprisal
            for chosen in (('left',), ('right',))
        ]
    assert not np.allclose(*maps)
