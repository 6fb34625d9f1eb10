# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""int8 and auto on every CPU engine: near, refused when damaged, chosen by what was measured."""

import dataclasses
import json
import logging

import numpy as np
import onnx
import pytest
from bundles import write_manifest, write_tiny_bundle
from onnx import helper
from quantized_bundles import precision_spec, write_quantized_bundle

from ood_perception.bundle.manifest import PrecisionSpec
from ood_perception.bundle.store import load_bundle
from ood_perception.engines import _engine_class, create_checked_engine, create_engine
from ood_perception.engines.base import EngineOptions
from ood_perception.engines.plan import choose_precisions
from ood_perception.errors import EngineError

pytest.importorskip('onnxruntime')
EVERY_HEAD = ('openvino', 'onnxruntime')  # engine faiss: test_engine_faiss.py
PRECISIONS = [
    ('openvino', 'f32'),
    ('openvino', 'bf16'),
    ('openvino', 'int8'),
    ('onnxruntime', 'f32'),
    ('onnxruntime', 'int8'),
]


def engine_class(runtime):
    pytest.importorskip(runtime)
    return _engine_class(runtime)


def need(runtime, precision):
    kind = engine_class(runtime)
    if precision == 'bf16' and 'bf16' in kind.slow_precisions():
        pytest.skip(kind.slow_precisions()['bf16'])
    if precision == 'int8' and kind.int8_products().refused:
        pytest.skip(kind.int8_products().refused)


@pytest.fixture(scope='module')
def bundle(tmp_path_factory):
    return load_bundle(write_quantized_bundle(tmp_path_factory.mktemp('q') / 'b', upsampling=7))


@pytest.fixture
def runtime(request):
    pytest.importorskip(request.param)
    return request.param


def noise(batch, seed=3):
    return np.random.default_rng(seed).integers(0, 256, (batch, 56, 84, 3), dtype=np.uint8)


@pytest.mark.parametrize('runtime', EVERY_HEAD, indirect=True)
def test_int8_is_near_and_is_not_float32(bundle, runtime):
    need(runtime, 'int8')
    engine, report = create_checked_engine(bundle, EngineOptions(runtime, 'int8', 1))
    with engine:
        assert engine.description['precision'] == 'int8'
    assert 1e-3 < report.surprisal_difference < 0.4
    assert report.distinct_share > 0.95


@pytest.mark.parametrize('runtime', EVERY_HEAD, indirect=True)
def test_int8_gives_the_same_bits_again(bundle, runtime):
    need(runtime, 'int8')
    results = []
    for _ in range(2):
        with create_engine(bundle, EngineOptions(runtime, 'int8', 1)) as engine:
            vector = engine.class_vector(['Road'])
            results += [engine.run(noise(2), vector).surprisal for _ in range(2)]
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


@pytest.mark.parametrize('runtime', EVERY_HEAD, indirect=True)
@pytest.mark.parametrize('pin_threads', [None, True, False])
def test_side_by_side_gives_what_one_by_one_gives(bundle, runtime, pin_threads):
    images = noise(3)
    outputs = []
    for mode in ('latency', 'throughput'):
        options = EngineOptions(runtime, 'f32', 2, mode=mode, pin_threads=pin_threads)
        with create_engine(bundle, options) as engine:
            outputs.append(engine.run(images, engine.class_vector(['Road'])))
            again = engine.run(images[::-1], engine.class_vector(['Road']))
        np.testing.assert_array_equal(again.surprisal[::-1], outputs[-1].surprisal)

    np.testing.assert_allclose(outputs[0].surprisal, outputs[1].surprisal, atol=1e-3)
    np.testing.assert_array_equal(outputs[0].labels, outputs[1].labels)
    assert outputs[1].surprisal.shape == (3, 28, 42)


def test_images_share_the_threads_evenly_or_come_one_after_the_other():
    openvino = pytest.importorskip('ood_perception.engines.openvino')
    found = {(b, t): openvino.streams_for(b, t) for b in (1, 2, 3, 4, 6) for t in (1, 2, 8)}
    assert all(b % streams == 0 and streams <= t for (b, t), streams in found.items())
    assert [found[b, 2] for b in (1, 2, 3, 4, 6)] == [1, 2, 1, 2, 2]
    assert [found[b, 8] for b in (1, 2, 3, 4, 6)] == [1, 2, 3, 4, 6]


def swap_channels(model):
    for tensor in model.graph.initializer:
        if tensor.name == 'patch_embed.weight':
            values = onnx.numpy_helper.to_array(tensor)[:, ::-1].copy()
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))


def norm_in_half(model):
    """
    Replace the second LayerNormalization by its parts, the squares with the range of fp16.

    CPU runtimes widen fp16 tensors to float32, so what a GPU does is written out: what leaves the
    range is infinite.
    """
    graph = model.graph
    place = next(i for i, node in enumerate(graph.node) if 'normed_y' in node.output)
    source, weight, bias = graph.node[place].input
    tensors = {
        'last': np.array([-1], np.int64),
        'epsilon': np.array(1e-5, np.float32),
        'largest': np.array(65504, np.float32),
        'infinite': np.array(np.inf, np.float32),
    }
    graph.initializer.extend(onnx.numpy_helper.from_array(v, k) for k, v in tensors.items())
    make = helper.make_node
    nodes = [
        make('ReduceMean', [source, 'last'], ['mean_y']),
        make('Sub', [source, 'mean_y'], ['centred_y']),
        make('Mul', ['centred_y', 'centred_y'], ['squares']),
        make('Greater', ['squares', 'largest'], ['beyond']),
        make('Where', ['beyond', 'infinite', 'squares'], ['squares_half']),
        make('ReduceMean', ['squares_half', 'last'], ['variance']),
        make('Add', ['variance', 'epsilon'], ['sum_y']),
        make('Sqrt', ['sum_y'], ['deviation']),
        make('Div', ['centred_y', 'deviation'], ['unit']),
        make('Mul', ['unit', weight], ['stretched']),
        make('Add', ['stretched', bias], ['normed_y']),
    ]
    rest = [*graph.node[:place], *nodes, *graph.node[place + 1 :]]
    copies = []
    for node in rest:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copies.append(copy)
    del graph.node[:]
    graph.node.extend(copies)
    onnx.checker.check_model(model)


DAMAGE = {'swapped channels': swap_channels, 'a norm in fp16': norm_in_half}


@pytest.mark.parametrize('damage', DAMAGE)
@pytest.mark.parametrize(('runtime', 'precision'), PRECISIONS)
def test_a_damaged_graph_is_refused_in_every_precision(tmp_path, runtime, precision, damage):
    need(runtime, precision)
    smoothing = damage != 'a norm in fp16'  # its parts cannot be divided
    path = write_quantized_bundle(tmp_path / 'good', smoothing=smoothing)
    options = EngineOptions(runtime, precision, 1)
    create_engine(load_bundle(path), options).close()
    path = write_quantized_bundle(tmp_path / 'bad', smoothing=smoothing, change=DAMAGE[damage])

    with pytest.raises(EngineError, match='misses the golden vectors'):
        create_engine(load_bundle(path), options)


@pytest.mark.parametrize('runtime', EVERY_HEAD, indirect=True)
def test_auto_takes_the_fastest_and_says_so(bundle, runtime, caplog):
    products = engine_class(runtime).int8_products()
    with caplog.at_level(logging.INFO), create_engine(bundle, EngineOptions(runtime)) as engine:
        if products.slower:
            assert engine.description['precision'] in ('bf16', 'f32')
            assert f'not int8: {products.slower}' in engine.choice
        elif products.weight_bits == 8:
            assert engine.choice.startswith('int8 is the fastest that serves')
        else:
            assert engine.choice.startswith('int8 with 7-bit weights (this CPU adds products')
    assert engine.choice in caplog.text


@pytest.mark.parametrize('runtime', EVERY_HEAD, indirect=True)
def test_auto_falls_to_float32_on_a_plain_cpu_and_says_why(bundle, runtime, monkeypatch):
    plain = {
        'int8': 'this CPU has no instructions for it (VNNI)',
        'bf16': 'this CPU computes FP32',
    }
    kind = {'openvino': 'openvino.OpenVinoEngine', 'onnxruntime': 'onnxruntime.OnnxRuntimeEngine'}
    monkeypatch.setattr(
        f'ood_perception.engines.{kind[runtime]}.slow_precisions', classmethod(lambda cls: plain)
    )
    with create_engine(bundle, EngineOptions(runtime)) as engine:
        assert engine.description['precision'] == 'f32'
        assert 'f32 is the fastest that serves; not int8: this CPU has no' in engine.choice
        assert 'not bf16: this' in engine.choice


def changed(tmp_path, **changes):
    """Return a bundle whose int8 entry was changed."""
    path = write_quantized_bundle(tmp_path / 'changed')
    manifest = json.loads((path / 'manifest.json').read_text())
    entry = precision_spec(**changes)
    manifest['precisions'] = {'int8': entry, 'int8_reduced_range': entry}
    write_manifest(path, manifest)
    return load_bundle(path)


@pytest.mark.parametrize('runtime', EVERY_HEAD, indirect=True)
def test_auto_passes_over_what_misses_the_golden_vectors(tmp_path, runtime, caplog):
    need(runtime, 'int8')
    strict = changed(tmp_path, surprisal_tolerance=1e-5)
    with create_engine(strict, EngineOptions(runtime)) as engine:
        assert engine.description['precision'] != 'int8'
        assert 'not int8: it missed the golden vectors on this machine' in engine.choice
    assert 'precision int8 is not used' in caplog.text
    with pytest.raises(EngineError, match='at most 1e-05'):
        create_engine(strict, EngineOptions(runtime, 'int8'))


def manifest_with(bundle, **precisions):
    return dataclasses.replace(bundle.manifest, precisions=precisions)


def spec(loss, file=''):
    return PrecisionSpec(loss, (loss - 0.1, loss + 0.1), 0.4, 0.95, file)


def test_the_measured_loss_decides(bundle):
    both = ('f32', 'bf16', 'int8')
    dear = manifest_with(bundle, int8=spec(0.5, 'q.json'), bf16=spec(0.02))
    choice = choose_precisions(dear, both, {})
    assert choice.precisions == ('bf16', 'f32')
    assert 'costs 0.50 points of average precision, 0.5 are allowed' in choice.passed_over['int8']
    cheap = manifest_with(bundle, int8=spec(0.49, 'q.json'), bf16=spec(-0.3))
    assert choose_precisions(cheap, both, {}).precisions == ('int8', 'bf16', 'f32')
    broken = manifest_with(bundle, int8=spec(float('nan'), 'q.json'))
    assert choose_precisions(broken, both, {}).precisions == ('bf16', 'f32')


def test_bundles_of_old_are_served_as_before(bundle):
    choice = choose_precisions(manifest_with(bundle), ('f32', 'bf16', 'int8'), {})
    assert choice.precisions == ('bf16', 'f32')
    assert choice.passed_over == {'int8': 'the bundle holds no quantisation'}
    assert choose_precisions(manifest_with(bundle), ('f32', 'int8'), {}).precisions == ('f32',)


def test_with_7_bit_weights_the_loss_of_7_bits_decides(bundle):
    both = ('f32', 'int8')
    cheap, dear = spec(0.1, 'q.json'), spec(0.6, 'q.json')
    for eight, seven, taken in ((cheap, dear, False), (dear, cheap, True), (cheap, None, False)):
        precisions = {'int8': eight} | ({'int8_reduced_range': seven} if seven else {})
        choice = choose_precisions(manifest_with(bundle, **precisions), both, {}, weight_bits=7)
        assert ('int8' in choice.precisions) is taken
        if seven is None:
            assert (
                'needs 7-bit weights, whose loss the bundle does not hold'
                in (choice.passed_over['int8'])
            )


def test_a_bundle_without_quantisation_still_serves(tmp_path):
    path = write_tiny_bundle(tmp_path / 'old')
    assert 'precisions' not in json.loads((path / 'manifest.json').read_text())
    with create_engine(load_bundle(path), EngineOptions(threads=1)) as engine:
        assert engine.description['precision'] in ('bf16', 'f32')
