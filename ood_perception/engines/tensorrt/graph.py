# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""One typed ONNX graph of all stages: reduced backbone, float32 head, a Cast between."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from ood_perception.bundle.manifest import StageSpec
from ood_perception.engines.graphs.precision_types import HALF_TYPES, prune, read_model, to_half
from ood_perception.engines.plan import Plan
from ood_perception.errors import BundleError, EngineError

PRECISIONS = ('f32', 'fp16', 'bf16', 'int8')
EXTERNAL_FROM = 1024  # bytes from which a tensor lies in the file beside the graph


def fused_model(plan: Plan, precision: str, backbone: Any = None) -> Any:
    """
    Return one ModelProto: image uint8 (B, h, w, 3), in_distribution -> surprisal, labels.

    precision: of the stages that allow a reduced one; 'int8' needs `backbone`.
    backbone: a typed ModelProto with the backbone's inputs and outputs (8-bit, for instance),
        taken as it is instead of the bundle's. Its outputs may be half; the head gets float32.

    Raises EngineError for an unknown precision, BundleError for stages that cannot be joined.
    """
    if precision not in PRECISIONS:
        raise EngineError(f'precision {precision!r}: use {", ".join(PRECISIONS)}')
    if precision == 'int8' and backbone is None:
        raise EngineError('precision int8 needs an 8-bit backbone graph: pack one, or use fp16')
    models = []
    for stage, source in zip(plan.stages, plan.models, strict=True):
        if backbone is not None and stage.name == 'backbone':
            models.append(deepcopy(backbone))
            continue
        model = read_model(source)
        reduced = precision in HALF_TYPES and stage.reduced_precision
        models.append(to_half(model, precision) if reduced else model)
    joined = _join(plan.stages, models, (plan.head.surprisal, plan.head.labels))
    _check_first_consumers(joined)
    return joined


def write_model(model: Any, folder: Path) -> Path:
    """
    Write model.onnx and its weights model.data into `folder`; the same model, same bytes.

    The model is emptied of what went to model.data, since two copies may not fit into memory.
    """
    from onnx.external_data_helper import set_external_data

    path = folder / 'model.onnx'
    with (folder / 'model.data').open('wb') as data:
        for tensor in model.graph.initializer:
            if len(tensor.raw_data) < EXTERNAL_FROM:
                continue
            offset = -(-data.tell() // 64) * 64
            data.seek(offset)
            data.write(tensor.raw_data)
            set_external_data(tensor, 'model.data', offset, len(tensor.raw_data))
            tensor.ClearField('raw_data')
    path.write_bytes(model.SerializeToString(deterministic=True))
    return path


def _join(stages: Sequence[StageSpec], models: Sequence[Any], outputs: tuple[str, str]) -> Any:
    """Chain the graphs by tensor name; names inside a stage get its name in front."""
    import onnx

    models = _same_opset(models)
    joined = onnx.ModelProto(ir_version=max(m.ir_version for m in models))
    joined.opset_import.extend(models[0].opset_import)
    joined.graph.name = 'fused'
    made: dict[str, int] = {}  # tensor between stages -> its element type
    for stage, model in zip(stages, models, strict=True):
        types = {v.name: v.type.tensor_type.elem_type for v in model.graph.input}
        # names inside a stage; what stages join by stays
        model = onnx.compose.add_prefix(
            model, f'{stage.name}/', rename_inputs=False, rename_outputs=False, inplace=True
        )
        for name in stage.inputs:
            if name in made and made[name] != types[name]:
                _cast_input(model.graph, name, types[name], stage.name)
        joined.graph.node.extend(model.graph.node)
        joined.graph.initializer.extend(model.graph.initializer)
        known = {value.name for value in joined.graph.input}
        fresh = [v for v in model.graph.input if v.name not in known | set(made)]
        joined.graph.input.extend(fresh)
        for value in model.graph.output:
            made[value.name] = value.type.tensor_type.elem_type
            if value.name in outputs:
                joined.graph.output.append(value)
    missing = set(outputs) - {value.name for value in joined.graph.output}
    if missing:
        raise BundleError(f'no stage makes {", ".join(sorted(missing))}: pack the bundle again')
    prune(joined)
    return joined


def _same_opset(models: Sequence[Any]) -> list[Any]:
    """Return the models with the highest default opset among them."""
    from onnx.version_converter import convert_version

    default = ('', 'ai.onnx')
    versions = [next(o.version for o in m.opset_import if o.domain in default) for m in models]
    highest = max(versions)
    try:
        return [
            model if have == highest else convert_version(model, highest)
            for model, have in zip(models, versions, strict=True)
        ]
    except Exception as error:
        raise BundleError(f'stages of opsets {versions} cannot be joined: {error}') from error


def _cast_input(graph: Any, name: str, to: int, stage: str) -> None:
    """Let the nodes of a stage read an earlier stage's output in the type that they expect."""
    from onnx.helper import make_node

    wanted = f'{stage}/{name}/cast'
    for node in graph.node:
        node.input[:] = [wanted if old == name else old for old in node.input]
    cast = make_node('Cast', [name], [wanted], f'cast/{wanted}', to=to)
    graph.node.insert(0, cast)


def _check_first_consumers(model: Any) -> None:
    """TensorRT takes uint8 into nothing but a Cast."""
    for node in model.graph.node:
        if 'image' in node.input and node.op_type not in ('Cast', 'Shape'):
            raise BundleError(
                f'node {node.name} ({node.op_type}) reads the uint8 image, TensorRT allows that '
                'to Cast alone: export the backbone again'
            )
