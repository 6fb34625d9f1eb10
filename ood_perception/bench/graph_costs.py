# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What a graph computes and moves: operations and bytes of every node, told from its shapes."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ood_perception.errors import BundleError, required

Shape = tuple[int, ...]
SMALL = 4096  # elements: what shapes are computed from is never larger
PRODUCTS = ('MatMul', 'Gemm', 'Conv')
# They cost no time of their own: a runtime keeps another view of the same bytes.
_FREE = frozenset({'Reshape', 'Squeeze', 'Unsqueeze', 'Identity', 'Constant', 'Shape', 'Flatten'})


@dataclass(frozen=True)
class NodeCost:
    """
    One node of a graph.

    name, kind: the node's and its operator's. operations: of a product, a multiply-add counting
    two, else 0. depthwise: a convolution in which every channel is a group of its own. elements:
    what is read and written, weights included.
    """

    name: str
    kind: str
    operations: int
    depthwise: bool
    elements: int


def node_costs(model: Path | bytes, batch: int = 1) -> list[NodeCost]:
    """
    Return the cost of every node that computes or moves something, in the graph's order.

    model: an ONNX file (its external data is not read) or a graph's bytes. batch: images at once.

    Raises DependencyError without onnx, BundleError where a product's shape cannot be told.
    """
    onnx = required('onnx', "operations are counted with onnx: pip install 'onnx>=1.16'")
    if isinstance(model, bytes):
        proto = onnx.load_from_string(model)
    else:
        proto = onnx.load(str(model), load_external_data=False)
    shapes = _Shapes(proto, batch)
    found = []
    for node in proto.graph.node:
        known, computed = shapes.after(node)
        if not computed and node.op_type not in _FREE:
            found.append(_cost(node, known))
    return found


def count_flops(model: Path | bytes, batch: int = 1) -> float:
    """Return the operations of all MatMul, Gemm and Conv nodes; see node_costs."""
    return float(sum(node.operations for node in node_costs(model, batch)))


def _cost(node: Any, shapes: dict[str, Shape]) -> NodeCost:
    elements = sum(prod(shapes.get(name, ())) for name in (*node.input, *node.output) if name)
    groups = next((a.i for a in node.attribute if a.name == 'group'), 1)
    depthwise = node.op_type == 'Conv' and groups > 1 and _known(node.input[1], shapes)[1] == 1
    return NodeCost(node.name, node.op_type, _operations(node, shapes), depthwise, elements)


class _Shapes:
    """
    Shapes of all tensors, node by node.

    The exporter computes shapes from shapes inside the graph; these numbers are computed here
    as well, which plain shape inference gives up on.
    """

    def __init__(self, model: Any, batch: int) -> None:
        import onnx
        from onnx import reference, shape_inference

        self._onnx, self._reference, self._inference = onnx, reference, shape_inference
        self._opset = next(one for one in model.opset_import if one.domain in ('', 'ai.onnx'))
        self._types: dict[str, Any] = {}
        self._values: dict[str, Any] = {}  # of small tensors
        for value in model.graph.input:
            dims = value.type.tensor_type.shape.dim
            if len(dims) and dims[0].dim_param:
                dims[0].dim_value = batch
            self._types[value.name] = value.type
        for tensor in model.graph.initializer:
            self._types[tensor.name] = onnx.helper.make_tensor_type_proto(
                tensor.data_type, list(tensor.dims)
            )
            if prod(tensor.dims) <= SMALL and not tensor.external_data:
                self._values[tensor.name] = onnx.numpy_helper.to_array(tensor)

    def after(self, node: Any) -> tuple[dict[str, Shape], bool]:
        """
        Take the next node in.

        Returns the shapes of its inputs and outputs by name, and whether its values are known
        beforehand, so that nothing is left to compute.
        """
        values = self._folded(node)
        if values is not None:
            for name, value in zip(node.output, values, strict=True):
                self._values[name] = value
                kind = self._onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
                self._types[name] = self._onnx.helper.make_tensor_type_proto(kind, value.shape)
        else:
            self._types.update(self._inferred(node))
        names = [name for name in (*node.input, *node.output) if name in self._types]
        return {name: self._shape(name) for name in names}, values is not None

    def _shape(self, name: str) -> Shape:
        return tuple(dim.dim_value for dim in self._types[name].tensor_type.shape.dim)

    def _folded(self, node: Any) -> list[Any] | None:
        """Return the values of a node that depends on shapes and small constants alone."""
        if node.op_type == 'Shape' and not node.attribute and node.input[0] in self._types:
            return [np.array(self._shape(node.input[0]), np.int64)]
        if any(name not in self._values for name in node.input if name):
            return None
        feeds = {name: self._values[name] for name in node.input if name}
        return list(self._reference.ReferenceEvaluator(node).run(None, feeds))

    def _inferred(self, node: Any) -> dict[str, Any]:
        onnx = self._onnx
        schema = onnx.defs.get_schema(node.op_type, self._opset.version, node.domain)
        types = {name: self._types[name] for name in node.input if name in self._types}
        data = {
            name: onnx.numpy_helper.from_array(self._values[name], name)
            for name in node.input
            if name in self._values
        }
        found: dict[str, Any] = self._inference.infer_node_outputs(
            schema, node, types, data, opset_imports=[self._opset]
        )
        return found


def _operations(node: Any, shapes: dict[str, Shape]) -> int:
    """Return 2 x output elements x length of each one's sum; 0 for other nodes."""
    if node.op_type not in PRODUCTS:
        return 0
    output, first = _known(node.output[0], shapes), _known(node.input[0], shapes)
    if node.op_type == 'Conv':
        return 2 * prod(output) * prod(_known(node.input[1], shapes)[1:])
    transposed = any(a.name == 'transA' and a.i for a in node.attribute)
    return 2 * prod(output) * first[-2 if transposed else -1]


def _known(name: str, shapes: dict[str, Shape]) -> Shape:
    shape = shapes.get(name, ())
    if not shape or not all(shape):
        raise BundleError(f'the shape of tensor {name} cannot be told from the graph: {shape}')
    return shape
