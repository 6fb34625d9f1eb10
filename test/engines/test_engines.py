# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Every engine of the table: right numbers, the same ones every time, clear refusals."""

import os
import subprocess
import sys

import numpy as np
import onnx
import pytest
from bundles import write_tiny_bundle
from damaged_bundles import damaged, swap_channels
from limits import HANGS

from ood_perception.bundle.store import load_bundle
from ood_perception.engines import ENGINES, create_checked_engine, create_engine
from ood_perception.engines.base import EngineOptions
from ood_perception.engines.tensorrt.module import load_tensorrt
from ood_perception.errors import DependencyError, EngineError

HEIGHT, WIDTH = 56, 84


SEARCHING = {'faiss'}  # engines of heads that search references: test_engine_faiss.py


@pytest.fixture(params=sorted(set(ENGINES) - SEARCHING))
def runtime(request):
    pytest.importorskip(request.param)
    return request.param


@pytest.fixture
def bundle(tiny_bundle):
    return load_bundle(tiny_bundle)


@pytest.fixture
def engine(runtime, bundle):
    with create_engine(bundle, EngineOptions(runtime, 'f32', 1)) as engine:
        yield engine


def golden_of(bundle):
    with np.load(bundle.path('golden.npz')) as golden:
        return dict(golden)


def noise(batch, seed=3):
    shape = (batch, HEIGHT, WIDTH, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def has_bf16():
    openvino = pytest.importorskip('openvino')
    return 'BF16' in openvino.Core().get_property('CPU', 'OPTIMIZATION_CAPABILITIES')


need_bf16 = pytest.mark.skipif('not has_bf16()', reason='this CPU has no bf16')


def test_it_gives_the_closed_form(engine, bundle):
    golden = golden_of(bundle)

    output = engine.run(golden['image'], golden['in_distribution'])

    assert output.surprisal.dtype == np.float32
    assert output.labels.dtype == np.uint8
    np.testing.assert_allclose(output.surprisal, golden['surprisal'], atol=1e-3)
    np.testing.assert_array_equal(output.labels, golden['labels'])


def test_two_runtimes_agree(bundle):
    pytest.importorskip('openvino')
    pytest.importorskip('onnxruntime')
    outputs = []
    for name in ('openvino', 'onnxruntime'):
        with create_engine(bundle, EngineOptions(name, 'f32', 1)) as engine:
            outputs.append(engine.run(noise(3), engine.class_vector(['Road', 'Sky'])))

    a, b = (output.surprisal for output in outputs)
    low = b <= 6
    assert np.abs(a - b)[low].max() <= 0.01
    assert np.abs(10.0**-a - 10.0**-b).max() <= 1e-4
    np.testing.assert_array_equal(outputs[0].labels, outputs[1].labels)


@pytest.mark.parametrize('precision', ['f32', 'auto'])
def test_reruns_and_batches_give_the_same_bits(runtime, bundle, precision):
    images = noise(4)
    results = []
    for _ in range(2):
        with create_engine(bundle, EngineOptions(runtime, precision, 1)) as engine:
            vector = engine.class_vector(['Road'])
            alone = [engine.run(image[None], vector).surprisal[0] for image in images]
            together = engine.run(images, vector).surprisal
            results += [np.stack(alone), together, engine.run(images, vector).surprisal]

    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


def test_an_output_is_not_overwritten_by_the_next_run(engine):
    vector = engine.class_vector(['Road'])
    first = engine.run(noise(1, 1), vector)
    kept = first.surprisal.copy(), first.labels.copy()

    engine.run(noise(1, 2), vector)

    np.testing.assert_array_equal(first.surprisal, kept[0])
    np.testing.assert_array_equal(first.labels, kept[1])
    first.surprisal[:] = 0  # and it is the caller's own


def test_the_class_choice_counts(engine):
    one = engine.run(noise(1), engine.class_vector(['Road'])).surprisal
    two = engine.run(noise(1), engine.class_vector(['Sky'])).surprisal
    both = engine.run(noise(1), engine.class_vector(['Road', 'Sky'])).surprisal

    np.testing.assert_array_equal(both, np.minimum(one, two))
    assert not np.array_equal(one, two)


def test_every_stage_is_timed(engine):
    output = engine.run(noise(1), engine.class_vector(['Road']))

    assert list(output.stage_ms) == ['backbone', 'head']
    assert all(0 < ms < 10_000 for ms in output.stage_ms.values())


def test_it_says_what_it_is(engine, runtime):
    assert engine.description['runtime'] == runtime
    assert engine.description['precision'] == 'f32'
    assert engine.description['version']
    assert engine.description['device']


@pytest.mark.parametrize(
    'image',
    [
        np.zeros((1, HEIGHT, WIDTH + 14, 3), np.uint8),
        np.zeros((HEIGHT, WIDTH, 3), np.uint8),
        np.zeros((1, HEIGHT, WIDTH, 3), np.float32),
        np.zeros((1, 3, HEIGHT, WIDTH), np.uint8),
        np.zeros((0, HEIGHT, WIDTH, 3), np.uint8),
    ],
)
def test_a_wrong_image_is_refused_with_both_shapes(engine, image):
    with pytest.raises(EngineError, match=r'expected uint8 \(B, 56, 84, 3\)'):
        engine.run(image, engine.class_vector(['Road']))


def test_a_wrong_class_vector_is_refused(engine):
    with pytest.raises(EngineError, match='at least one 1 over Road, Pavement, Sky'):
        engine.run(noise(1), np.zeros(3, np.float32))
    with pytest.raises(EngineError, match=r'expected \(3,\)'):
        engine.run(noise(1), np.ones(2, np.float32))
    with pytest.raises(EngineError, match='Raod'):
        engine.class_vector(['Raod'])


def test_a_closed_engine_says_so(runtime, bundle):
    engine = create_engine(bundle, EngineOptions(runtime, 'f32', 1))
    vector = engine.class_vector(['Road'])
    engine.close()
    engine.close()

    with pytest.raises(EngineError, match='was closed'):
        engine.run(noise(1), vector)


@pytest.mark.parametrize('selection', ['unified', 'gated'])
@pytest.mark.parametrize('upsampling', [1, 7])
def test_other_selections_and_factors_run(tmp_path, runtime, selection, upsampling):
    path = write_tiny_bundle(tmp_path / 'tiny', selection=selection, upsampling=upsampling)
    with create_engine(load_bundle(path), EngineOptions(runtime, 'f32', 1)) as engine:
        output = engine.run(noise(2), engine.class_vector(engine.compiled_classes))

    assert output.surprisal.shape == (2, 4 * upsampling, 6 * upsampling)


@pytest.mark.parametrize(
    ('options', 'match'),
    [
        (
            EngineOptions('tensorflow'),
            "engine 'tensorflow': use auto, faiss, onnxruntime, openvino",
        ),
        (
            EngineOptions(precision='fp16'),
            "'fp16': engine openvino computes f32, bf16, int8",
        ),
        (EngineOptions(threads=-1), 'threads -1: give a number'),
        (EngineOptions(mode='fast'), "mode 'fast': use latency or throughput"),
        (
            EngineOptions('onnxruntime', 'int8'),
            'bundle tiny holds no quantisation; run `trainer',
        ),
        (EngineOptions('onnxruntime', weight_bits=6), 'weight_bits 6: use 7, 8 or 0 = as the CPU'),
        (EngineOptions(head='uem'), "head 'uem': bundle tiny has colour"),
        (
            EngineOptions('onnxruntime', 'bf16'),
            "precision 'bf16': engine onnxruntime computes f32, int8; use one of them",
        ),
        (EngineOptions(compiled_classes=('Moon',)), 'compiled classes Moon'),
    ],
)
def test_a_wrong_option_is_refused_with_the_choices(bundle, options, match):
    with pytest.raises(EngineError, match=match):
        create_engine(bundle, options)


def test_auto_blames_no_precision_for_a_wrong_class(bundle, caplog):
    with pytest.raises(EngineError, match='compiled classes Moon'):
        create_engine(bundle, EngineOptions(precision='auto', compiled_classes=('Moon',)))
    assert 'is not used' not in caplog.text


@pytest.mark.parametrize('name', sorted(ENGINES))
def test_a_missing_runtime_says_what_to_install(bundle, name, monkeypatch):
    load_tensorrt.cache_clear()
    for module in (name, 'tensorrt_rtx', 'tensorrt_rtx_bindings'):  # one engine, three modules
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DependencyError, match=rf'engine {name} needs .*pip install'):
        create_engine(bundle, EngineOptions(name))


def normalise_differently(name, model):
    for tensor in model.graph.initializer:
        if tensor.name == 'std':
            values = onnx.numpy_helper.to_array(tensor) * np.float32(1.02)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))


def insert_at_surprisal(operators):
    """Return a change that puts nodes (operator, constant, attributes) before the output."""

    def change(name, model):
        if name != 'head':
            return
        last = next(node for node in model.graph.node if 'surprisal' in node.output)
        last.output[0] = value = 'before'
        for index, (operator, constant, *attributes) in enumerate(operators):
            inputs = [value]
            if constant is not None:
                tensor = onnx.numpy_helper.from_array(np.float32(constant), f'constant_{index}')
                model.graph.initializer.append(tensor)
                inputs.append(tensor.name)
            value = 'surprisal' if index == len(operators) - 1 else f'step_{index}'
            options = attributes[0] if attributes else {}
            model.graph.node.append(onnx.helper.make_node(operator, inputs, [value], **options))

    return change


DAMAGE = {
    'swapped channels': (swap_channels, r'\|difference\| of surprisal'),
    'another normalisation': (normalise_differently, 'difference'),
    'a score of 32 levels': (
        insert_at_surprisal([('Mul', 64), ('Round', None), ('Div', 64)]),
        'share of distinct surprisal values',
    ),
    'a reversed score': (insert_at_surprisal([('Neg', None)]), 'surprisal'),
    'no number': (insert_at_surprisal([('Mul', np.nan)]), 'share of finite surprisal'),
    'infinity': (insert_at_surprisal([('Mul', np.inf)]), 'share of finite surprisal'),
    'a small offset of the score': (insert_at_surprisal([('Add', 0.005)]), 'of score'),
}


@pytest.mark.parametrize('name', DAMAGE)
def test_a_damaged_graph_is_refused(tmp_path, runtime, name):
    change, match = DAMAGE[name]
    bundle = damaged(tmp_path, change)

    with pytest.raises(EngineError, match=match) as caught:
        create_engine(bundle, EngineOptions(runtime, 'f32', 1))

    text = str(caught.value)
    assert runtime in text
    assert 'bundle tiny' in text
    assert 'Try precision f32 or another engine' in text


def test_a_file_that_is_no_graph_is_refused_by_stage(tmp_path, runtime):
    path = write_tiny_bundle(tmp_path / 'tiny')
    data = (path / 'head.onnx').read_bytes()
    (path / 'head.onnx').write_bytes(data[: len(data) // 2])

    with pytest.raises(EngineError, match=r'cannot compile stage head .*head.onnx'):
        create_engine(load_bundle(path, verify=False), EngineOptions(runtime, 'f32', 1))


@need_bf16
def test_bf16_is_for_the_backbone_alone(bundle):
    openvino = pytest.importorskip('openvino')
    options = EngineOptions('openvino', 'bf16', 1)
    engine, report = create_checked_engine(bundle, options)
    with engine:
        tokens, head = (s.ready(1)[0][0].get_compiled_model() for s in engine._compiled)
        assert tokens.get_property('INFERENCE_PRECISION_HINT') == openvino.Type.bf16
        assert head.get_property('INFERENCE_PRECISION_HINT') == openvino.Type.f32
        assert engine.description['precision'] == 'bf16'
    assert report.distinct_share >= 0.95
    assert 0 < report.surprisal_difference <= 0.5  # it is bf16, and it is near


def round_to_bf16(name, model):
    """
    Round the score to bf16's 8 bits of mantissa in float32 arithmetic (Veltkamp's splitting).

    A cast to bf16 and back is left out by a runtime on a CPU without bf16.
    """
    if name != 'head':
        return
    last = next(node for node in model.graph.node if 'surprisal' in node.output)
    last.output[0] = 'exact'
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(2**16 + 1), 'splitter'))
    make = onnx.helper.make_node
    model.graph.node.extend([
        make('Mul', ['exact', 'splitter'], ['large']),
        make('Sub', ['large', 'exact'], ['rest']),
        make('Sub', ['large', 'rest'], ['surprisal']),
    ])  # fmt: skip


@pytest.mark.parametrize('precision', ['f32', pytest.param('bf16', marks=need_bf16)])
def test_a_score_in_bf16_is_refused(tmp_path, precision):
    # What a runtime makes of the head when it is left to choose: near enough everywhere, and
    # tens of values where there were thousands.
    pytest.importorskip('openvino')
    bundle = damaged(tmp_path, round_to_bf16, upsampling=7)

    match = 'share of distinct surprisal values is 0' if precision == 'bf16' else 'surprisal'
    with pytest.raises(EngineError, match=match):
        create_engine(bundle, EngineOptions('openvino', precision, 1))


def test_bf16_without_hardware_is_refused(bundle):
    openvino = pytest.importorskip('openvino')
    if has_bf16():
        pytest.skip('this CPU has bf16')
    del openvino
    with pytest.raises(EngineError, match='precision bf16: this CPU computes'):
        create_engine(bundle, EngineOptions('openvino', 'bf16'))
    with create_engine(bundle, EngineOptions('openvino', 'auto')) as engine:
        assert engine.description['precision'] == 'f32'


def test_threads_do_not_change_the_numbers(runtime, bundle):
    results = []
    for threads in (1, 2):
        with create_engine(bundle, EngineOptions(runtime, 'f32', threads)) as engine:
            results.append(engine.run(noise(2), engine.class_vector(['Road'])).surprisal)

    np.testing.assert_allclose(results[0], results[1], atol=1e-5)


def test_another_process_gives_the_same_bits(runtime, tiny_bundle, tmp_path):
    code = (
        'import sys, numpy as np\n'
        'from ood_perception.bundle.store import load_bundle\n'
        'from ood_perception.engines import create_engine\n'
        'from ood_perception.engines.base import EngineOptions\n'
        'engine = create_engine(load_bundle(sys.argv[1]), EngineOptions(sys.argv[2], threads=1))\n'
        'image = np.random.default_rng(3).integers(0, 256, (2, 56, 84, 3), dtype=np.uint8)\n'
        'np.save(sys.argv[3], engine.run(image, engine.class_vector(["Road"])).surprisal)\n'
    )
    for name in ('a.npy', 'b.npy'):
        command = [sys.executable, '-c', code, str(tiny_bundle), runtime, str(tmp_path / name)]
        subprocess.run(command, check=True, timeout=HANGS, env=os.environ)

    np.testing.assert_array_equal(np.load(tmp_path / 'a.npy'), np.load(tmp_path / 'b.npy'))
