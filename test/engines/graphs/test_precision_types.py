# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Graphs whose precision lies in their types: what is half, what stays float32, how far off."""

import numpy as np
import pytest
from bundles import write_tiny_bundle

onnx = pytest.importorskip('onnx')
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from ood_perception.bundle.store import load_bundle  # noqa: E402
from ood_perception.bundle.weights.completion import complete  # noqa: E402
from ood_perception.engines.base import EngineOptions  # noqa: E402
from ood_perception.engines.golden import compare  # noqa: E402
from ood_perception.engines.graphs.precision_types import (  # noqa: E402
    FULL,
    PRODUCTS,
    prune,
    read_model,
    to_bfloat16,
    to_half,
)
from ood_perception.engines.plan import plan_for  # noqa: E402
from ood_perception.engines.tensorrt.graph import fused_model, write_model  # noqa: E402
from ood_perception.errors import BundleError, EngineError, OodPerceptionError  # noqa: E402

SIZE = (56, 84)
HALF = {'fp16': TensorProto.FLOAT16, 'bf16': TensorProto.BFLOAT16}
FAMILIES = ['dinov2', 'dinov2-reg', 'dinov3', 'vit']


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    """Return a function: family -> folder with backbone.onnx of a random tiny ViT."""
    pytest.importorskip('torch')
    pytest.importorskip('transformers')
    import torch
    from tiny_backbones import tiny_backbone

    from trainer.export.onnx import save, to_onnx

    made = {}

    def export(family):
        if family not in made:
            folder = tmp_path_factory.mktemp(family)
            patch = 14 if family.startswith('dinov2') else 16
            size = (4 * patch, 6 * patch)
            image = torch.zeros((2, *size, 3), dtype=torch.uint8)
            backbone = tiny_backbone(family).baked(*size, (1, 2))
            model = to_onnx(backbone, (image,), ('image',), ('tokens_1', 'tokens_2'))
            save(model, folder / 'backbone.onnx')
            made[family] = folder, size
        return made[family]

    return export


def types_of(model):
    """Return the element type of every tensor, by strict inference."""
    model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    graph = model.graph
    values = [*graph.value_info, *graph.input, *graph.output]
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return types | {tensor.name: tensor.data_type for tensor in graph.initializer}


def images(size, count=2, seed=4):
    return np.random.default_rng(seed).integers(0, 256, (count, *size, 3), dtype=np.uint8)


def run(model, feeds):
    onnxruntime = pytest.importorskip('onnxruntime')
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    source = model if isinstance(model, (str, bytes)) else model.SerializeToString()
    session = onnxruntime.InferenceSession(source, options, providers=['CPUExecutionProvider'])
    return session.run(None, feeds)


@pytest.mark.parametrize('kind', sorted(HALF))
@pytest.mark.parametrize('family', FAMILIES)
def test_products_are_half_and_norms_float32(exported, family, kind):
    model = read_model(exported(family)[0] / 'backbone.onnx')

    typed = to_half(model, kind)

    onnx.checker.check_model(typed, full_check=True)
    types = types_of(typed)
    count = {'LayerNormalization': 0, 'Softmax': 0, 'MatMul': 0}
    for node in typed.graph.node:
        found = {types[name] for name in [*node.input, *node.output] if types.get(name)}
        found &= {TensorProto.FLOAT, HALF[kind]}
        if node.op_type in count:
            count[node.op_type] += 1
        if node.op_type in FULL:
            assert found <= {TensorProto.FLOAT}, node
        if node.op_type in PRODUCTS:
            # ONNX knows no Conv in bf16 before opset 22
            conv_in_bf16 = (node.op_type, kind) == ('Conv', 'bf16')
            assert found == {TensorProto.FLOAT if conv_in_bf16 else HALF[kind]}, node
    before = [node.op_type for node in model.graph.node]
    assert count == {name: before.count(name) for name in count}
    assert all(count.values())


@pytest.mark.parametrize('family', FAMILIES)
def test_fp16_is_near_float32_and_not_equal(exported, family):
    folder, size = exported(family)
    model = read_model(folder / 'backbone.onnx')
    feeds = {'image': images(size)}

    full, half = (run(m, feeds) for m in (model, to_half(model, 'fp16')))

    for a, b in zip(full, half, strict=True):
        assert b.dtype == np.float32
        error = np.linalg.norm(a - b) / np.linalg.norm(a)
        assert 1e-7 < error < 5e-3
        cosine = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
        assert cosine.min() > 0.9999


def test_bf16_is_near_float32(exported):
    openvino = pytest.importorskip('openvino')
    folder, size = exported('dinov2')
    model = read_model(folder / 'backbone.onnx')
    outputs = []
    for one in (model, to_half(model, 'bf16')):
        onnx.save(one, folder / 'typed.onnx')
        core = openvino.Core()
        config = {'INFERENCE_PRECISION_HINT': 'f32', 'INFERENCE_NUM_THREADS': 1}
        compiled = core.compile_model(core.read_model(folder / 'typed.onnx'), 'CPU', config)
        outputs.append(next(iter(compiled({'image': images(size)}).values())))

    a, b = outputs
    assert 1e-5 < np.linalg.norm(a - b) / np.linalg.norm(a) < 3e-2


def test_the_input_stays_and_the_float32_model_is_not_touched(exported):
    model = read_model(exported('dinov2')[0] / 'backbone.onnx')
    before = model.SerializeToString(deterministic=True)

    typed = to_half(model, 'fp16')

    assert model.SerializeToString(deterministic=True) == before
    for field in ('input', 'output'):
        old, new = (getattr(m.graph, field) for m in (model, typed))
        assert [(v.name, v.type) for v in old] == [(v.name, v.type) for v in new]
    first = [node for node in typed.graph.node if 'image' in node.input]
    assert {node.op_type for node in first} <= {'Cast', 'Shape'}
    # no float32 copy of a half weight is left behind
    large = [tensor for tensor in typed.graph.initializer if np.prod(tensor.dims) > 100]
    assert {tensor.data_type for tensor in large} == {TensorProto.FLOAT16}


def small_model(nodes, tensors, output='y', shape=('n', 4)):
    graph = helper.make_graph(
        nodes,
        'small',
        [helper.make_tensor_value_info('x', TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, [None] * len(shape))],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=9)


def test_a_constant_out_of_the_range_of_fp16_keeps_its_operator_in_float32():
    tensors = {'w': np.eye(4, dtype=np.float32), 'big': np.float32([1e6])}
    nodes = [
        helper.make_node('MatMul', ['x', 'w'], ['p']),
        helper.make_node('Add', ['p', 'big'], ['s']),
        helper.make_node('Sub', ['s', 'big'], ['y']),
    ]
    x = np.float32([[1, 2, 3, 4]])

    half = run(to_half(small_model(nodes, tensors), 'fp16'), {'x': x})[0]

    np.testing.assert_allclose(half, x)


def test_the_scales_of_a_resize_stay_float32():
    tensors = {
        'w': np.random.default_rng(0).normal(size=(2, 2, 1, 1)).astype(np.float32),
        'scales': np.float32([1, 1, 2, 2]),
    }
    nodes = [
        helper.make_node('Conv', ['x', 'w'], ['c']),
        helper.make_node('Resize', ['c', '', 'scales'], ['y'], mode='linear'),
    ]
    model = small_model(nodes, tensors, shape=(1, 2, 3, 5))
    x = np.random.default_rng(1).normal(size=(1, 2, 3, 5)).astype(np.float32)

    typed = to_half(model, 'fp16')

    onnx.checker.check_model(typed, full_check=True)
    np.testing.assert_allclose(run(typed, {'x': x})[0], run(model, {'x': x})[0], atol=1e-2)


def test_an_unknown_precision_and_control_flow_are_refused():
    model = small_model([helper.make_node('Relu', ['x'], ['y'])], {})
    with pytest.raises(ValueError, match=r"kind 'fp8': use fp16, bf16"):
        to_half(model, 'fp8')
    body = helper.make_graph(
        [helper.make_node('Identity', ['x'], ['z'])],
        'body',
        [],
        [helper.make_tensor_value_info('z', TensorProto.FLOAT, None)],
    )
    node = helper.make_node('If', ['c'], ['y'], 'choice', then_branch=body, else_branch=body)
    with pytest.raises(BundleError, match='node choice holds a graph of its own'):
        to_half(small_model([node], {'c': np.array(True)}), 'fp16')


def test_bfloat16_rounds_to_the_nearest_even():
    ml_dtypes = pytest.importorskip('ml_dtypes')
    rng = np.random.default_rng(0)
    values = np.concatenate([
        rng.normal(size=10_000), rng.normal(size=1000) * 1e30, rng.normal(size=1000) * 1e-30,
        [0.0, -0.0, 1.00390625, 1.01171875, 3.0e38],
    ]).astype(np.float32)  # fmt: skip

    expected = values.astype(ml_dtypes.bfloat16).view(np.uint16)

    np.testing.assert_array_equal(to_bfloat16(values), expected)


def test_pruning_leaves_what_the_outputs_need():
    tensors = {'w': np.eye(4, dtype=np.float32), 'v': np.eye(4, dtype=np.float32)}
    nodes = [
        helper.make_node('MatMul', ['x', 'v'], ['unused']),
        helper.make_node('MatMul', ['x', 'w'], ['y']),
    ]
    model = small_model(nodes, tensors)

    prune(model)

    assert [node.output[0] for node in model.graph.node] == ['y']
    assert [tensor.name for tensor in model.graph.initializer] == ['w']


@pytest.mark.parametrize('compiled', [(), ('Road', 'Sky')])
@pytest.mark.parametrize('precision', ['f32', 'fp16'])
def test_one_graph_of_all_stages_gives_the_closed_form(tiny_bundle, tmp_path, precision, compiled):
    bundle = load_bundle(tiny_bundle)
    plan = plan_for(bundle, EngineOptions(compiled_classes=compiled))
    model = fused_model(plan, precision)
    onnx.checker.check_model(model, full_check=True)
    path = write_model(model, tmp_path)
    with np.load(bundle.path('golden.npz')) as golden:
        image, surprisal, labels = (golden[n] for n in ('image', 'surprisal', 'labels'))
    vector = np.float32([name == 'Road' for name in plan.compiled_classes])

    result = run(str(path), {'image': image, 'in_distribution': vector})

    assert {v.name for v in model.graph.input} == {'image', 'in_distribution'}
    assert [v.name for v in model.graph.output] == ['surprisal', 'labels']
    assert compare(*result, surprisal, labels, bundle.manifest.golden, precision != 'f32')
    atol = 1e-3 if precision == 'f32' else 0.05
    np.testing.assert_allclose(result[0], surprisal, atol=atol, rtol=5e-3)
    assert (result[1] == labels).mean() > 0.99


@pytest.mark.parametrize('precision', ['fp16', 'bf16'])
def test_the_whole_head_stays_float32(tiny_bundle, precision):
    plan = plan_for(load_bundle(tiny_bundle), EngineOptions())
    model = fused_model(plan, precision)
    types = types_of(model)

    for node in model.graph.node:
        if node.name.startswith('head/') or any(n.startswith('head/') for n in node.output):
            used = {types.get(n) for n in [*node.input, *node.output]}
            assert not used & {TensorProto.FLOAT16, TensorProto.BFLOAT16}, node


def test_the_same_bundle_gives_the_same_bytes(tiny_bundle, tmp_path):
    files = []
    for name in ('a', 'b'):
        plan = plan_for(load_bundle(tiny_bundle), EngineOptions())
        (tmp_path / name).mkdir()
        path = write_model(fused_model(plan, 'fp16'), tmp_path / name)
        files.append(path.read_bytes() + path.with_suffix('.data').read_bytes())

    assert files[0] == files[1]


def test_a_given_backbone_may_be_half_itself(tiny_bundle):
    """An 8-bit or half backbone whose outputs are fp16 gets a Cast before the head."""
    bundle = load_bundle(tiny_bundle)
    plan = plan_for(bundle, EngineOptions())
    typed = to_half(read_model(tiny_bundle / 'backbone.onnx'), 'fp16')
    cast = typed.graph.node[-1]
    typed.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    inner = cast.input[0]
    typed.graph.node.pop()
    for node in typed.graph.node:
        node.output[:] = ['tokens_2' if name == inner else name for name in node.output]

    model = fused_model(plan, 'int8', typed)

    onnx.checker.check_model(model, full_check=True)
    feeds = {'image': images(SIZE), 'in_distribution': np.ones(3, np.float32)}
    expected = run(fused_model(plan, 'fp16'), feeds)[0]
    np.testing.assert_allclose(run(model, feeds)[0], expected, rtol=1e-3, atol=1e-3)


def test_completed_weights_are_read_through_their_hard_link(tmp_path, monkeypatch):
    from bundles import donor_of

    monkeypatch.setenv('OOD_PERCEPTION_CACHE', str(tmp_path / 'cache'))
    path = write_tiny_bundle(tmp_path / 'tiny', external_weights=True)
    bundle = complete(load_bundle(path), donor_of(path))
    whole = plan_for(load_bundle(write_tiny_bundle(tmp_path / 'whole')), EngineOptions())
    feeds = {'image': images(SIZE), 'in_distribution': np.ones(3, np.float32)}

    completed = fused_model(plan_for(bundle, EngineOptions()), 'f32')

    np.testing.assert_array_equal(
        run(completed, feeds)[0], run(fused_model(whole, 'f32'), feeds)[0]
    )


@pytest.mark.parametrize('damage', ['cut', 'gone', 'outside'])
def test_external_data_that_is_not_whole_is_refused(tmp_path, damage):
    path = write_tiny_bundle(tmp_path / 'tiny', external_weights=True)
    model = onnx.load(path / 'backbone.onnx', load_external_data=False)
    if damage == 'cut':
        (path / 'backbone.data').write_bytes(b'short')
    if damage == 'outside':
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == 'location':
                    entry.value = '../backbone.data'
        (path / 'backbone.onnx').write_bytes(model.SerializeToString())

    with pytest.raises(BundleError, match=r'backbone\.onnx cannot be read'):
        read_model(path / 'backbone.onnx')


def test_what_cannot_be_joined_is_refused(tiny_bundle, tmp_path):
    plan = plan_for(load_bundle(tiny_bundle), EngineOptions())
    with pytest.raises(EngineError, match="precision 'fp8': use f32, fp16, bf16, int8"):
        fused_model(plan, 'fp8')
    with pytest.raises(EngineError, match='int8 needs an 8-bit backbone'):
        fused_model(plan, 'int8')


@pytest.mark.weights
@pytest.mark.slow
def test_road_camvid_in_fp16_keeps_its_golden_vectors(tmp_path):
    bundle = load_bundle('road_camvid')
    try:
        bundle = complete(bundle)
    except OodPerceptionError as error:
        pytest.skip(f'weights: {error}')
    plan = plan_for(bundle, EngineOptions(compiled_classes=('Road', 'Pavement')))
    path = write_model(fused_model(plan, 'fp16'), tmp_path)
    with np.load(bundle.path('golden.npz')) as golden:
        image, surprisal, labels = (golden[n][:1] for n in ('image', 'surprisal', 'labels'))

    result = run(str(path), {'image': image, 'in_distribution': np.ones(2, np.float32)})

    report = compare(*result, surprisal, labels, bundle.manifest.golden, reduced=True)
    # measured: 0.009, 0.9999997, 0.9995, 0.99997
    assert report.surprisal_difference < 0.05
    assert report.rank_correlation > 0.9999
    assert report.distinct_share > 0.99
    assert report.label_agreement > 0.999
