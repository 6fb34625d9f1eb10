# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
The tiny bundle with one transformer block behind its tokens, and facts that quantise it.

The block has what a ViT's has: norms, the three projections, softmax, GELU. Its golden vectors
come from ONNX Runtime in float32, before anything is damaged.
"""

import json

import numpy as np
import onnx
from bundles import DIM, TOKENS, write_manifest, write_tiny_bundle
from onnx import TensorProto, helper, numpy_helper

from ood_perception.engines.int8 import (
    Quantization,
    linear_nodes,
    smoothable,
    write_quantization,
)

HIDDEN = 4 * DIM
GAIN = 200.0  # the norm takes it out again; squares of such values leave the range of fp16


def write_quantized_bundle(path, *, smoothing=True, kept=(), change=None, **options):
    """
    Write a bundle with precision int8; change: what to do to the backbone after the golden.

    Returns its path.
    """
    path = write_tiny_bundle(path, **options)
    backbone = onnx.load(path / 'backbone.onnx')
    add_block(backbone)
    onnx.save(backbone, path / 'backbone.onnx')
    manifest = json.loads((path / 'manifest.json').read_text())
    write_golden(path, manifest)
    images = np.load(path / 'golden.npz')['image']
    facts = measured_facts(backbone, images, smoothing, kept)
    write_quantization(path / 'quantization.json', facts)
    manifest['precisions'] = {'int8': precision_spec(), 'int8_reduced_range': precision_spec()}
    if change is not None:
        change(backbone)
        onnx.save(backbone, path / 'backbone.onnx')
    write_manifest(path, manifest)
    return path


def precision_spec(**changes):
    """Return the manifest's entry of int8."""
    spec = {
        'average_precision_loss': 0.1, 'interval': [0.0, 0.2], 'surprisal_tolerance': 0.4,
        'label_agreement': 0.95, 'file': 'quantization.json', 'measured': {},
    }  # fmt: skip
    return {**spec, **changes}


def add_block(model):
    """Put one transformer block (tokens + a small correction) behind the tokens."""
    graph = model.graph
    rng = np.random.default_rng(5)
    rows, columns = (axis.dim_value for axis in graph.output[0].type.tensor_type.shape.dim[1:3])
    next(node for node in graph.node if TOKENS in node.output).output[0] = 'stem'
    spread = np.exp2(rng.permutation(np.linspace(-3, 3, DIM))).astype(np.float32)
    tensors = {
        'flat': np.array([0, rows * columns, DIM], np.int64),
        'grid': np.array([0, rows, columns, DIM], np.int64),
        'heads': np.array([0, rows * columns, 2, DIM // 2], np.int64),
        'gain': np.float32(GAIN), 'root': np.float32(2**0.5), 'one': np.float32(1),
        'half': np.float32(0.5), 'small': np.float32(0.3),
        'normed.weight': spread, 'normed.bias': rng.normal(0, 0.1, DIM).astype(np.float32),
        'normed_y.weight': spread[::-1], 'normed_y.bias': np.zeros(DIM, np.float32),
    }  # fmt: skip
    shapes = dict.fromkeys(('q', 'k', 'v', 'o'), (DIM, DIM))
    for name, shape in {**shapes, 'fc1': (DIM, HIDDEN), 'fc2': (HIDDEN, DIM)}.items():
        size = 0.5 / np.sqrt(shape[0])
        tensors[f'{name}.weight'] = rng.normal(0, size, shape).astype(np.float32)
        tensors[f'{name}.bias'] = rng.normal(0, 0.05, shape[1]).astype(np.float32)
    graph.initializer.extend(
        numpy_helper.from_array(np.ascontiguousarray(v), k) for k, v in tensors.items()
    )
    graph.node.extend(_block_nodes())
    onnx.checker.check_model(model)


def _linear(name, source):
    return [
        helper.make_node('MatMul', [source, f'{name}.weight'], [f'{name}_product'], f'/{name}'),
        helper.make_node('Add', [f'{name}.bias', f'{name}_product'], [f'{name}_out']),
    ]


def _norm(source, target):
    inputs = [f'{target}_gained', f'{target}.weight', f'{target}.bias']
    return [
        helper.make_node('Mul', [source, 'gain'], [inputs[0]]),
        helper.make_node('LayerNormalization', inputs, [target], f'/{target}', axis=-1),
    ]


def _block_nodes():
    node = helper.make_node
    nodes = [node('Reshape', ['stem', 'flat'], ['x']), *_norm('x', 'normed')]
    for name, perm in (('q', [0, 2, 1, 3]), ('k', [0, 2, 3, 1]), ('v', [0, 2, 1, 3])):
        nodes += [
            *_linear(name, 'normed'),
            node('Reshape', [f'{name}_out', 'heads'], [f'{name}_heads']),
            node('Transpose', [f'{name}_heads'], [name], perm=perm),
        ]
    return [
        *nodes,
        node('MatMul', ['q', 'k'], ['scores']),
        node('Softmax', ['scores'], ['shares'], axis=-1),
        node('MatMul', ['shares', 'v'], ['mixed_heads']),
        node('Transpose', ['mixed_heads'], ['mixed_back'], perm=[0, 2, 1, 3]),
        node('Reshape', ['mixed_back', 'flat'], ['mixed_values']),
        *_linear('o', 'mixed_values'),
        node('Mul', ['o_out', 'small'], ['o_small']),
        node('Add', ['x', 'o_small'], ['y']),
        *_norm('y', 'normed_y'),
        *_linear('fc1', 'normed_y'),
        node('Div', ['fc1_out', 'root'], ['scaled']),
        node('Erf', ['scaled'], ['erf']),
        node('Add', ['erf', 'one'], ['shifted']),
        node('Mul', ['fc1_out', 'shifted'], ['doubled']),
        node('Mul', ['doubled', 'half'], ['gelu']),
        *_linear('fc2', 'gelu'),
        node('Mul', ['fc2_out', 'small'], ['fc2_small']),
        node('Add', ['y', 'fc2_small'], ['z']),
        node('Reshape', ['z', 'grid'], [TOKENS]),
    ]


def run_graph(model, feeds, names=None):
    """Return the outputs (or the named inner tensors) of a graph by ONNX Runtime in float32."""
    import onnxruntime

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if names is not None:
        del copy.graph.output[:]
        copy.graph.output.extend(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    # as it is written: no fusing, so that equal bits can be asked for
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(copy.SerializeToString(), options)
    return session.run(None, feeds)


def write_golden(path, manifest):
    """Write golden.npz again, with what the two graphs give now."""
    golden = dict(np.load(path / 'golden.npz'))
    tokens = run_graph(onnx.load(path / 'backbone.onnx'), {'image': golden['image']})[0]
    head = onnx.load(path / 'head.onnx')
    feeds = {TOKENS: tokens, 'in_distribution': golden['in_distribution']}
    golden['surprisal'], golden['labels'] = run_graph(head, feeds)
    np.savez_compressed(path / 'golden.npz', **golden)


def measured_facts(model, images, smoothing=True, kept=()):
    """Return Quantization of a backbone: exact ranges, one exponent per channel."""
    names = list(dict.fromkeys(node.input[0] for node in linear_nodes(model)))
    ranges, exponents = {}, {}
    for name, values in zip(names, run_graph(model, {'image': images}, names), strict=True):
        flat = values.reshape(-1, values.shape[-1])
        if smoothing and smoothable(model, name):
            largest = np.abs(flat).max(0)
            k = np.rint(0.5 * np.log2(largest / np.exp(np.log(largest).mean()))).astype(int)
            exponents[name], flat = tuple(map(int, k)), flat / np.exp2(k)
        ranges[name] = (float(flat.min()), float(flat.max()))
    return Quantization(ranges, exponents, tuple(kept))
