# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
int8 on every kind of x86 CPU up to this one: right, or refused before anything is built.

OpenVINO's own limit of instructions plays the older kinds; what ONNX Runtime does on them is run
by `make test-old-cpu`, which emulates the whole CPU.
"""

import json
import os
import platform
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from quantized_bundles import write_quantized_bundle

from ood_perception.bundle.store import load_bundle
from ood_perception.engines import create_checked_engine, create_engine
from ood_perception.engines.base import EngineOptions
from ood_perception.engines.cpu import Int8Products, onnxruntime_int8, openvino_int8
from ood_perception.engines.int8 import LARGEST_CODE
from ood_perception.errors import EngineError

pytest.importorskip('openvino')
pytest.importorskip('onnxruntime')
ASKED = {'openvino': openvino_int8, 'onnxruntime': onnxruntime_int8}
# Limit -> what is tried under it. AVX512_CORE has no VNNI. Of AVX2 on a newer CPU OpenVINO keeps
# enough to name its kernel; run to the end its own code mixes both and crashes.
EVERYTHING = ('int8', '8 bits', '7 bits', 'auto')
LIMITS = {'AVX2': ('int8',), 'AVX512_CORE': EVERYTHING, 'ALL': EVERYTHING}
on_x86 = pytest.mark.skipif(
    platform.machine() != 'x86_64', reason='oneDNN limits the instructions of x86 alone'
)

# One process a kind: the limit is read once. The CPUs that are played have no bf16.
PLAYED = """
import json, sys
from pathlib import Path
from ood_perception.bundle.store import load_bundle
from ood_perception.engines import create_checked_engine, openvino
from ood_perception.engines.base import EngineOptions
from ood_perception.engines.cpu import openvino_int8
from ood_perception.errors import EngineError

openvino._capabilities = lambda core: ['FP32', 'INT8']
bundle, cache = load_bundle(sys.argv[1]), Path(sys.argv[2])
told = {'bits': openvino_int8().weight_bits, 'slower': openvino_int8().slower}
wanted = {'int8': ('int8', 0), '8 bits': ('int8', 8), '7 bits': ('int8', 7), 'auto': ('auto', 0)}
for name in sys.argv[3:]:
    options = wanted[name]
    try:
        engine, report = create_checked_engine(
            bundle, EngineOptions('openvino', options[0], 1, weight_bits=options[1])
        )
        told[name] = {
            'difference': report.surprisal_difference, 'choice': engine.choice,
            **engine.description,
        }
    except EngineError as error:
        told[name] = {'error': str(error), 'built': len(list(cache.glob('compiled/*.blob')))}
print(json.dumps(told))
"""


@pytest.fixture(scope='module')
def path(tmp_path_factory):
    return write_quantized_bundle(tmp_path_factory.mktemp('kinds') / 'bundle', upsampling=7)


@pytest.fixture(scope='module')
def kinds(path, tmp_path_factory):
    """Return limit -> what OpenVINO's engine does under it."""
    told = {}
    for limit, tried in LIMITS.items():
        cache = tmp_path_factory.mktemp(limit)
        places = {'ONEDNN_MAX_CPU_ISA': limit, 'OOD_PERCEPTION_CACHE': str(cache)}
        done = subprocess.run(
            [sys.executable, '-c', PLAYED, str(path), str(cache), *tried],
            capture_output=True, text=True, timeout=300, env={**os.environ, **places},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        told[limit] = json.loads(done.stdout.splitlines()[-1])
    if told['AVX2']['bits'] == 8:
        pytest.skip('this OpenVINO does not honour ONEDNN_MAX_CPU_ISA')
    return told


@on_x86
@pytest.mark.slow
@pytest.mark.parametrize('limit', LIMITS)
def test_int8_is_right_or_refused_before_it_is_built(kinds, limit):
    kind = kinds[limit]
    served = kind['int8']
    if kind['slower']:
        assert kind['bits'] == 7
        assert served['error'].startswith(f'precision int8: {kind["slower"]}; use f32, auto or')
        assert 'without VNNI' in kind['slower']
        assert served['built'] == 0
        if 'auto' in kind:
            assert kind['auto']['precision'] == 'f32'
            assert f'not int8: {kind["slower"]}' in kind['auto']['choice']
    else:
        assert served['difference'] < 0.4
        assert served['precision'] == kind['auto']['precision'] == 'int8'
        assert served.get('rounding', '').startswith('7-bit weights (') is (kind['bits'] == 7)


@on_x86
@pytest.mark.slow
@pytest.mark.parametrize('limit', ['AVX512_CORE', 'ALL'])
def test_7_bits_are_right_on_every_cpu_and_8_are_wrong_without_vnni(kinds, limit):
    """Whoever measures 8 bits there gets no wrong engine either: the golden vectors refuse it."""
    kind = kinds[limit]
    assert 1e-3 < kind['7 bits']['difference'] < 0.4
    assert kind['7 bits']['rounding'] == '7-bit weights'
    if kind['bits'] == 7:
        assert 'misses the golden vectors' in kind['8 bits']['error']
    else:
        assert 1e-3 < kind['8 bits']['difference'] < 0.4


@on_x86
@pytest.mark.slow
def test_more_instructions_never_need_fewer_bits(kinds):
    bits = [kinds[limit]['bits'] for limit in LIMITS]
    assert bits == sorted(bits)
    assert bits[-1] == openvino_int8().weight_bits


def product(values, codes, runtime):
    """Return float32 (m, n): uint8 (m, K) times int8 (K, n) by a runtime's int8 kernel."""
    rows, columns = codes.shape
    constants = {
        'one': np.float32(1), 'zero': np.uint8(0), 'codes': codes,
        'ones': np.ones(columns, np.float32), 'zeros': np.zeros(columns, np.int8),
    }  # fmt: skip
    nodes = [
        helper.make_node('QuantizeLinear', ['x', 'one', 'zero'], ['q']),
        helper.make_node('DequantizeLinear', ['q', 'one', 'zero'], ['a']),
        helper.make_node('DequantizeLinear', ['codes', 'ones', 'zeros'], ['b'], axis=1),
        helper.make_node('MatMul', ['a', 'b'], ['y']),
    ]
    graph = helper.make_graph(
        nodes, 'g',
        [helper.make_tensor_value_info('x', onnx.TensorProto.FLOAT, [1, len(values), rows])],
        [helper.make_tensor_value_info('y', onnx.TensorProto.FLOAT, [1, len(values), columns])],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )  # fmt: skip
    opset = helper.make_opsetid('', 17)
    data = helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString()
    given = values[None].astype(np.float32)
    if runtime == 'openvino':
        import openvino

        core = openvino.Core()
        options = {'INFERENCE_PRECISION_HINT': 'f32'}
        return core.compile_model(core.read_model(data), 'CPU', options)(given)[0][0]
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=['CPUExecutionProvider'])
    return session.run(None, {'x': given})[0][0]


@pytest.mark.parametrize('shape', [(1, 8, 8), (24, 32, 8), (24, 8, 32), (7, 130, 65)])
@pytest.mark.parametrize('runtime', ASKED)
def test_products_with_the_bits_that_it_names_are_those_of_integers(runtime, shape):
    rows, inner, columns = shape
    largest = LARGEST_CODE[ASKED[runtime]().weight_bits]
    rng = np.random.default_rng(4)
    values = rng.integers(200, 256, (rows, inner)).astype(np.uint8)
    codes = rng.choice(np.array([largest, largest - 1, -largest], np.int8), (inner, columns))
    codes[:, 0], codes[:, 1] = largest, -largest

    exact = values.astype(np.int64) @ codes.astype(np.int64)
    np.testing.assert_array_equal(product(values, codes, runtime), exact)


@pytest.mark.parametrize('runtime', ASKED)
def test_a_cpu_with_vnni_has_all_8_bits(runtime):
    """Numpy asks the CPU itself, under an emulator too."""
    module = getattr(np, '_core', None) or np.core
    features = module._multiarray_umath.__cpu_features__
    if not features.get('AVX512VNNI'):
        pytest.skip('this CPU has no AVX512-VNNI')
    assert ASKED[runtime]().weight_bits == 8
    assert not ASKED[runtime]().slower


def test_engines_of_two_kinds_of_cpu_share_nothing_in_the_cache(path, tmp_path, monkeypatch):
    """As on one home folder of several machines."""
    monkeypatch.setenv('OOD_PERCEPTION_CACHE', str(tmp_path))
    options = EngineOptions('onnxruntime', 'int8', 1)
    graphs = []
    for bits in (7, 8, 7):
        monkeypatch.setattr(
            'ood_perception.engines.onnxruntime.onnxruntime_int8', lambda b=bits: Int8Products(b)
        )
        try:
            create_engine(load_bundle(path), options).close()
        except EngineError:  # this CPU's 8-bit products are wrong: it was built all the same
            assert onnxruntime_int8().weight_bits < bits
        graphs.append(len(list(tmp_path.glob('compiled/*.blob'))))
    assert graphs == [1, 2, 2]


def test_a_compiled_stage_knows_its_kind_of_cpu(path, tmp_path, monkeypatch):
    monkeypatch.setenv('OOD_PERCEPTION_CACHE', str(tmp_path))
    counts = []
    for kernel in ('brgemm_avx512_I8', 'jit_gemm_I8', 'brgemm_avx512_I8'):
        monkeypatch.setattr(
            'ood_perception.engines.openvino.openvino_int8', lambda k=kernel: Int8Products(8, k)
        )
        create_engine(load_bundle(path), EngineOptions('openvino', 'f32', 1)).close()
        counts.append(len(list(tmp_path.glob('compiled/*.blob'))))
    assert counts == [2, 4, 4]


def test_a_bundle_of_old_serves_7_bits_within_the_bounds_of_int8(path, tmp_path, monkeypatch):
    from bundles import write_manifest

    old = write_quantized_bundle(tmp_path / 'old', upsampling=7)
    manifest = json.loads((old / 'manifest.json').read_text())
    del manifest['precisions']['int8_reduced_range']
    write_manifest(old, manifest)
    monkeypatch.setattr(
        'ood_perception.engines.onnxruntime.onnxruntime_int8', lambda: Int8Products(7)
    )
    engine, report = create_checked_engine(
        load_bundle(old), EngineOptions('onnxruntime', 'int8', 1)
    )
    with engine:
        assert report.surprisal_difference < 0.4
        assert engine.measured_as == 'int8'
    with create_engine(load_bundle(old), EngineOptions('onnxruntime')) as engine:
        assert engine.description['precision'] == 'f32'
        assert 'needs 7-bit weights, whose loss the bundle does not hold' in engine.choice
