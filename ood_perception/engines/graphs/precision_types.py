# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
A float32 ONNX graph to one whose matrix products are fp16 or bf16, the precision in the graph.

TensorRT 11 has no precision flags any more: what a tensor's type says is what is computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ood_perception.errors import BundleError

HALF_TYPES = ('fp16', 'bf16')
PRODUCTS = frozenset({'MatMul', 'Gemm', 'Conv', 'ConvTranspose', 'Einsum'})
# Sums over many terms, and functions whose argument or value leaves the range of fp16.
FULL = frozenset(
    [
        *('LayerNormalization', 'InstanceNormalization', 'GroupNormalization'),
        *('RMSNormalization', 'Softmax', 'LogSoftmax', 'Exp', 'Log', 'Pow', 'Sqrt', 'Reciprocal'),
        *('ReduceMean', 'ReduceSum', 'ReduceL2', 'ReduceSumSquare', 'Sin', 'Cos'),
    ]
)
DATA_INPUTS = {'Resize': 1}  # only so many inputs are data: its scales must be float32
FP16_LIMIT = 65504.0


def read_model(source: Path | bytes) -> Any:
    """
    Return the ModelProto of an ONNX file with its external data inside, or of its bytes.

    onnx.load refuses weights that are hard-linked, as completed ones are. Raises BundleError.
    """
    import onnx

    try:
        if isinstance(source, bytes):
            return onnx.load_from_string(source)
        model = onnx.load(str(source), load_external_data=False)
        for tensor in model.graph.initializer:
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                _read_external(tensor, source.parent)
                tensor.data_location = onnx.TensorProto.DEFAULT
    except Exception as error:  # protobuf's own classes among them
        place = source if isinstance(source, Path) else 'a graph'
        raise BundleError(f'{place} cannot be read ({error}): copy the bundle again') from error
    return model


def _read_external(tensor: Any, folder: Path) -> None:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    place = Path(entries['location'])
    if place.is_absolute() or '..' in place.parts:
        raise ValueError(f'tensor {tensor.name} lies outside the folder, in {place}')
    length = int(entries['length'])
    with (folder / place).open('rb') as file:
        file.seek(int(entries.get('offset', 0)))
        tensor.raw_data = file.read(length)
    if len(tensor.raw_data) != length:
        raise ValueError(f'{place} ends inside tensor {tensor.name}')
    del tensor.external_data[:]


def to_half(model: Any, kind: str) -> Any:
    """
    Return a copy of a float32 ModelProto whose products run in `kind`, 'fp16' or 'bf16'.

    Matrix products and convolutions are half (bf16: where the graph's opset has them); norms,
    softmax, means and exponentials (FULL) are float32, with LayerNormalization one operator as
    before; element-wise operators follow their inputs, half where those are mixed. Inputs and
    outputs of the graph keep name and type.

    Raises ValueError for another kind, BundleError for a graph with control flow.
    """
    if kind not in HALF_TYPES:
        raise ValueError(f'kind {kind!r}: use {", ".join(HALF_TYPES)}')
    import onnx

    nested = [n.name for n in model.graph.node for a in n.attribute if a.HasField('g')]
    if nested:
        raise BundleError(
            f'node {nested[0]} holds a graph of its own: export without control flow'
        )
    return _Lowering(onnx, model, kind).result()


def prune(model: Any) -> None:
    """Remove, in place, every node and initialiser that no output of the graph needs."""
    needed = {value.name for value in model.graph.output}
    kept = []
    for node in reversed(model.graph.node):
        if needed & set(node.output):
            kept.append(node)
            needed.update(node.input)
    tensors = [tensor for tensor in model.graph.initializer if tensor.name in needed]
    for field, values in ((model.graph.node, kept[::-1]), (model.graph.initializer, tensors)):
        copies = deepcopy(values)
        del field[:]
        field.extend(copies)


def to_bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Return the bits of the nearest bfloat16 numbers, ties to even; values finite."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return (rounded >> np.uint32(16)).astype(np.uint16)


class _Lowering:
    """One pass over the nodes in their order; float tensors are 'full', 'half' or constants."""

    def __init__(self, onnx: Any, model: Any, kind: str) -> None:
        self._onnx, self._kind = onnx, kind
        self._model = deepcopy(model)
        self._half = onnx.TensorProto.FLOAT16 if kind == 'fp16' else onnx.TensorProto.BFLOAT16
        self._constants = self._float_constants()
        self._floats = self._float_tensors()
        self._is_half: set[str] = set()
        self._casts: dict[tuple[str, bool], str] = {}
        self._nodes: list[Any] = []
        self._allowed: dict[str, bool] = {}

    def result(self) -> Any:
        """Return the model with every node that may be in half precision."""
        graph = self._model.graph
        outputs = {value.name for value in graph.output}
        for node in list(graph.node):
            self._lower(node, outputs)
        del graph.node[:]
        graph.node.extend(self._nodes)
        del graph.value_info[:]
        prune(self._model)
        return self._model

    def _float_constants(self) -> dict[str, Any]:
        """Return the float32 TensorProtos by name: initialisers and Constant nodes."""
        graph, float32 = self._model.graph, self._onnx.TensorProto.FLOAT
        found = {t.name: t for t in graph.initializer if t.data_type == float32}
        for node in graph.node:
            for attribute in node.attribute if node.op_type == 'Constant' else ():
                if attribute.name == 'value' and attribute.t.data_type == float32:
                    found[node.output[0]] = attribute.t
        return found

    def _float_tensors(self) -> set[str]:
        """Return the names of all float32 tensors, by ONNX's own inference."""
        light = deepcopy(self._model)
        for tensor in light.graph.initializer:
            if tensor.data_type == self._onnx.TensorProto.FLOAT:
                tensor.ClearField('raw_data')  # types follow without it, and 2 GB is a limit
                tensor.data_location = self._onnx.TensorProto.EXTERNAL
        inferred = self._onnx.shape_inference.infer_shapes(light).graph
        values = [*inferred.value_info, *inferred.input, *inferred.output]
        float32 = self._onnx.TensorProto.FLOAT
        names = {v.name for v in values if v.type.tensor_type.elem_type == float32}
        return names | set(self._constants)

    def _lower(self, node: Any, outputs: set[str]) -> None:
        if node.op_type == 'Constant':
            self._nodes.append(node)
            return
        data = list(node.input)[: DATA_INPUTS.get(node.op_type, len(node.input))]
        places = [i for i, name in enumerate(data) if name in self._floats]
        half = self._runs_in_half(node, [data[i] for i in places])
        for i in places:
            node.input[i] = self._as_type(data[i], half)
        self._nodes.append(node)
        for i, name in enumerate(node.output):
            if not (half and name in self._floats):
                continue
            if name not in outputs:
                self._is_half.add(name)
                continue
            node.output[i] = inner = f'{name}/{self._kind}'
            self._is_half.add(inner)
            self._floats.add(inner)
            self._casts[name, True] = inner
            self._cast(inner, name, self._onnx.TensorProto.FLOAT)

    def _runs_in_half(self, node: Any, names: Sequence[str]) -> bool:
        if not names or node.op_type in FULL or node.op_type == 'Cast':
            return False
        if not self._is_allowed(node.op_type):
            return False
        if self._kind == 'fp16' and any(self._leaves_range(name) for name in names):
            return False
        computed = [name for name in names if name not in self._constants]
        return node.op_type in PRODUCTS or any(name in self._is_half for name in computed)

    def _is_allowed(self, operator: str) -> bool:
        """Return whether ONNX defines the operator in half: Conv in bf16 only from opset 22 on."""
        if operator not in self._allowed:
            versions = [o.version for o in self._model.opset_import if o.domain in ('', 'ai.onnx')]
            try:
                schema = self._onnx.defs.get_schema(operator, int(versions[0]))
            except self._onnx.defs.SchemaError:
                return False  # an operator of another domain
            name = {'fp16': 'tensor(float16)', 'bf16': 'tensor(bfloat16)'}[self._kind]
            self._allowed[operator] = name in schema.inputs[0].types
        return self._allowed[operator]

    def _leaves_range(self, name: str) -> bool:
        if name not in self._constants:
            return False
        values = self._onnx.numpy_helper.to_array(self._constants[name])
        return bool(values.size) and float(np.abs(values).max()) > FP16_LIMIT

    def _as_type(self, name: str, half: bool) -> str:
        """Return the name of the tensor in the wanted type, with a Cast where none is yet."""
        if (name in self._is_half) == half:
            return name
        if (name, half) not in self._casts:
            wanted = f'{name}/{self._kind if half else "f32"}'
            self._casts[name, half] = wanted
            if half and name in self._constants:
                self._model.graph.initializer.append(self._half_copy(name, wanted))
            else:
                self._cast(name, wanted, self._half if half else self._onnx.TensorProto.FLOAT)
            if half:
                self._is_half.add(wanted)
        return self._casts[name, half]

    def _cast(self, source: str, target: str, to: int) -> None:
        node = self._onnx.helper.make_node('Cast', [source], [target], f'cast/{target}', to=to)
        self._nodes.append(node)

    def _half_copy(self, name: str, wanted: str) -> Any:
        values = self._onnx.numpy_helper.to_array(self._constants[name])
        if self._kind == 'bf16':
            bits: NDArray[Any] = to_bfloat16(values)
        else:
            bits = values.astype(np.float16)
        return self._onnx.TensorProto(
            name=wanted, data_type=self._half, dims=values.shape, raw_data=bits.tobytes()
        )
