# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Cut a head's graph: to fewer classes, since a static graph pays for every class that it holds, or
without its search of nearest references (cDNP), for an index's engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ood_perception.engines.graphs.precision_types import prune
from ood_perception.errors import BundleError
from ood_perception.types import Float32Array

CLASS_SURPRISAL = 'surprisal_of_{}'
EXCLUDED = 1e4  # added to the surprisal of a class that does not count as normal


def slice_head(
    path: Path, keep: Sequence[int], surprisal: str = 'surprisal', labels: str = 'labels'
) -> bytes:
    """
    Return the ONNX bytes of a head that holds only some of its classes.

    path: head.onnx, whose graph names the per-class maps surprisal_of_<i>, float32 (B, gh, gw).
    keep: indices into its compiled classes, at least one; in_distribution becomes (len(keep),).
    surprisal, labels: names of its outputs.

    Raises BundleError for a head with no per-class maps.
    """
    import onnx

    model = onnx.load(str(path))
    names = [CLASS_SURPRISAL.format(index) for index in keep]
    made = {name for node in model.graph.node for name in node.output}
    missing = [name for name in (*names, labels) if name not in made]
    if missing:
        raise BundleError(
            f'{path} has no tensor {missing[0]}: its head was packed without a class choice; pack '
            'it again with selection min'
        )
    for node in [node for node in model.graph.node if surprisal in node.output]:
        model.graph.node.remove(node)
    _choose(onnx, model, names, surprisal)
    prune(model)
    del model.graph.value_info[:]
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _choose(onnx: Any, model: Any, names: Sequence[str], surprisal: str) -> None:
    """Append surprisal = min over classes of (surprisal_of_i + EXCLUDED (1 - choice_i))."""
    graph = model.graph
    prefix = 'sliced/'
    constants = {
        f'{prefix}one': np.array(1, np.float32),
        f'{prefix}excluded': np.array(EXCLUDED, np.float32),
        f'{prefix}column': np.array([1, len(names), 1, 1], np.int64),
        f'{prefix}axis': np.array([1], np.int64),
    }
    graph.initializer.extend(onnx.numpy_helper.from_array(v, k) for k, v in constants.items())
    node = onnx.helper.make_node
    planes = [f'{prefix}plane_{i}' for i in range(len(names))]
    axis, one = f'{prefix}axis', f'{prefix}one'
    graph.node.extend(
        node('Unsqueeze', [name, axis], [plane]) for name, plane in zip(names, planes, strict=True)
    )
    graph.node.extend(
        [
            node('Concat', planes, [f'{prefix}stacked'], axis=1),
            node('Sub', [one, 'in_distribution'], [f'{prefix}out']),
            node('Mul', [f'{prefix}out', f'{prefix}excluded'], [f'{prefix}penalty']),
            node('Reshape', [f'{prefix}penalty', f'{prefix}column'], [f'{prefix}penalties']),
            node('Add', [f'{prefix}stacked', f'{prefix}penalties'], [f'{prefix}chosen']),
            node('ReduceMin', [f'{prefix}chosen', axis], [surprisal], keepdims=0),
        ]
    )
    for value in graph.input:
        if value.name == 'in_distribution':
            value.type.tensor_type.shape.dim[0].dim_value = len(names)


SCOPE = '/search/'  # the exporter names nodes after modules: this is HEAD.search


@dataclass(frozen=True, eq=False)
class Search:
    """
    One search of nearest references, as it stood in the graph.

    feature: the head's input that is searched, float32 (B, gh, gw, D). distance: the tensor that
    the search gave, (B, gh, gw): the mean Euclidean distance to the k nearest references, and the
    mean of that over `heads` equal parts of the D columns.
    center: float32 (D,), taken off features; references: float32 (N, D), without the centre.
    """

    feature: str
    distance: str
    grid: tuple[int, int]
    k: int
    heads: int
    center: Float32Array
    references: Float32Array


def cut_searches(model: Any) -> tuple[Search, ...]:
    """
    Turn every search of a head's ModelProto into an input of its distance, in place.

    Returns the searches in the order of the graph, () where it has none. Raises BundleError for a
    search that is not of the form that the trainer writes.
    """
    import onnx

    graph = model.graph
    scopes = dict.fromkeys(_scope(node.name) for node in graph.node if SCOPE in node.name)
    searches = tuple(_Reader(model, scope).search() for scope in scopes)
    if not searches:
        return ()
    kept = [node for node in graph.node if SCOPE not in node.name]
    del graph.node[:]
    graph.node.extend(kept)
    make, float32 = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    for search in searches:
        graph.input.append(make(search.distance, float32, ['batch', *search.grid]))
    prune(model)
    read = {name for node in graph.node for name in node.input}
    for value in [one for one in graph.input if one.name not in read]:
        graph.input.remove(value)
    del graph.value_info[:]
    return searches


def _scope(name: str) -> str:
    return name[: name.index(SCOPE) + len(SCOPE)]


class _Reader:
    """What one scope of a graph computes."""

    def __init__(self, model: Any, scope: str) -> None:
        self._graph, self._scope = model.graph, scope
        self._makers = {name: node for node in model.graph.node for name in node.output}
        self._weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self._nodes = [node for node in model.graph.node if node.name.startswith(scope)]

    def search(self) -> Search:
        """Return the search of the scope."""
        first, products = self._of_kind('Sub')[0], self._of_kind('MatMul')
        shape, last = self._of_kind('Reshape')[-1], self._of_kind('TopK')[-1]
        center = self._value(first.input[1])
        pieces = [-0.5 * self._value(node.input[1]).T for node in products]
        heads = center.size // pieces[0].shape[1]
        grid = tuple(int(side) for side in self._value(shape.input[1])[1:])
        return Search(
            self._graph_input(first.input[0]), self._outgoing(), (grid[0], grid[1]),
            int(self._value(last.input[1]).item()), heads, center.ravel().astype(np.float32),
            _joined(pieces, heads),
        )  # fmt: skip

    def _of_kind(self, kind: str) -> list[Any]:
        found = [node for node in self._nodes if node.op_type == kind]
        if not found:
            raise self._foreign(f'no {kind}')
        return found

    def _value(self, name: str) -> np.ndarray[Any, Any]:
        """Return a constant's values in float32 or int64, through the casts that hold it."""
        from onnx.numpy_helper import to_array

        if name in self._weights:
            values: np.ndarray[Any, Any] = to_array(self._weights[name])
            return values.astype(np.float32) if values.dtype == np.float16 else values
        maker = self._makers.get(name)
        kind = maker.op_type if maker is not None else ''
        if maker is not None and kind == 'Cast':
            return self._value(maker.input[0])
        if maker is not None and kind == 'Constant' and maker.attribute[0].name == 'value':
            return np.asarray(to_array(maker.attribute[0].t))
        raise self._foreign(f'{name} is no constant')

    def _graph_input(self, name: str) -> str:
        """Return the graph's input that a tensor is a cast of."""
        while name in self._makers and self._makers[name].op_type in ('Cast', 'Identity'):
            name = self._makers[name].input[0]
        if name not in {value.name for value in self._graph.input}:
            raise self._foreign(f'it searches {name}, which is no input')
        return name

    def _outgoing(self) -> str:
        """Return the one tensor of the scope that others read."""
        made = {name for node in self._nodes for name in node.output}
        others = [node for node in self._graph.node if not node.name.startswith(self._scope)]
        (*rest, name) = [one for node in others for one in node.input if one in made] or ['']
        if not name or set(rest) - {name}:
            raise self._foreign('it gives more or less than a distance')
        return str(name)

    def _foreign(self, reason: str) -> BundleError:
        return BundleError(f'the search {self._scope} cannot be taken out: {reason}; pack again')


def _joined(pieces: Sequence[np.ndarray[Any, Any]], heads: int) -> Float32Array:
    """Return (N, D) of pieces (n, D / heads), those of one head after the other."""
    count = len(pieces) // heads
    parts = [np.concatenate(pieces[h * count : (h + 1) * count]) for h in range(heads)]
    return np.ascontiguousarray(np.concatenate(parts, 1), np.float32)
