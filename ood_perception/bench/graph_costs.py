# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What a graph computes and moves: operations and bytes of every node, told from its shapes."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from ood_perception.bundle.graph_rules import Sizes
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

    Raises DependencyError without onnx, BundleError for what bundle.graph_rules does not accept.
    """
    onnx = required('onnx', "operations are counted with onnx: pip install 'onnx>=1.16'")
    if isinstance(model, bytes):
        proto, place = onnx.load_from_string(model), 'a graph'
    else:
        proto, place = onnx.load(str(model), load_external_data=False), str(model)
    sizes = Sizes(proto, place, _inputs(proto.graph, batch), batch)
    # small constants, and what follows from them and from shapes alone: folded by every runtime
    known = {one.name for one in proto.graph.initializer if prod(one.dims) <= SMALL}
    found = []
    for node in proto.graph.node:
        sizes.follow(node)
        if sizes.is_computed(node) or known.issuperset(filter(None, node.input)):
            known.update(node.output)
        elif node.op_type not in _FREE:
            names = [name for name in (*node.input, *node.output) if name]
            found.append(_cost(node, {name: sizes.shape(name) for name in names}))
    return found


def _inputs(graph: Any, batch: int) -> dict[str, Any]:
    """Return the types of a graph's inputs, a free number of images made `batch`."""
    for value in graph.input:
        dims = value.type.tensor_type.shape.dim
        if len(dims) and dims[0].dim_param:
            dims[0].dim_value = batch
    return {value.name: value.type for value in graph.input}


def count_flops(model: Path | bytes, batch: int = 1) -> float:
    """Return the operations of all MatMul, Gemm and Conv nodes; see node_costs."""
    return float(sum(node.operations for node in node_costs(model, batch)))


def _cost(node: Any, shapes: dict[str, Shape]) -> NodeCost:
    elements = sum(prod(shapes.get(name, ())) for name in (*node.input, *node.output) if name)
    groups = next((a.i for a in node.attribute if a.name == 'group'), 1)
    depthwise = node.op_type == 'Conv' and groups > 1 and _known(node.input[1], shapes)[1] == 1
    return NodeCost(node.name, node.op_type, _operations(node, shapes), depthwise, elements)


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
