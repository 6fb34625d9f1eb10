# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Floating-point operations of a stage's matrix products, counted in its ONNX graph."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ood_perception.errors import BundleError, required

Shape = tuple[int, ...]
SMALL = 4096  # elements: what shapes are computed from is never larger


def count_flops(model: Path | bytes, batch: int = 1) -> float:
    """
    Return the operations of all MatMul, Gemm and Conv nodes, a multiply-add counting two.

    model: an ONNX file (its external data is not read) or a graph's bytes. batch: images at once.

    Raises DependencyError without onnx, BundleError where a shape cannot be told.
    """
    onnx = required('onnx', "operations are counted with onnx: pip install 'onnx>=1.16'")
    if isinstance(model, bytes):
        proto = onnx.load_from_string(model)
    else:
        proto = onnx.load(str(model), load_external_data=False)
    shapes = _Shapes(proto, batch)
    return float(sum(_operations(node, shapes.after(node)) for node in proto.graph.node))


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

    def after(self, node: Any) -> dict[str, Shape]:
        """Take the next node in; return the shapes of its inputs and outputs by name."""
        values = self._folded(node)
        if values is not None:
            for name, value in zip(node.output, values, strict=True):
                self._values[name] = value
                kind = self._onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
                self._types[name] = self._onnx.helper.make_tensor_type_proto(kind, value.shape)
        else:
            self._types.update(self._inferred(node))
        names = [name for name in (*node.input, *node.output) if name in self._types]
        return {name: self._shape(name) for name in names}

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
    if node.op_type not in ('MatMul', 'Gemm', 'Conv'):
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
