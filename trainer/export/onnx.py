# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""From torch modules to the ONNX stages of a bundle: stable names, external weights, opset 18."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import nn

from ood_perception.bundle.manifest import StageSpec
from ood_perception.engines.graphs.head_cuts import CLASS_SURPRISAL
from ood_perception.errors import ConfigError

from ..head_module import HeadModule

OPSET = 18
ALIGNMENT = 64
EXTERNAL_BYTES = 4096  # smaller tensors stay inside the graph
BACKBONE_DATA = 'backbone.data'
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class ExportedStages:
    """
    The stages as written to a folder.

    stages: for the manifest. external: name, byte offset in backbone.data and float32 values of
    every tensor that lies outside the graph, in the order of the file.
    """

    stages: tuple[StageSpec, ...]
    external: tuple[tuple[str, int, Array], ...]


def export_stages(
    backbone: nn.Module,
    head: HeadModule,
    folder: Path,
    size: tuple[int, int],
    weights: str = 'f16',
    movable: Callable[[dict[str, Array]], Collection[str]] | None = None,
) -> ExportedStages:
    """
    Write backbone.onnx, backbone.data, where the head has one decoder.onnx, and head.onnx.

    backbone: Backbone.baked(h, w, layers): uint8 (B, h, w, 3) -> tokens of head.layers, in order.
    size: (h, w). weights: 'f16' stores the head's tensors that float16 holds exactly as float16
    (all of them, where the head was built with half_weights), 'f32' stores all as float32.
    movable: picks, from name -> values of the backbone's large tensors, those that go to
    backbone.data; None takes all.
    """
    if weights not in ('f16', 'f32'):
        raise ConfigError(f'weights is {weights!r}, expected f16 or f32')
    folder.mkdir(parents=True, exist_ok=True)
    image = torch.zeros((2, *size, 3), dtype=torch.uint8)
    body = to_onnx(backbone, (image,), ('image',), head.layers)
    external = move_weights(body, folder / BACKBONE_DATA, movable)
    save(body, folder / 'backbone.onnx')
    with torch.no_grad():
        tokens = backbone(image)
    stages = [StageSpec('backbone', 'backbone.onnx', ('image',), head.layers, BACKBONE_DATA, True)]
    if head.decoder is not None:
        output = head.head_inputs[0]
        middle = to_onnx(head.decoder, tuple(tokens), head.layers, (output,))
        save(middle, folder / 'decoder.onnx')
        stages.append(StageSpec('decoder', 'decoder.onnx', head.layers, (output,), '', True))
    top = head_to_onnx(head, tokens)
    if weights == 'f16':
        store_half(top)
    save(top, folder / 'head.onnx')
    head_inputs = (*(head.head_inputs or head.layers), 'in_distribution')
    stages.append(StageSpec('head', 'head.onnx', head_inputs, ('surprisal', 'labels')))
    return ExportedStages(tuple(stages), external)


class _AllOutputs(nn.Module):
    """The head with its per-class surprisal as outputs, so that the exporter names them."""

    def __init__(self, head: HeadModule) -> None:
        super().__init__()
        self.head = head

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.head.top(*inputs)


def head_to_onnx(head: HeadModule, tokens: Sequence[torch.Tensor]) -> Any:
    """
    Return a head's ModelProto with the contract's names and a free batch axis.

    The surprisal of compiled class i stays inside the graph under the name surprisal_of_<i>, so
    that a runtime can cut the graph down to other classes.
    """
    with torch.no_grad():
        between = dict(zip(head.layers, tokens, strict=True))
        if head.decoder is not None:
            between[head.head_inputs[0]] = head.decoder(*tokens)
        read = head.head_inputs or head.layers
        inputs = (*(between[name] for name in read), torch.ones(len(head.compiled_classes)))
        count = len(head.top(*inputs)) - 2
    outputs = ['surprisal', 'labels', *(CLASS_SURPRISAL.format(i) for i in range(count))]
    names = (*read, 'in_distribution')
    model = to_onnx(_AllOutputs(head), inputs, names, outputs, fixed=('in_distribution',))
    model.graph.value_info.extend(model.graph.output[2:])
    del model.graph.output[2:]
    return model


def to_onnx(
    module: nn.Module,
    inputs: tuple[torch.Tensor, ...],
    input_names: Sequence[str],
    output_names: Sequence[str],
    fixed: Sequence[str] = (),
) -> Any:
    """Return the ModelProto of a module; the first axis is free, but for the names in `fixed`."""
    free = [name for name in (*input_names, *output_names) if name not in fixed]
    file = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        # shapes become constants on purpose, and the tracing exporter is chosen on purpose: it
        # names nodes after modules, the same way in every run
        warnings.simplefilter('ignore')
        torch.onnx.export(
            module.eval(),
            inputs,
            file,
            input_names=list(input_names),
            output_names=list(output_names),
            dynamic_axes={name: {0: 'batch'} for name in free},
            opset_version=OPSET,
            dynamo=False,
        )
    model = onnx.load_from_string(file.getvalue())
    _name_weights(model)
    _declare_inputs(model, inputs, input_names, fixed)
    onnx.checker.check_model(model)
    return model


def _name_weights(model: Any) -> None:
    """Give anonymous initialisers the names of the nodes that read them first."""
    readers: dict[str, str] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, node.name.strip('/').replace('/', '.'))
    taken = {initializer.name for initializer in model.graph.initializer}
    renamed = {}
    for initializer in model.graph.initializer:
        if initializer.name.startswith('onnx::'):
            new = f'{readers[initializer.name]}.weight'
            while new in taken:
                new += '_'
            taken.add(new)
            renamed[initializer.name] = new
            initializer.name = new
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            if name in renamed:
                node.input[place] = renamed[name]


def _declare_inputs(
    model: Any, inputs: Sequence[torch.Tensor], names: Sequence[str], fixed: Sequence[str]
) -> None:
    """Restore inputs that the exporter dropped because no node reads them (contract)."""
    present = {value.name for value in model.graph.input}
    for tensor, name in zip(inputs, names, strict=True):
        if name not in present:
            shape: list[int | str] = list(tensor.shape)
            if name not in fixed:
                shape[0] = 'batch'
            kind = onnx.TensorProto.FLOAT
            model.graph.input.append(onnx.helper.make_tensor_value_info(name, kind, shape))


def move_weights(
    model: Any, path: Path, movable: Callable[[dict[str, Array]], Collection[str]] | None = None
) -> tuple[tuple[str, int, Array], ...]:
    """
    Move large float32 initialisers to a raw file beside the graph, in the order of the graph.

    movable: see export_stages.
    Returns (name, byte offset, values) per moved tensor; gaps (to ALIGNMENT) hold zeros.
    """
    floats = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
    arrays = {t.name: onnx.numpy_helper.to_array(t).astype('<f4') for t in floats}
    arrays = {name: values for name, values in arrays.items() if values.nbytes >= EXTERNAL_BYTES}
    chosen = arrays if movable is None else movable(arrays)
    moved = []
    offset = 0
    with open(path, 'wb') as file:
        for tensor in model.graph.initializer:
            if tensor.name not in chosen:
                continue
            values = arrays[tensor.name]
            file.write(b'\0' * (offset - file.tell()))
            file.write(values.tobytes())
            onnx.external_data_helper.set_external_data(tensor, path.name, offset, values.nbytes)
            tensor.ClearField('raw_data')
            moved.append((tensor.name, offset, values))
            offset = -(-(offset + values.nbytes) // ALIGNMENT) * ALIGNMENT
    return tuple(moved)


def store_half(model: Any) -> None:
    """Store matrices that float16 holds exactly as float16, with a Cast to float32 behind."""
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or len(tensor.dims) < 2:
            continue
        values = onnx.numpy_helper.to_array(tensor)
        with np.errstate(over='ignore'):
            half = values.astype(np.float16)
        if values.size < 256 or not np.array_equal(half.astype(np.float32), values):
            continue
        name = tensor.name
        tensor.CopyFrom(onnx.numpy_helper.from_array(half, f'{name}.half'))
        casts.append(
            onnx.helper.make_node(
                'Cast', [f'{name}.half'], [name], f'{name}.cast', to=onnx.TensorProto.FLOAT
            )
        )
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*casts, *nodes])


def save(model: Any, path: Path) -> None:
    """Write a ModelProto; the same model gives the same bytes."""
    path.write_bytes(model.SerializeToString(deterministic=True))
