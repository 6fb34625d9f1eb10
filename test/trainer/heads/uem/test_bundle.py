# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""From images and cut-outs to a UEM bundle that both CPU engines run, by one recipe."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='the trainer needs torch')
pytest.importorskip('transformers')

from uem_recipes import places, train  # noqa: E402

from ood_perception.bundle.weights.completion import complete  # noqa: E402
from ood_perception.engines import create_engine  # noqa: E402
from ood_perception.engines.base import EngineOptions  # noqa: E402
from ood_perception.pipeline import Pipeline, Settings  # noqa: E402
from ood_perception.postprocess.roi import RoiSettings  # noqa: E402
from ood_perception.types import Frame  # noqa: E402
from trainer.heads.uem.training import known_scores  # noqa: E402
from trainer.recipe import load_recipe  # noqa: E402
from trainer.workflow import Workflow  # noqa: E402

__all__ = ['places']  # fixtures


@pytest.fixture(scope='module', params=['discriminative', 'generative'])
def bundle(request, places):
    return train(places, request.param, request.param)


def test_the_bundle_has_a_decoder_and_says_what_it_is(bundle):
    manifest = bundle.manifest
    assert [stage.name for stage in manifest.stages] == ['backbone', 'decoder', 'head']
    assert manifest.heads[0].name == 'uem'
    assert manifest.heads[0].set_calibration == 'calibration.npz'
    assert 'condensation' not in manifest.provenance['recipe']
    assert not any('PixOOD' in line for line in manifest.licences)


@pytest.mark.parametrize('runtime', ['openvino', 'onnxruntime'])
def test_both_cpu_engines_reproduce_torch(bundle, runtime):
    # creating an engine compares it with the golden vectors
    with create_engine(complete(bundle), EngineOptions(runtime, 'f32', 1)) as engine:
        assert engine.compiled_classes == ('left', 'right')


def test_the_class_choice_changes_the_score_of_a_one_score_head(bundle):
    frame = Frame(np.random.default_rng(0).integers(0, 255, (56, 56, 3), np.uint8))
    with create_engine(complete(bundle), EngineOptions('openvino', 'f32', 1)) as engine:
        settings = Settings(roi=RoiSettings('none'))
        left = Pipeline(bundle, engine, settings).run([frame])[0].surprisal
        both = Settings(roi=RoiSettings('none'), in_distribution=('left', 'right'))
        every = Pipeline(bundle, engine, both).run([frame])[0].surprisal
    assert not np.allclose(left, every)
    order = np.argsort(left.ravel(), kind='stable')
    assert (np.diff(every.ravel()[order]) >= -1e-6).all()  # another meaning, the same ranks


def test_the_inlier_labels_are_bit_for_bit_those_of_another_module(places):
    one, other = (
        train(places, 'discriminative', 'discriminative'),
        train(places, 'discriminative', 'id', '--set', 'uem.score=id'),
    )
    frame = Frame(np.random.default_rng(1).integers(0, 255, (56, 56, 3), np.uint8))
    labels = []
    for bundle in (one, other):
        with create_engine(complete(bundle), EngineOptions('openvino', 'f32', 1)) as engine:
            pipeline = Pipeline(bundle, engine, Settings(roi=RoiSettings('none')))
            labels.append(pipeline.run([frame])[0].labels)
    np.testing.assert_array_equal(*labels)
    decoders = [(b.root / 'decoder.onnx').read_bytes() for b in (one, other)]
    assert decoders[0] == decoders[1]


def test_views_join_the_mixes_with_their_own_known_scores(places, bundle):
    recipe = load_recipe(places / 'discriminative.yaml', ['uem.with_views=true'])
    folder, cache = places / 'discriminative', places / 'cache'
    fit = Workflow(recipe, folder, cache=cache).head_fit
    segmenter = fit.closed_set.load()
    features, known = fit.training_set(segmenter)
    mixes, bank = fit.mixed('training'), fit.closed_set.bank()
    assert features.names == (*mixes.names, *bank.names)
    np.testing.assert_array_equal(known, known_scores(segmenter, features))
