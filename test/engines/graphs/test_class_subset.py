# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A head cut to fewer classes gives what the whole head gives for them, and costs less."""

import numpy as np
import onnx
import pytest
from bundles import TOKENS, head_model, write_tiny_bundle

from ood_perception.bundle.store import load_bundle
from ood_perception.engines import create_engine
from ood_perception.engines.base import EngineOptions
from ood_perception.engines.graphs.head_cuts import slice_head
from ood_perception.errors import BundleError, EngineError

onnxruntime = pytest.importorskip('onnxruntime')
CLASSES = ('Road', 'Pavement', 'Sky', 'Tree', 'Water')
GRID = (4, 6)


@pytest.fixture(scope='module')
def head(tmp_path_factory):
    path = tmp_path_factory.mktemp('head') / 'head.onnx'
    onnx.save(head_model(CLASSES, CLASSES, 3, 'min', GRID), path)
    return path


def run(model, tokens, chosen):
    session = onnxruntime.InferenceSession(model)
    feeds = {TOKENS: tokens, 'in_distribution': np.asarray(chosen, np.float32)}
    return session.run(['surprisal', 'labels'], feeds)


@pytest.mark.parametrize('keep', [(0,), (4,), (0, 1), (1, 3, 4), (0, 1, 2, 3, 4)])
def test_every_choice_among_the_kept_classes_is_the_same(head, keep):
    tokens = np.random.default_rng(0).normal(0, 1, (2, *GRID, 8)).astype(np.float32)
    sliced = slice_head(head, keep)

    for choice in range(1, 1 << len(keep)):
        small = [choice >> i & 1 for i in range(len(keep))]
        whole = np.zeros(len(CLASSES))
        whole[list(keep)] = small
        expected = run(str(head), tokens, whole)
        got = run(sliced, tokens, small)
        np.testing.assert_array_equal(got[0], expected[0])
        np.testing.assert_array_equal(got[1], expected[1])


def test_what_is_not_needed_is_gone(head):
    graph = onnx.load_from_string(slice_head(head, [1])).graph
    names = {name for node in graph.node for name in node.output}

    assert 'surprisal_of_1' in names
    assert not names & {f'surprisal_of_{i}' for i in (0, 2, 3, 4)}
    assert not {f'centre_{i}' for i in (0, 2, 3, 4)} & {t.name for t in graph.initializer}


def test_the_same_cut_gives_the_same_bytes(head):
    assert slice_head(head, [0, 2]) == slice_head(head, [0, 2])


def test_a_head_without_class_maps_is_refused(tmp_path):
    path = write_tiny_bundle(tmp_path / 'tiny')
    with pytest.raises(BundleError, match=r'no tensor surprisal_of_0: .* selection min'):
        slice_head(path / 'backbone.onnx', [0])


@pytest.mark.parametrize('runtime', ['openvino', 'onnxruntime'])
@pytest.mark.parametrize('classes', [('Road',), ('Pavement', 'Road'), ('Sky', 'Water')])
def test_engines_compile_the_chosen_classes_alone(tmp_path, runtime, classes):
    pytest.importorskip(runtime)
    bundle = load_bundle(write_tiny_bundle(tmp_path / 'tiny', classes=CLASSES))
    image = np.load(bundle.path('golden.npz'))['image']
    options = EngineOptions(runtime, 'f32', 1)

    with create_engine(bundle, options) as whole:
        expected = whole.run(image, whole.class_vector(classes))
    options = EngineOptions(runtime, 'f32', 1, compiled_classes=classes)
    with create_engine(bundle, options) as engine:
        assert engine.compiled_classes == tuple(n for n in CLASSES if n in classes)
        got = engine.run(image, engine.class_vector(classes))

    np.testing.assert_allclose(got.surprisal, expected.surprisal, atol=1e-5)
    np.testing.assert_array_equal(got.labels, expected.labels)


def test_classes_that_cannot_be_compiled_are_named(tmp_path):
    bundle = load_bundle(
        write_tiny_bundle(tmp_path / 'tiny', compiled_classes=('Road', 'Pavement'))
    )
    with pytest.raises(EngineError, match=r'compiled classes Sky: .* Road, Pavement'):
        create_engine(bundle, EngineOptions(compiled_classes=('Sky',)))


def test_a_head_with_one_table_is_not_cut(tmp_path):
    bundle = load_bundle(write_tiny_bundle(tmp_path / 'tiny', selection='unified'))
    with pytest.raises(EngineError, match=r'unified.* leave the option empty'):
        create_engine(bundle, EngineOptions(compiled_classes=('Road',)))
