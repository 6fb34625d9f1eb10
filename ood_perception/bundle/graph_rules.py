# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
What a stage's graph may hold: operators of a list, whose sizes are known before anything runs.

Runtimes trust their graphs: OpenVINO reads and writes wherever GatherND and ScatterND point, ONNX
Runtime divides the least integer by -1, Loop runs as often as it is told to. So every tensor's
shape is followed from the manifest's input on, by ONNX's own rules, node by node.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ood_perception.bundle.manifest import Manifest, StageSpec
from ood_perception.bundle.store import Bundle
from ood_perception.errors import BundleError

_ALLOWED = """
Abs Add And ArgMax ArgMin AveragePool BatchNormalization Cast Ceil Clip Concat Constant
ConstantOfShape Conv ConvTranspose Cos DequantizeLinear Div Dropout Elu Equal Erf Exp Expand
Flatten Floor Gather GatherElements Gelu Gemm GlobalAveragePool GlobalMaxPool Greater
GreaterOrEqual GroupNormalization HardSigmoid HardSwish Identity InstanceNormalization
LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax MatMul Max MaxPool Min Mul Neg Not
Or PRelu Pad Pow QuantizeLinear Range Reciprocal ReduceL1 ReduceL2 ReduceLogSumExp ReduceMax
ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize Round Selu Shape
Sigmoid Sign Sin Slice Softmax Softplus Softsign Split Sqrt Squeeze Sub Sum Tanh Tile TopK
Transpose Unsqueeze Where
"""
ALLOWED = frozenset(_ALLOWED.split())
OPSETS = range(13, 24)
MOST_TENSOR_BYTES = 2 << 30
"""Of one frame. Attention of 12 heads over 1 300 patches has 8e7 bytes, over 6 600 as many."""
MOST_NODES = 20_000
_MOST_ENDS = 5 * MOST_NODES  # inputs and outputs of all nodes
MOST_RANK = 8
BATCHES = range(1, 9)
_MOST_FOLDED = 4096
_MOST_ATTRIBUTE = 1 << 25
# Arithmetic of shapes: what these give is computed, where all that they read is known and small.
_SHAPES = """
Add Cast Ceil Concat Constant ConstantOfShape Div Equal Expand Floor Gather Identity Max Min
Mul Neg Range Reshape Shape Slice Squeeze Sub Transpose Unsqueeze Where
"""
_FOLDED = frozenset(_SHAPES.split())
_POSITIVE = ('kernel_shape', 'strides', 'dilations', 'group')
_OF_AXES = ('axis', 'axes', 'perm')
# They hand indices on as they are.
_MOVES = (
    'Cast',
    'Expand',
    'Flatten',
    'Identity',
    'Reshape',
    'Slice',
    'Squeeze',
    'Tile',
    'Transpose',
)
_SAME_VALUES = frozenset((*_MOVES, 'Unsqueeze'))


def check_graphs(bundle: Bundle) -> None:
    """
    Raise BundleError for a graph with an operator, an attribute or a size that is not accepted.

    Nothing of the graph is run but arithmetic of shapes, of at most 4096 numbers. The sizes are
    those of 1 to 8 frames.
    """
    for stage in bundle.manifest.stages:
        _check_form(_model(bundle.stage_path(stage)), bundle.stage_path(stage), stage)
    for batch in BATCHES:
        known: dict[str, Any] = {}
        for stage in bundle.manifest.stages:
            path = bundle.stage_path(stage)
            known |= _inputs(bundle.manifest, stage, batch)
            known |= Sizes(_model(path), str(path), known, batch).outputs()


def _model(path: Path) -> Any:
    import onnx

    model = onnx.ModelProto()
    model.ParseFromString(path.read_bytes())  # bundle.external_data did it before
    return model


def _inputs(manifest: Manifest, stage: StageSpec, batch: int) -> dict[str, Any]:
    from onnx import TensorProto, helper

    size = manifest.input
    heads = [head for head in manifest.heads if head.surprisal in stage.outputs]
    classes = len((heads or manifest.heads)[0].compiled_classes)
    shape = [batch, size.height, size.width, 3]
    return {
        'image': helper.make_tensor_type_proto(TensorProto.UINT8, shape),
        'in_distribution': helper.make_tensor_type_proto(TensorProto.FLOAT, [classes]),
    }


def _check_form(model: Any, path: Path, stage: StageSpec) -> None:
    """Refuse operators, attributes and parts of a model that are not on the list."""
    graph = model.graph
    stored = {tensor.name for tensor in graph.initializer}
    inputs = {value.name for value in graph.input} - stored
    opsets = [(item.domain, item.version) for item in model.opset_import]
    if model.functions or model.training_info or graph.sparse_initializer:
        raise BundleError(f'{path} holds functions, training or sparse tensors; refused')
    if len(opsets) != 1 or opsets[0][0] not in ('', 'ai.onnx') or opsets[0][1] not in OPSETS:
        known = f'{OPSETS.start} to {OPSETS.stop - 1}'
        raise BundleError(f'{path} is of operator sets {opsets}, one of {known} is accepted')
    lacks = sorted(set(stage.outputs) - {value.name for value in graph.output})
    if inputs != set(stage.inputs) or lacks or len(graph.node) > MOST_NODES:
        raise BundleError(
            f'{path} has {len(graph.node)} nodes, at most {MOST_NODES}, and inputs '
            f'{sorted(inputs)}, the manifest names {sorted(stage.inputs)}; of the outputs it '
            f'names {lacks} are missing; pack the bundle again'
        )
    if sum(len(node.input) + len(node.output) for node in graph.node) > _MOST_ENDS:
        raise BundleError(f'{path}: its nodes have more than {_MOST_ENDS} inputs and outputs')
    for node in graph.node:
        if node.op_type not in ALLOWED or node.domain not in ('', 'ai.onnx'):
            raise BundleError(
                f'{path}: operator {node.domain + ":" if node.domain else ""}{node.op_type} of '
                f'node {node.name!r} is not on the list of bundle.graph_rules; refused'
            )
        for attribute in node.attribute:
            _check_attribute(attribute, node, path)


def _check_attribute(attribute: Any, node: Any, path: Path) -> None:
    from onnx import AttributeProto

    kinds = AttributeProto
    whole = [*attribute.ints, *([attribute.i] if attribute.type == kinds.INT else [])]
    plain = attribute.type in (kinds.INT, kinds.INTS, kinds.FLOAT, kinds.FLOATS, kinds.STRING)
    most = MOST_RANK if attribute.name in _OF_AXES else _MOST_ATTRIBUTE
    least = 1 if attribute.name in _POSITIVE else -most
    if node.op_type in ('Constant', 'ConstantOfShape'):
        fine = plain or attribute.type == kinds.TENSOR
    else:
        fine = plain and all(least <= number <= most for number in whole)
    if not fine or attribute.ref_attr_name:
        raise BundleError(
            f'{path}: node {node.name!r} ({node.op_type}) has an attribute {attribute.name} that '
            f'is not accepted ({str(whole)[:100] or attribute.type}); refused'
        )


class Sizes:
    """
    The types of a graph's tensors, followed from its inputs; small ones with their values.

    place: of the model, for messages. known: TypeProto of every input by name. batch: frames.
    """

    def __init__(self, model: Any, place: str, known: Mapping[str, Any], batch: int) -> None:
        self._graph, self._path, self._batch = model.graph, place, batch
        self._opset, self._ir = model.opset_import[0], model.ir_version
        self._types: dict[str, Any] = {}
        self._values: dict[str, Any] = {}
        self._stored = {item.name: item for item in model.graph.initializer}
        self._of_shapes: set[str] = set()  # values that another number of frames may change
        self._below: dict[str, int] = {}  # index tensors: 0 <= index < this
        for tensor in model.graph.initializer:
            if tensor.name in self._types:
                raise BundleError(f'{place}: tensor {tensor.name!r} is stored twice; refused')
            self._store(tensor.name, tensor)
        for value in model.graph.input:
            if value.name not in self._types:
                self._types[value.name] = known[value.name]

    def outputs(self) -> dict[str, Any]:
        """Return the types of the outputs by name; BundleError names the node that is refused."""
        for node in self._graph.node:
            self.follow(node)
        self._check_declared()
        if unmade := [v.name for v in self._graph.output if v.name not in self._types]:
            raise BundleError(f'{self._path}: nothing makes the outputs {unmade}; refused')
        return {value.name: self._types[value.name] for value in self._graph.output}

    def follow(self, node: Any) -> None:
        """Take the graph's next node in; BundleError where it is refused."""
        try:
            self._follow(node)
        except BundleError:
            raise
        except Exception as error:  # whatever ONNX's rules raise on what fits no rule
            text = str(error).strip().splitlines() or [type(error).__name__]
            raise self._refused(node, f'cannot be: {text[-1][:300]}') from error

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor that is known so far."""
        return _shape(self._types[name]) or ()

    def is_computed(self, node: Any) -> bool:
        """Return whether the values that a node makes are known before anything runs."""
        return all(name in self._values for name in node.output if name)

    def _store(self, name: str, tensor: Any) -> None:
        from onnx import helper

        self._types[name] = helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))
        if math.prod(tensor.dims) <= _MOST_FOLDED and not tensor.external_data:
            self._values[name] = tensor

    def _follow(self, node: Any) -> None:
        from onnx import defs, shape_inference

        read = [name for name in node.input if name]
        schema = defs.get_schema(node.op_type, self._opset.version, '')
        unknown = {item.name for item in node.attribute} - set(schema.attributes)
        if unknown:
            raise self._refused(node, f'has unknown attributes {sorted(unknown)}')
        types = {name: self._types[name] for name in read}
        values = {name: self._values[name] for name in read if name in self._values}
        self._check_indices(node)
        made = shape_inference.infer_node_outputs(
            schema, node, types, values, opset_imports=[self._opset], ir_version=self._ir
        )
        for name in filter(None, node.output):
            if name in self._types:
                raise self._refused(node, f'makes {name!r}, which is there already')
            self._check_size(node, made.get(name))
            self._types[name] = made[name]
        self._fold(node, values)
        self._bound_indices(node)

    def _check_size(self, node: Any, kind: Any) -> None:
        from onnx import helper

        shape = _shape(kind)
        if shape is None or len(shape) > MOST_RANK:
            raise self._refused(node, f'gives a tensor whose size is not known before: {shape}')
        if kind.tensor_type.elem_type in _NO_NUMBERS:
            raise self._refused(node, 'gives texts or complex numbers')
        width = helper.tensor_dtype_to_np_dtype(kind.tensor_type.elem_type).itemsize
        fits = math.prod(shape) * width <= MOST_TENSOR_BYTES * self._batch
        if not fits or min(shape, default=0) < 0:
            raise self._refused(node, f'gives a tensor of shape {shape}: too large, or below 0')

    def _fold(self, node: Any, values: Mapping[str, Any]) -> None:
        """Compute the values of small tensors that depend on known ones alone."""
        from onnx import numpy_helper
        from onnx.reference import ReferenceEvaluator

        if node.op_type not in _FOLDED or len(node.output) != 1:
            return
        name = node.output[0]
        shape = _shape(self._types[name])
        if shape is None or math.prod(shape) > _MOST_FOLDED:
            return
        if node.op_type == 'Shape':
            feeds = {node.input[0]: np.empty(_shape(self._types[node.input[0]]) or (), np.uint8)}
        elif set(filter(None, node.input)) == set(values):
            feeds = {key: numpy_helper.to_array(value) for key, value in values.items()}
        else:
            return
        if node.op_type == 'Shape' or not self._of_shapes.isdisjoint(node.input):
            self._of_shapes.add(name)
        result = ReferenceEvaluator(node).run(None, feeds)[0]
        self._values[name] = numpy_helper.from_array(np.asarray(result), name)

    def _check_indices(self, node: Any) -> None:
        """Refuse what a runtime computes unchecked: foreign indices, divisions of integers."""
        from onnx import numpy_helper

        if node.op_type in ('Gather', 'GatherElements'):
            axis = next((item.i for item in node.attribute if item.name == 'axis'), 0)
            length = (_shape(self._types[node.input[0]]) or ())[axis]
            if node.op_type == 'Gather':  # runtimes look themselves at what the image gives
                inside = self._gathers_inside(node.input[1], length)
            else:
                inside = 0 < self._limit(node.input[1]) <= length
            if not inside:
                raise self._refused(node, 'takes indices that may lie outside')
        if node.op_type == 'Pad' and len(node.input) > 1 and node.input[1] in self._values:
            pads = numpy_helper.to_array(self._values[node.input[1]])
            if ((pads < -_MOST_ATTRIBUTE) | (pads > _MOST_ATTRIBUTE)).any():
                raise self._refused(node, f'pads by {pads.tolist()}: too large')
        whole = self._types[node.input[0]].tensor_type.elem_type in _INTEGERS if node.input else 0
        if (
            node.op_type == 'ReduceMean'
            and whole
            and 0 in (_shape(self._types[node.input[0]]) or ())
        ):
            raise self._refused(node, 'takes the mean of no integers')
        if node.op_type == 'Div' and whole:
            divisor = self._values.get(node.input[1])
            if node.input[1] in self._of_shapes:
                raise self._refused(node, 'divides integers by a size, which is 0 for some frames')
            if divisor is None or np.isin(numpy_helper.to_array(divisor), (0, -1)).any():
                raise self._refused(node, 'divides integers by what may be 0 or -1')

    def _gathers_inside(self, name: str, length: int) -> bool:
        """Return whether no known index lies outside of -length to length - 1."""
        from onnx import numpy_helper

        known = self._values.get(name, self._stored.get(name))
        if known is None or known.external_data:
            return True
        indices = numpy_helper.to_array(known)
        return not indices.size or bool(indices.min() >= -length and indices.max() < length)

    def _limit(self, name: str) -> int:
        """Return the number below which indices stay, 0 where it is not known."""
        from onnx import numpy_helper

        if name in self._values:
            indices = numpy_helper.to_array(self._values[name])
            return int(indices.max()) + 1 if indices.size and indices.min() >= 0 else 0
        return self._below.get(name, 0)

    def _bound_indices(self, node: Any) -> None:
        if node.op_type in ('ArgMax', 'ArgMin', 'TopK'):
            usual = -1 if node.op_type == 'TopK' else 0
            axis = next((item.i for item in node.attribute if item.name == 'axis'), usual)
            self._below[node.output[-1]] = (_shape(self._types[node.input[0]]) or ())[axis]
        elif node.op_type in _SAME_VALUES:
            kind = self._types[node.input[0]].tensor_type.elem_type
            narrow = self._types[node.output[0]].tensor_type.elem_type not in _WIDE
            limit = self._limit(node.input[0]) if kind in _INTEGERS and not narrow else 0
            self._below[node.output[0]] = limit

    def _check_declared(self) -> None:
        """Refuse declarations that contradict what is: a runtime may plan its memory by them."""
        graph = self._graph
        for value in [*graph.input, *graph.value_info, *graph.output]:
            kind, said = self._types.get(value.name), value.type.tensor_type
            if kind is None:
                continue  # of a tensor that nothing makes
            shape, dims = _shape(kind), said.shape.dim
            pairs = zip(shape or (), dims, strict=False)
            fits = all(not dim.HasField('dim_value') or dim.dim_value == n for n, dim in pairs)
            ranked = not said.HasField('shape') or len(dims) == len(shape or ())
            typed = value.type.WhichOneof('value') in (None, 'tensor_type')
            typed = typed and said.elem_type in (0, kind.tensor_type.elem_type)
            if not (fits and ranked and typed):
                raise BundleError(
                    f'{self._path}: {value.name!r} is declared otherwise than it is, {shape} for '
                    f'{self._batch} frames; pack the bundle again'
                )

    def _refused(self, node: Any, what: str) -> BundleError:
        return BundleError(f'{self._path}: node {node.name!r} ({node.op_type}) {what}; refused')


# TensorProto.DataType: uint8 to int64 and uint32, uint64; those that hold any index
_INTEGERS = (2, 3, 4, 5, 6, 7, 12, 13)
_WIDE = (6, 7, 12, 13)
_NO_NUMBERS = (8, 14, 15)  # string, complex64, complex128


def _shape(kind: Any) -> tuple[int, ...] | None:
    """Return a tensor's shape; None where it is not known, or it is no tensor."""
    if kind is None or not kind.HasField('tensor_type') or not kind.tensor_type.HasField('shape'):
        return None
    dims = kind.tensor_type.shape.dim
    return tuple(d.dim_value for d in dims) if all(d.HasField('dim_value') for d in dims) else None
