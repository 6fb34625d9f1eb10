# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""From images to a nearest-neighbour bundle that both CPU engines run, by one recipe."""

from __future__ import annotations

import numpy as np
import pytest
from paths import ROOT

torch = pytest.importorskip('torch', reason='the trainer needs torch')
pytest.importorskip('transformers')
onnx = pytest.importorskip('onnx')

from miniature_recipes import LARGER, miniature, train  # noqa: E402
from stores import kept, only  # noqa: E402

from ood_perception.bundle.store import load_bundle  # noqa: E402
from ood_perception.bundle.weights.completion import complete  # noqa: E402
from ood_perception.engines import create_engine  # noqa: E402
from ood_perception.engines.base import EngineOptions  # noqa: E402
from ood_perception.pipeline import Pipeline, Settings  # noqa: E402
from ood_perception.postprocess.roi import RoiSettings  # noqa: E402
from ood_perception.types import Frame  # noqa: E402
from trainer.recipe import load_recipe  # noqa: E402

__all__ = ['miniature']
PAPER = ROOT / 'config' / 'train' / 'knn_paper.yaml'
SIZE = tuple(word for change in LARGER for word in ('--set', change))
KNN = ('--set', 'head.kind=knn', '--set', 'knn.references=300', *SIZE)
WAYS = {
    'keys': ('--set', 'knn.feature=keys_2'),
    'split': ('--set', 'knn.feature=values_1', '--set', 'knn.head_split=true'),
    'tokens': ('--set', 'knn.feature=tokens_2', '--set', 'knn.score=distance'),
    'coreset': ('--set', 'knn.feature=queries_2', '--set', 'knn.coreset=condensation'),
}


@pytest.fixture(scope='module', params=sorted(WAYS))
def bundle(request, miniature):
    assert train(miniature, f'knn-{request.param}', *KNN, *WAYS[request.param]) == 0
    return request.param, load_bundle(miniature / f'knn-{request.param}' / 'bundle')


def test_a_coreset_of_standardised_tokens_is_refused(miniature, capsys):
    words = *KNN, *WAYS['coreset'], '--set', 'condensation.standardise=true'
    assert train(miniature, 'knn-refused', *words) == 2
    assert 'set condensation.standardise=false' in capsys.readouterr().err


@pytest.mark.parametrize('runtime', ['openvino', 'onnxruntime', 'faiss'])
def test_every_cpu_engine_reproduces_torch(bundle, runtime):
    pytest.importorskip(runtime)
    # creating an engine compares it with the golden vectors
    with create_engine(complete(bundle[1]), EngineOptions(runtime, 'f32', 1)) as engine:
        assert engine.compiled_classes == ('left', 'right')


def test_the_bundle_says_what_it_is_and_holds_its_references_in_float16(bundle):
    way, packed = bundle
    manifest = packed.manifest
    feature = WAYS[way][1].partition('=')[2]
    assert manifest.heads[0].name == 'knn'
    assert manifest.heads[0].set_calibration == 'calibration.npz'
    assert feature in manifest.stages[0].outputs
    assert 'knn' in manifest.provenance['recipe']
    assert 'uem' not in manifest.provenance['recipe']
    report = manifest.provenance['knn']
    assert report['references'] == (6 if way == 'coreset' else 300)  # 3 etalons a class
    graph = onnx.load(packed.root / 'head.onnx').graph
    (matrix,) = [
        t for t in graph.initializer if report['references'] in t.dims and len(t.dims) > 1
    ]
    if way != 'coreset':  # smaller tensors stay float32
        assert matrix.data_type == onnx.TensorProto.FLOAT16


def test_the_class_choice_changes_the_meaning_and_not_the_ranks(bundle):
    packed = complete(bundle[1])
    frame = Frame(np.random.default_rng(0).integers(0, 255, (112, 112, 3), np.uint8))
    with create_engine(packed, EngineOptions('openvino', 'f32', 1)) as engine:
        maps = [
            Pipeline(packed, engine, Settings(roi=RoiSettings('none'), in_distribution=chosen))
            .run([frame])[0]
            .surprisal
            for chosen in (('left',), ('left', 'right'))
        ]
    assert not np.allclose(*maps)
    order = np.argsort(maps[0].ravel(), kind='stable')
    assert (np.diff(maps[1].ravel()[order]) >= -1e-6).all()


def test_stages_are_found_again_and_another_score_keeps_the_fit(miniature):
    options = (*KNN, *WAYS['keys'])
    assert train(miniature, 'knn-again', *options) == 0
    folder = miniature / 'knn-again'
    before = only(folder, 'fit-knn').stat().st_mtime_ns
    assert train(miniature, 'knn-again', *options, '--set', 'knn.score=logsumexp') == 0
    assert only(folder, 'fit-knn').stat().st_mtime_ns == before
    assert len(kept(folder, 'calibrate-knn')) == 2


def test_the_classifier_is_the_one_that_pixood_trains(miniature):
    assert train(miniature, 'knn-pixood', *SIZE) == 0
    assert train(miniature, 'knn-keys2', *KNN, *WAYS['keys']) == 0
    places = [only(miniature / name, 'classifier') for name in ('knn-pixood', 'knn-keys2')]
    assert places[0].name == places[1].name


def test_the_paper_preset_trains_and_packs(miniature):
    """Its tuned backbone, linear head, drawn images and float32 references, in miniature."""
    shipped = load_recipe(PAPER)
    changes = [
        *('head.kind=knn', 'knn.feature=keys_2', 'knn.references=200', 'knn.images=3'),
        *('backbone.layers=[2]', 'finetuning.epochs=2', 'finetuning.pixel_step=1'),
        f'finetuning.learning_rate={shipped.finetuning.learning_rate:.7f}',
        *(f'classifier.kind={shipped.classifier.kind}', 'classifier.schedule=cosine'),
        *(f'knn.upsample={shipped.knn.upsample}', f'knn.k={shipped.knn.k}'),
        *('head.half_weights=false', 'bundle.ship_weights=true'),
    ]
    options = [word for change in (*LARGER, *changes) for word in ('--set', change)]
    assert train(miniature, 'knn-paper', *options) == 0
    bundle = load_bundle(miniature / 'knn-paper' / 'bundle')
    assert not bundle.missing_weights
    assert bundle.manifest.provenance['recipe']['knn']['images'] == 3
    assert 'finetuning' in bundle.manifest.provenance['recipe']
    cells = 3 * 8 * 8  # 112 x 112 in patches of 14
    assert bundle.manifest.provenance['knn']['features'] <= cells
    with create_engine(bundle, EngineOptions('openvino', 'f32', 1)) as engine:
        assert engine.compiled_classes == ('left', 'right')


def test_the_shipped_paper_recipe_is_the_paper_s():
    recipe = load_recipe(PAPER)
    config = recipe.knn
    assert (config.feature, config.head_split, config.k) == ('keys_11', False, 3)
    assert (config.images, config.references, config.normaliser_features) == (
        500,
        100_000,
        30_000,
    )
    assert (config.score, config.coreset, config.upsample) == ('combined', 'random', 'nearest')
    assert (recipe.view.height // 14, recipe.view.width // 14) == (1024 // 16, 2048 // 16)
    assert recipe.classifier.kind == 'linear'
    assert recipe.finetuning.epochs > 0


def test_all_images_leave_no_trace_in_the_recipe(miniature):
    plain = load_recipe(PAPER, ['knn.images=0'])
    assert 'images' not in plain.portable()['knn']
    assert load_recipe(PAPER).portable()['knn']['images'] == 500
    assert train(miniature, 'knn-wrong', *KNN, '--set', 'knn.images=-1') == 2
