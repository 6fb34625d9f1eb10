# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Move the spread of channels from activations into weights, where each channel may have it.

SmoothQuant (Xiao et al., 2023): X W = (X / s) (s W) per channel. The division goes into what
makes X: a LayerNorm's scale and shift, or the value projection in front of an attention.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ood_perception.errors import BundleError

Array = NDArray[Any]
_MOVES = frozenset({'Reshape', 'Transpose'})


def arrays_of(model: Any) -> dict[str, Array]:
    """Return the initialisers of a graph as arrays by name."""
    from onnx.numpy_helper import to_array

    return {tensor.name: to_array(tensor) for tensor in model.graph.initializer}


def put_arrays(model: Any, arrays: Mapping[str, Array]) -> None:
    """Make named arrays, in their order, the initialisers of a graph."""
    from onnx.numpy_helper import from_array

    del model.graph.initializer[:]
    model.graph.initializer.extend(from_array(values, name) for name, values in arrays.items())


def smooth(model: Any, smoothing: Mapping[str, Sequence[int]]) -> None:
    """
    Divide channels of the named tensors by 2^k and multiply what reads them, in place.

    The graph computes the same: division by a power of two is exact. Raises BundleError for a
    tensor that is not there, cannot be divided where it is made, or has other readers.
    """
    tensors = arrays_of(model)
    for name, exponents in smoothing.items():
        scale = np.exp2(np.array(exponents, np.float32))
        divided = smoothable(model, name)
        readers = [node for node in model.graph.node if name in node.input]
        if not divided or any(tensors[part].shape[-1] != len(scale) for part in divided):
            raise BundleError(
                f'smoothing of {name} does not fit the backbone: run `trainer quantize` on this '
                'bundle again'
            )
        for part in divided:
            tensors[part] = tensors[part] / scale
        for weights in dict.fromkeys(node.input[1] for node in readers if node.op_type != 'Shape'):
            tensors[weights] = tensors[weights] * scale[:, None]
    put_arrays(model, tensors)


def smoothable(model: Any, name: str) -> tuple[str, ...]:
    """
    Return the initialisers to divide so that a tensor's last axis is divided, () where none do.

    Every reader must be a product with a constant matrix (or ask for the shape alone), and nothing
    else may read what is divided.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:
        product = node.op_type == 'MatMul' and node.input[1] in constants
        if name in node.input and not (product or node.op_type == 'Shape'):
            return ()
    makers = {output: node for node in model.graph.node for output in node.output}
    maker = makers.get(name)
    if maker is not None and maker.op_type == 'LayerNormalization':
        parts = tuple(part for part in maker.input[1:3] if part in constants)
    else:
        parts = _value_projection(makers, constants, name)
    readers = [part for node in model.graph.node for part in node.input if part in parts]
    return parts if len(readers) == len(parts) else ()


def _value_projection(
    makers: Mapping[str, Any], constants: set[str], name: str
) -> tuple[str, ...]:
    """Return weights and bias of the projection whose heads an attention mixed into `name`."""
    node = _behind_moves(makers, name)
    if node is None or node.op_type != 'MatMul' or node.input[1] in constants:
        return ()
    node = _behind_moves(makers, node.input[1])  # softmax times values: the values
    parts: tuple[str, ...] = ()
    if node is not None and node.op_type == 'Add':
        parts = tuple(part for part in node.input if part in constants)
        rest = [part for part in node.input if part not in constants]
        node = makers.get(rest[0]) if len(parts) == len(rest) == 1 else None
    if node is None or node.op_type != 'MatMul' or node.input[1] not in constants:
        return ()
    return (node.input[1], *parts)


def _behind_moves(makers: Mapping[str, Any], name: str) -> Any:
    node = makers.get(name)
    while node is not None and node.op_type in _MOVES:
        node = makers.get(node.input[0])
    return node
