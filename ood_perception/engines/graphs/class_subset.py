# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Cut a head's graph down to fewer classes, since a static graph pays for every class it holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ood_perception.engines.graphs.precision_types import prune
from ood_perception.errors import BundleError

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
