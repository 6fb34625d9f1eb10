# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Graphs that end, stop or fill the process that runs them; each is refused unrun."""

import json
import shutil

import numpy as np
import onnx
import pytest
from bundles import write_manifest
from onnx import TensorProto, helper, numpy_helper

from ood_perception.bundle.graph_rules import check_graphs
from ood_perception.bundle.store import load_bundle, shipped_bundles
from ood_perception.errors import BundleError

node = helper.make_node
TOKENS = 'tokens_2'  # float32 (batch, 4, 6, 8)


def changed(bundle, folder, change):
    """Return the bundle with another head graph, under checksums that fit."""
    root = shutil.copytree(bundle, folder)
    model = onnx.load(root / 'head.onnx')
    change(model)
    (root / 'head.onnx').write_bytes(model.SerializeToString())
    write_manifest(root, json.loads((root / 'manifest.json').read_text()), known=False)
    return load_bundle(root)


@pytest.fixture
def refusal(tiny_bundle, tmp_path):
    """Return what is said of the tiny bundle once nodes or a change were added to its head."""

    def of(nodes=(), change=None, **stored):
        def add(model):
            model.graph.node.extend(nodes)
            model.graph.initializer.extend(
                numpy_helper.from_array(np.asarray(value), name) for name, value in stored.items()
            )
            if change is not None:
                change(model)

        with pytest.raises(BundleError) as refused:
            check_graphs(changed(tiny_bundle, tmp_path / 'changed', add))
        return str(refused.value)

    return of


@pytest.mark.parametrize('name', sorted(shipped_bundles()))
def test_shipped_bundles_keep_the_rules(name):
    check_graphs(load_bundle(name))


@pytest.mark.parametrize(
    'kind', ['GatherND', 'ScatterND', 'ScatterElements', 'NonZero', 'Mod', 'OneHot', 'Unique']
)
def test_operators_that_trust_their_numbers_are_refused(refusal, kind):
    assert f'operator {kind} of node' in refusal([node(kind, [TOKENS, TOKENS], ['o'])])


def test_operators_of_other_domains_are_refused(refusal):
    made = refusal([node('Add', [TOKENS, TOKENS], ['o'], domain='com.microsoft')])
    assert 'com.microsoft:Add' in made


@pytest.mark.parametrize(
    ('kind', 'why'),
    [
        *((kind, f'operator {kind} of node') for kind in ('Loop', 'Scan', 'If')),
        ('Add', 'attribute body that is not accepted'),
    ],
)
def test_inner_graphs_are_refused(refusal, kind, why):
    inner = helper.make_graph([node('Identity', [TOKENS], ['inner'])], 'inner', [], [])
    assert why in refusal([node(kind, [TOKENS, TOKENS], ['o'], body=inner)])


def test_functions_and_training_are_refused(refusal):
    opset = [helper.make_opsetid('', 18)]
    body = [node('Identity', ['x'], ['y'])]
    function = helper.make_function('own', 'F', ['x'], ['y'], body, opset)
    assert 'functions' in refusal(change=lambda model: model.functions.append(function))


def test_two_operator_sets_are_refused(refusal):
    other = helper.make_opsetid('ai.onnx.ml', 3)
    assert 'operator sets' in refusal(change=lambda model: model.opset_import.append(other))


LARGE = {
    'Tile': ([node('Tile', [TOKENS, 'r'], ['o'])], {'r': [1, 4000, 1000, 1000]}),
    'Pad': ([node('Pad', [TOKENS, 'r'], ['o'])], {'r': [0, 0, 0, 0, 0, 300_000, 3000, 0]}),
    'Pad there and back': (
        [node('Pad', [TOKENS, 'r'], ['o'])],
        {'r': [2**62, 0, 0, 0, 1 - 2**62, 0, 0, 0]},
    ),
    'Expand': ([node('Expand', [TOKENS, 'r'], ['o'])], {'r': [2**31, 1, 4, 6, 8]}),
    'ConstantOfShape': ([node('ConstantOfShape', ['r'], ['o'])], {'r': [2**40, 2**30]}),
    'Range': (
        [node('Range', ['zero', 'r', 'unit'], ['o'])],
        {'zero': np.int64(0), 'r': np.int64(2**40), 'unit': np.int64(1)},
    ),
    'Split': (
        [node('Split', [TOKENS, 'r'], ['o', 'p'], axis=3)],
        {'r': [2**33, 8 - 2**33]},
    ),
    'Resize': (
        [node('Resize', [TOKENS, '', 'r'], ['o'], mode='nearest')],
        {'r': np.array([1, 1e5, 1e5, 1], np.float32)},
    ),
    'Resize by NaN': (
        [node('Resize', [TOKENS, '', 'r'], ['o'], mode='nearest')],
        {'r': np.array([1, np.nan, -1, 1], np.float32)},
    ),
    'with the number of frames': (
        [
            node('Shape', [TOKENS], ['s']),
            node('Slice', ['s', 'zero', 'unit'], ['frames']),
            node('Sub', ['frames', 'unit'], ['more']),
            node('Mul', ['more', 'huge'], ['many']),
            node('Add', ['many', 'unit'], ['times']),
            node('Concat', ['times', 'ones'], ['r'], axis=0),
            node('Tile', [TOKENS, 'r'], ['o']),
        ],
        {'zero': [0], 'unit': [1], 'huge': [10**9], 'ones': [1, 1, 1]},
    ),
    'with five frames alone': (
        [
            node('Shape', [TOKENS], ['frames'], start=0, end=1),
            node('Sub', ['frames', 'five'], ['above']),
            node('Mul', ['above', 'above'], ['square']),
            node('Min', ['square', 'unit'], ['other']),
            node('Sub', ['unit', 'other'], ['is_five']),
            node('Mul', ['is_five', 'huge'], ['many']),
            node('Add', ['many', 'unit'], ['times']),
            node('Concat', ['times', 'ones'], ['r'], axis=0),
            node('Tile', [TOKENS, 'r'], ['o']),
        ],
        {'five': [5], 'unit': [1], 'huge': [10**9], 'ones': [1, 1, 1]},
    ),
}


@pytest.mark.parametrize('name', LARGE)
def test_tensors_that_are_too_large_are_refused(refusal, name):
    nodes, stored = LARGE[name]
    assert 'too large' in refusal(nodes, **stored)


UNKNOWN = {
    'Range': [
        node('ReduceSum', [TOKENS], ['sum'], keepdims=0),
        node('Range', ['zero', 'sum', 'step'], ['o']),
    ],
    'Reshape': [
        node('ReduceSum', [TOKENS], ['sum'], keepdims=0),
        node('Cast', ['sum'], ['size'], to=TensorProto.INT64),
        node('Reshape', ['size', 'unit'], ['sizes']),
        node('ConstantOfShape', ['sizes'], ['o']),
    ],
    'rank': [node('Reshape', [TOKENS, 'long'], ['o'])],
}


@pytest.mark.parametrize('name', UNKNOWN)
def test_sizes_that_depend_on_the_image_are_refused(refusal, name):
    zero, step, unit = np.float32(0), np.float32(1e-9), np.array([1])
    said = refusal(UNKNOWN[name], zero=zero, step=step, unit=unit, long=[1] * 30 + [-1])
    assert 'not known before' in said


def test_divisions_of_integers_need_a_known_divisor(refusal):
    """ONNX Runtime divides -2^31 by -1 in the processor, which ends the process."""
    nodes = [
        node('Cast', [TOKENS], ['whole'], to=TensorProto.INT32),
        node('Div', ['whole', 'whole'], ['o']),
    ]
    assert 'divides integers' in refusal(nodes)


def test_integers_are_not_divided_by_a_size(refusal):
    """Five frames fewer than five: neither 0 nor -1 for the 1 to 4 frames of a small machine."""
    nodes = [
        node('Shape', [TOKENS], ['frames'], start=0, end=1),
        node('Sub', ['frames', 'five'], ['fewer']),
        node('Div', ['five', 'fewer'], ['o']),
    ]
    assert 'divides integers by a size' in refusal(nodes, five=np.array([5]))


def test_no_mean_is_taken_of_no_integers(refusal):
    nodes = [node('ReduceMean', ['none'], ['o'], keepdims=0)]
    assert 'mean of no integers' in refusal(nodes, none=np.zeros(0, np.int32))


def test_texts_are_refused(refusal):
    nodes = [node('Cast', [TOKENS], ['o'], to=TensorProto.STRING)]
    assert 'gives texts' in refusal(nodes)


@pytest.mark.parametrize('divisor', [0, -1])
def test_divisions_by_nought_and_minus_one_are_refused(refusal, divisor):
    nodes = [
        node('Cast', [TOKENS], ['whole'], to=TensorProto.INT32),
        node('Div', ['whole', 'd'], ['o']),
    ]
    assert 'divides integers' in refusal(nodes, d=np.int32(divisor))


OUTSIDE = {
    'of the image': [node('Cast', [TOKENS], ['indices'], to=TensorProto.INT64)],
    'of another axis': [
        node('ArgMax', [TOKENS], ['unit'], axis=3),
        node('Tile', ['unit', 'r'], ['indices']),
    ],
    'made wider': [
        node('ArgMax', [TOKENS], ['unit'], axis=2),
        node('Add', ['unit', 'far'], ['indices']),
    ],
    'stored': [node('Identity', ['stored'], ['indices'])],
}


@pytest.mark.parametrize('name', OUTSIDE)
def test_indices_that_may_lie_outside_are_refused(refusal, name):
    """GatherElements of OpenVINO reads wherever they point. Axis 1 has length 4."""
    nodes = [*OUTSIDE[name], node('GatherElements', [TOKENS, 'indices'], ['o'], axis=1)]
    far, stored = np.int64(10**9), np.full((1, 4, 6, 8), -1)
    assert 'indices that may lie outside' in refusal(nodes, far=far, stored=stored, r=[1, 1, 1, 8])


@pytest.mark.parametrize('index', [4, -5, 2**31, -(2**63)])
def test_gather_takes_no_known_index_outside(refusal, index):
    assert 'lie outside' in refusal([node('Gather', [TOKENS, 'i'], ['o'], axis=1)], i=[0, index])


def test_long_lists_of_indices_and_those_from_the_end_are_accepted(tiny_bundle, tmp_path):
    def add(model):
        flat = node('Reshape', [TOKENS, 'flat'], ['line'])
        model.graph.node.extend([flat, node('Gather', ['line', 'i'], ['o'], axis=1)])
        for name, value in {'flat': [0, -1], 'i': [-1, *range(190)] * 30}.items():
            model.graph.initializer.append(numpy_helper.from_array(np.array(value), name))

    check_graphs(changed(tiny_bundle, tmp_path / 'changed', add))


def test_indices_of_the_same_axis_are_accepted(tiny_bundle, tmp_path):
    def add(model):
        model.graph.node.extend([
            node('ArgMax', [TOKENS], ['best'], axis=1),
            node('GatherElements', [TOKENS, 'best'], ['o'], axis=1),
        ])  # fmt: skip

    check_graphs(changed(tiny_bundle, tmp_path / 'changed', add))


@pytest.mark.parametrize(
    ('kind', 'attributes'),
    [
        ('MaxPool', {'kernel_shape': [1, 1], 'strides': [0, 0]}),
        ('MaxPool', {'kernel_shape': [0, 1]}),
        ('MaxPool', {'kernel_shape': [1, 1], 'pads': [2**40] * 4}),
        ('AveragePool', {'kernel_shape': [1, 1], 'pads': [-5] * 4}),
        ('ArgMax', {'axis': 2**40}),
        ('ArgMax', {'axis': 99}),
        ('LayerNormalization', {'axis': 99}),  # ONNX's own rules do not look
        ('Transpose', {'perm': [0, 0, 0, 0]}),
        ('Softmax', {'more anomalous': 1}),
        ('Softmax', {'axis': 'three'}),
    ],
)
def test_attributes_outside_their_range_are_refused(refusal, kind, attributes):
    assert 'refused' in refusal([node(kind, [TOKENS], ['o'], **attributes)])


def test_tensors_made_twice_or_of_themselves_are_refused(refusal):
    assert 'there already' in refusal([node('Neg', [TOKENS], ['o']), node('Abs', ['o'], ['o'])])


def test_a_circle_is_refused(refusal):
    assert "cannot be: 'p'" in refusal([node('Neg', ['p'], ['o']), node('Neg', ['o'], ['p'])])


def test_more_nodes_than_a_head_has_are_refused(refusal):
    nodes = [node('Neg', [TOKENS], [f'o{i}']) for i in range(20_001)]
    assert 'at most 20000' in refusal(nodes)


@pytest.mark.parametrize(
    'ends', [([TOKENS] * 100_001, ['o']), ([TOKENS], [f'o{i}' for i in range(100_001)])]
)
def test_a_node_as_wide_as_many_is_refused(refusal, ends):
    assert 'inputs and outputs' in refusal([node('Sum', *ends)])


def test_outputs_that_the_manifest_names_are_made_and_given(refusal):
    said = refusal(change=lambda model: model.graph.ClearField('output'))
    assert "of the outputs it names ['labels', 'surprisal'] are missing" in said


def test_an_output_that_no_node_makes_is_refused(refusal):
    made = helper.make_tensor_value_info('none', TensorProto.FLOAT, [1])
    said = refusal(change=lambda model: model.graph.output.append(made))
    assert "nothing makes the outputs ['none']" in said


def test_a_sequence_in_the_place_of_a_tensor_is_refused(refusal):
    made = helper.make_tensor_sequence_value_info(TOKENS, TensorProto.FLOAT, None)
    said = refusal(change=lambda model: model.graph.input[0].CopyFrom(made))
    assert "'tokens_2' is declared otherwise" in said


def test_declarations_that_lie_are_refused(refusal):
    value = helper.make_tensor_value_info('logits', TensorProto.FLOAT, [1, 2, 3, 100_000])
    said = refusal(change=lambda model: model.graph.value_info.append(value))
    assert "'logits' is declared otherwise than it is, (1, 8, 12, 3)" in said


@pytest.mark.parametrize(
    ('kind', 'dims', 'why'),
    [
        (1, [-1, -4], 'shape (-1, -4)'),
        (99, [4], 'Invalid tensor data type'),
        (1, [2**20, 2**10], 'too large'),
        (8, [4], 'gives texts'),
    ],
)
def test_stored_tensors_that_lie_are_refused(refusal, kind, dims, why):
    tensor = onnx.TensorProto(name='lie', data_type=kind, dims=dims, raw_data=bytes(16))
    nodes = [node('Identity', ['lie'], ['o'])]
    said = refusal(nodes, change=lambda model: model.graph.initializer.append(tensor))
    assert why in said


def test_a_tensor_that_is_stored_twice_is_refused(refusal):
    """One runtime takes the first, another the last."""

    def twice(model):
        model.graph.initializer.append(model.graph.initializer[0])

    assert 'stored twice' in refusal(change=twice)
