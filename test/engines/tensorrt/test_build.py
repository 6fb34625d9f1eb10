# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Engines built for real, ahead of time and without a GPU, by TensorRT for RTX."""

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from bundles import write_tiny_bundle
from limits import HANGS
from quantized_bundles import write_quantized_bundle
from tensorrt_facts import require_rtx, skip_where_a_gpu_is

onnx = pytest.importorskip('onnx')

from ood_perception.bundle.store import load_bundle  # noqa: E402
from ood_perception.bundle.weights.completion import complete  # noqa: E402
from ood_perception.cli.bundle import compile_bundle  # noqa: E402
from ood_perception.engines.base import EngineOptions  # noqa: E402
from ood_perception.engines.graphs.precision_types import read_model  # noqa: E402
from ood_perception.engines.plan import plan_for  # noqa: E402
from ood_perception.engines.tensorrt.build import build_engine, supported_gpus  # noqa: E402
from ood_perception.engines.tensorrt.graph import fused_model, write_model  # noqa: E402
from ood_perception.engines.tensorrt.module import BuildOptions  # noqa: E402
from ood_perception.errors import EngineError, OodPerceptionError  # noqa: E402
from ood_perception.image.views import ViewSpec  # noqa: E402

ADA = BuildOptions(max_batch=2, compute_capability='8.9')


@pytest.fixture(scope='module')
def rtx():
    return require_rtx()


@pytest.fixture(scope='module')
def default_bundle():
    try:
        return complete(load_bundle('road_camvid'))
    except OodPerceptionError as error:
        pytest.skip(f'weights: {error}')


def built(bundle, folder, precision, options=ADA, backbone=None, classes=(), tell=None):
    plan = plan_for(bundle, EngineOptions(compiled_classes=classes))
    path = write_model(fused_model(plan, precision, backbone), folder)
    blob, facts = build_engine(path, options, tell)
    return SimpleNamespace(blob=blob, facts=facts)


def check_interface(engine, size, grid, classes):
    """The contract's inputs and outputs, as TensorRT itself names them."""
    assert engine.facts['inputs'] == {
        'image': ['UINT8', [-1, *size, 3]],
        'in_distribution': ['FLOAT', [classes]],
    }
    assert engine.facts['outputs'] == {
        'surprisal': ['FLOAT', [-1, *grid]],
        'labels': ['UINT8', [-1, *grid]],
    }
    for name in (b'image', b'in_distribution', b'surprisal', b'labels'):
        assert name in engine.blob  # the file names them, too
    assert engine.facts['bytes'] == len(engine.blob)


@pytest.mark.weights
@pytest.mark.slow
@pytest.mark.parametrize(
    ('precision', 'least', 'most'), [('f32', 86e6, 130e6), ('fp16', 43e6, 80e6)]
)
def test_vit_s_with_pixood_is_built_without_a_gpu(
    rtx, default_bundle, tmp_path, precision, least, most
):
    engine = built(default_bundle, tmp_path, precision, classes=('Road', 'Pavement'))

    spec, head = default_bundle.manifest.input, default_bundle.manifest.heads[0]
    grid = [side // spec.patch * head.upsampling for side in (spec.height, spec.width)]
    check_interface(engine, [spec.height, spec.width], grid, 2)
    assert least < len(engine.blob) < most  # 22 million weights of 4 or 2 bytes, and the head
    layers = engine.facts['network_layers']
    assert layers['NORMALIZATION FLOAT'] >= 24
    assert layers['SOFTMAX FLOAT'] == 12
    assert not {name for name in layers if name.startswith('NORMALIZATION HALF')}
    products = {name: n for name, n in layers.items() if name.startswith('MATRIX_MULTIPLY')}
    if precision == 'f32':
        assert set(products) == {'MATRIX_MULTIPLY FLOAT'}
    else:
        assert products['MATRIX_MULTIPLY HALF'] == 96  # the backbone's; the rest is the head's
        assert layers['CONVOLUTION HALF'] == 1
    facts = engine.facts
    assert facts['runtime'] == 'tensorrt_rtx'
    assert facts['build_seconds'] > 0
    assert json.loads(json.dumps(facts)) == facts


@pytest.mark.weights
@pytest.mark.slow
def test_vit_s_with_pixood_is_built_in_int8(rtx, default_bundle, tmp_path):
    """The bundle's own ranges where it has them; else weights in 8 bit and assumed ranges."""
    model = read_model(default_bundle.stage_path(default_bundle.manifest.stages[0]))
    engine = built(
        default_bundle, tmp_path, 'int8', backbone=in_int8(model), classes=('Road', 'Pavement')
    )

    assert engine.facts['network_layers']['QUANTIZE INT8'] >= 30
    assert len(engine.blob) < 60e6  # 72 products' weights take a quarter
    spec = default_bundle.manifest.input
    check_interface(engine, [spec.height, spec.width], engine_grid(default_bundle), 2)


def engine_grid(bundle):
    spec, factor = bundle.manifest.input, bundle.manifest.heads[0].upsampling
    return [side // spec.patch * factor for side in (spec.height, spec.width)]


def in_int8(model, limit=8.0):
    """Return a backbone with symmetric Q/DQ pairs; assumed ranges, so good for building only."""
    quantize = pytest.importorskip('ood_perception.engines.int8')
    facts = pytest.importorskip('ood_perception.engines.int8')
    read = {node.input[0] for node in quantize.linear_nodes(model)}
    ranges = dict.fromkeys(sorted(read), (-limit, limit))
    return quantize.quantised(model, facts.Quantization(ranges), 'symmetric')


@pytest.mark.parametrize('precision', ['f32', 'fp16', 'bf16'])
def test_a_tiny_bundle_in_every_precision(rtx, tiny_bundle, tmp_path, precision):
    engine = built(load_bundle(tiny_bundle), tmp_path, precision)

    check_interface(engine, [56, 84], [8, 12], 3)
    layers = engine.facts['network_layers']
    kind = {'f32': 'FLOAT', 'fp16': 'HALF', 'bf16': 'BF16'}[precision]
    assert f'MATRIX_MULTIPLY {kind}' in layers
    assert layers['RESIZE FLOAT'] == 1  # the head's upsampling


def test_a_tiny_bundle_in_int8(rtx, tiny_bundle, tmp_path):
    model = in_int8(read_model(tiny_bundle / 'backbone.onnx'))

    engine = built(load_bundle(tiny_bundle), tmp_path, 'int8', backbone=model)

    check_interface(engine, [56, 84], [8, 12], 3)
    assert engine.facts['network_layers']['QUANTIZE INT8'] >= 1


def test_every_named_gpu_has_its_engine(rtx, tiny_bundle, tmp_path):
    known = supported_gpus(rtx)
    assert {'8.6', '8.9', '12.0'} <= set(known)
    blobs = set()
    for gpu in known:
        (tmp_path / gpu).mkdir()
        options = BuildOptions(compute_capability=gpu)
        engine = built(load_bundle(tiny_bundle), tmp_path / gpu, 'fp16', options)
        assert engine.facts['compute_capability'] == gpu
        blobs.add(engine.blob)
    assert len(blobs) == len(known)


@pytest.mark.parametrize('gpu', ['7.5', '8.7', '9.0', '10.0'])
def test_turing_jetson_and_data_centre_cards_are_refused_with_the_remedy(
    rtx, tiny_bundle, tmp_path, gpu
):
    with pytest.raises(EngineError, match=rf'capability {gpu}: .*8\.6.*use TensorRT 10 or 11'):
        built(load_bundle(tiny_bundle), tmp_path, 'f32', BuildOptions(compute_capability=gpu))


@pytest.mark.parametrize('flag', ['version_compatible', 'hardware_compatible'])
def test_rtx_has_no_compatible_engines(rtx, tiny_bundle, tmp_path, flag):
    options = BuildOptions(compute_capability='8.9', **{flag: True})
    with pytest.raises(EngineError, match='name the GPUs instead'):
        built(load_bundle(tiny_bundle), tmp_path, 'f32', options)


def test_what_tensorrt_refuses_is_told_in_its_words(rtx, tmp_path):
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node('Add', ['image', 'image'], ['y'])],
        'uint8 in arithmetic',
        [onnx.helper.make_tensor_value_info('image', onnx.TensorProto.UINT8, [1, 4])],
        [onnx.helper.make_tensor_value_info('y', onnx.TensorProto.UINT8, [1, 4])],
    )
    opset = [onnx.helper.make_opsetid('', 18)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset), tmp_path / 'model.onnx')

    with pytest.raises(EngineError, match=r'TensorRT cannot (read|build) .*model\.onnx: \w'):
        build_engine(tmp_path / 'model.onnx', ADA)


def test_progress_is_told_with_seconds(rtx, tiny_bundle, tmp_path, monkeypatch):
    from ood_perception.engines.tensorrt import build

    monkeypatch.setattr(build, 'SECONDS_BETWEEN_LINES', 0.0)
    lines = []

    built(load_bundle(tiny_bundle), tmp_path, 'f32', tell=lines.append)

    assert lines
    assert all(line.startswith('TensorRT: ') and line.endswith(' s') for line in lines)


def test_limits_are_taken(rtx, tiny_bundle, tmp_path):
    options = BuildOptions(3, compute_capability='8.6', workspace_mib=64, optimization_level=1)

    engine = built(load_bundle(tiny_bundle), tmp_path, 'f32', options)

    assert engine.facts['options']['workspace_mib'] == 64


@pytest.mark.parametrize(
    ('values', 'match'),
    [
        ({'max_batch': 0}, 'max_batch 0: give the number of cameras'),
        ({'compute_capability': 'ada'}, 'write it like 8.9'),
        ({'workspace_mib': -1}, 'workspace -1'),
        ({'optimization_level': 9}, 'give 0 to 5'),
    ],
)
def test_wrong_options_are_refused(values, match):
    with pytest.raises(EngineError, match=match):
        BuildOptions(**values)


def test_without_a_driver_loading_is_refused_and_does_not_crash(rtx, tiny_bundle, tmp_path):
    """In a process of its own: the lean runtime of full TensorRT is known to die here."""
    skip_where_a_gpu_is()
    engine = built(load_bundle(tiny_bundle), tmp_path, 'f32')
    (tmp_path / 'engine').write_bytes(engine.blob)
    code = (
        'import sys, pathlib\n'
        'from ood_perception.engines.tensorrt.execution import Execution\n'
        'from ood_perception.engines.tensorrt.module import load_tensorrt\n'
        'from ood_perception.engines.tensorrt.cuda import load_cuda\n'
        'from ood_perception.errors import EngineError\n'
        'blob = pathlib.Path(sys.argv[1]).read_bytes()\n'
        'try:\n'
        "    Execution(load_tensorrt(), load_cuda(), blob, ('surprisal', 'labels'))\n"
        'except EngineError as error:\n'
        '    print(error)\n'
    )
    command = [sys.executable, '-c', code, str(tmp_path / 'engine')]

    result = subprocess.run(command, capture_output=True, text=True, timeout=HANGS, check=True)

    assert 'refuses the engine' in result.stdout
    assert 'CUDA driver' in result.stdout


def test_compile_bundle_builds_for_named_gpus_once(
    rtx, tiny_bundle, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv('OOD_PERCEPTION_CACHE', str(tmp_path / 'cache'))
    command = [str(tiny_bundle), '--engine', 'tensorrt', '--gpu', '8.6', '8.9', '--cameras', '2']

    assert compile_bundle(command) == 0
    first = capsys.readouterr().out
    assert compile_bundle(command) == 0
    second = capsys.readouterr().out

    assert first.count('built in') == 2
    assert second.count(': found') == 2
    sidecars = sorted((tmp_path / 'cache' / 'compiled').glob('*.json'))
    facts = [json.loads(file.read_text())['facts'] for file in sidecars]
    assert {f['gpu'] for f in facts} == {'8.6', '8.9'}
    assert all(f['options']['max_batch'] == 2 for f in facts)
    assert all(f['precision'] == 'fp16' for f in facts)


def test_compile_bundle_builds_for_the_images_of_all_views(rtx, tmp_path, monkeypatch):
    monkeypatch.setenv('OOD_PERCEPTION_CACHE', str(tmp_path / 'cache'))
    path = write_tiny_bundle(tmp_path / 'tiny', views=(ViewSpec('far'), ViewSpec('left', 0.0)))
    arguments = ['--engine', 'tensorrt', '--gpu', '8.9', '--cameras', '2']
    assert compile_bundle([str(path), *arguments]) == 0
    (sidecar,) = (tmp_path / 'cache' / 'compiled').glob('*.json')
    assert json.loads(sidecar.read_text())['facts']['options']['max_batch'] == 6


def test_compile_bundle_builds_the_bundles_own_int8(rtx, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('OOD_PERCEPTION_CACHE', str(tmp_path / 'cache'))
    path = write_quantized_bundle(tmp_path / 'tiny')

    arguments = ['--engine', 'tensorrt', '--gpu', '8.9', '--precision', 'int8']
    assert compile_bundle([str(path), *arguments]) == 0

    assert ', int8: built in' in capsys.readouterr().out
    sidecar = next((tmp_path / 'cache' / 'compiled').glob('*.json'))
    assert json.loads(sidecar.read_text())['facts']['network_layers']['QUANTIZE INT8'] >= 1


def test_compile_bundle_says_in_one_line_what_is_wrong(rtx, tiny_bundle, capsys):
    skip_where_a_gpu_is()
    base = [str(tiny_bundle), '--engine']
    for arguments, match in [
        (['tensorrt'], 'no usable NVIDIA driver'),
        (['tensorrt', '--gpu', '9.0'], 'compute capability 9.0'),
        (['openvino', '--gpu', '8.9'], 'are for --engine tensorrt'),
        (['tensorrt', '--gpu', '8.9', '--precision', 'fp8'], "precision 'fp8'"),
    ]:
        assert compile_bundle([*base, *arguments]) == 1
        error = capsys.readouterr().err.strip()
        assert match in error
        assert '\n' not in error


def test_the_recorded_interface_is_that_of_the_installed_one(rtx):
    """What the fake is held to (fake_tensorrt.py), against the real module."""
    from fake_tensorrt import API

    if not rtx.version.startswith('1.7.'):
        pytest.skip(f'recorded is 1.7, installed is {rtx.version}')
    api = json.loads((API / 'rtx-1.7.json').read_text())
    for kind, members in api.items():
        real = getattr(rtx.module, kind)
        assert [name for name in members if not hasattr(real, name)] == [], kind


def test_the_network_computes_what_the_graph_says(rtx, tiny_bundle, tmp_path):
    """Strongly typed: not one layer of the float32 engine is half, whatever the library likes."""
    engine = built(load_bundle(tiny_bundle), tmp_path, 'f32')

    kinds = {name.split()[-1] for name in engine.facts['network_layers']}
    assert not kinds & {'HALF', 'BF16', 'INT8'}
    assert np.isfinite(engine.facts['build_seconds'])
