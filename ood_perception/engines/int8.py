# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
int8 on the CPU: a float32 ONNX graph to one with Q/DQ pairs around its products with constant
weights, derived on the machine from what the bundle records (the trainer measured it, once).

Weights: int8 of 8 or 7 bits, symmetric, one scale per output channel. Biases, norms, softmax and
the products of attention stay as they are: the runtime chooses bf16 or float32 for them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ood_perception.bundle.manifest_json import read_as
from ood_perception.bundle.store import Bundle
from ood_perception.engines.cpu import REDUCED_BITS
from ood_perception.errors import BundleError, EngineError
from ood_perception.files import make_file

QUANTIZATION_NAME = 'quantization.json'
INT8 = 'int8'
REDUCED_RANGE = 'int8_reduced_range'  # int8 with weights of 7 bits: its entry in a manifest
VERSION = '1'  # of the derivation: part of the cache's key
# 'u8': asymmetric uint8, a bit more than symmetric where values have one sign (GELU); OpenVINO and
# ONNX Runtime. 'symmetric': int8 with zero point 0, the only form that TensorRT takes.
FORMS = ('u8', 'symmetric')
# Weights' bits -> largest |code|. 7 (reduced range): a pair of products with uint8 stays below
# 2 * 255 * 64 = 32640, so that it can be summed in int16.
LARGEST_CODE = {8: 127, 7: 64}
Array = NDArray[Any]
_MOVES = frozenset({'Reshape', 'Transpose'})


@dataclass(frozen=True)
class Quantization:
    """
    Static quantisation of the products with constant weights.

    ranges: input tensor of such products -> least and greatest value on in-distribution frames,
        after smoothing (mean over frames, which clips the rarest values).
    smoothing: tensor -> exponents k, one per channel: the channel is divided by 2^k where it is
        made and the weights that read it are multiplied by 2^k (SmoothQuant, Xiao et al. 2023,
        with powers of two, so that the float32 graph stays the same to the bit).
    kept: names of MatMul nodes that are not quantised, since that hurt when it was measured.
    """

    ranges: dict[str, tuple[float, float]]
    smoothing: dict[str, tuple[int, ...]] = field(default_factory=dict)
    kept: tuple[str, ...] = ()


def measured_as(precision: str, weight_bits: int) -> str:
    """Return under which name a manifest's `precisions` hold what a precision costs."""
    reduced = precision == INT8 and weight_bits == REDUCED_BITS
    return REDUCED_RANGE if reduced else precision


def read_quantization(path: Path) -> Quantization:
    """Read the facts; BundleError naming file and field where they cannot be read."""
    facts = read_as(Quantization, path)
    wrong = [name for name, (low, high) in facts.ranges.items() if not low < high]
    if wrong or not facts.ranges:
        raise BundleError(
            f'{path}: {f"range of {wrong[0]} is empty" if wrong else "no ranges"}; run `trainer '
            'quantize` again'
        )
    return facts


def write_quantization(path: Path, facts: Quantization) -> None:
    """Write the facts, whole or not at all; the same facts give the same bytes."""
    text = json.dumps(asdict(facts), sort_keys=True, separators=(',', ':'))
    # one tensor per line: a difference of two files can be read
    text = text.replace(',"/', ',\n"/').replace('},', '},\n') + '\n'
    make_file(path, lambda file: file.write_text(text, encoding='utf-8'))


def quantization_path(bundle: Bundle) -> Path:
    """Return the place of a bundle's facts; EngineError where it has none."""
    spec = bundle.manifest.precisions.get(INT8)
    if spec is None or not spec.file:
        raise EngineError(
            f'precision int8: bundle {bundle.manifest.name} holds no quantisation; run `trainer '
            'quantize` on it, or use auto'
        )
    return bundle.path(spec.file)


def arrays_of(model: Any) -> dict[str, Array]:
    """Return the initialisers of a graph as arrays by name."""
    from onnx.numpy_helper import to_array

    return {tensor.name: to_array(tensor) for tensor in model.graph.initializer}


def put_arrays(model: Any, arrays: Mapping[str, Array]) -> None:
    """Make named arrays, in their order, the initialisers of a graph."""
    from onnx.numpy_helper import from_array

    del model.graph.initializer[:]
    model.graph.initializer.extend(from_array(values, name) for name, values in arrays.items())


def linear_nodes(model: Any) -> list[Any]:
    """Return the MatMul nodes whose second input is a constant matrix (K, N), in graph order."""
    matrices = {tensor.name for tensor in model.graph.initializer if len(tensor.dims) == 2}
    return [
        node
        for node in model.graph.node
        if node.op_type == 'MatMul' and len(node.input) == 2 and node.input[1] in matrices
    ]


def quantised(model: Any, facts: Quantization, form: str = 'u8', weight_bits: int = 8) -> Any:
    """
    Return a copy of a float32 ModelProto (weights inside) with Q/DQ pairs; deterministic.

    form: one of FORMS. weight_bits: a key of LARGEST_CODE. Raises BundleError for facts of another
    graph.
    """
    if form not in FORMS:
        raise ValueError(f'form {form!r}: choose one of {", ".join(FORMS)}')
    import onnx

    result = deepcopy(model)
    _check(result, facts)
    smooth(result, facts.smoothing)
    chosen = [node for node in linear_nodes(result) if node.name not in facts.kept]
    tensors = arrays_of(result)
    places = {node.output[0] for node in chosen}  # nodes may be without a name
    nodes: list[Any] = []
    made: set[str] = set()
    for node in result.graph.node:
        if node.output[0] in places:
            nodes += _activation(tensors, node, facts, form, made)
            nodes += _weights(tensors, node, weight_bits, made)
        nodes.append(node)
    put_arrays(result, tensors)
    copies = deepcopy(nodes)
    del result.graph.node[:]
    result.graph.node.extend(copies)
    del result.graph.value_info[:]
    onnx.checker.check_model(result)
    return result


def scale_and_zero(low: float, high: float, form: str) -> tuple[np.float32, Array]:
    """
    Return scale and zero point that hold [low, high] and 0.

    'u8': scale (high - low) / 255, zero point uint8. 'symmetric': max |value| / 127, int8 0.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    if form == 'symmetric':
        return np.float32(max(-low, high) / 127), np.array(0, np.int8)
    scale = np.float32((high - low) / 255)
    return scale, np.array(np.clip(np.rint(-low / scale), 0, 255), np.uint8)


def weight_codes(weights: Array, bits: int = 8) -> tuple[Array, Array]:
    """Return int8 codes (K, N), symmetric, and scales (N,) of weights; bits: of LARGEST_CODE."""
    largest = LARGEST_CODE[bits]
    scales = (np.abs(weights).max(axis=0) / largest).astype(np.float32)
    scales[scales == 0] = 1
    return np.clip(np.rint(weights / scales), -largest, largest).astype(np.int8), scales


def _check(model: Any, facts: Quantization) -> None:
    linear = linear_nodes(model)
    read = {node.input[0] for node in linear if node.name not in facts.kept}
    names = {node.name for node in linear}
    foreign = sorted(set(facts.kept) - names) or sorted(read - set(facts.ranges))
    if foreign or not read:
        raise BundleError(
            f'quantisation and backbone do not belong together ({foreign[:1] or "no products"}): '
            'run `trainer quantize` on this bundle again'
        )


def _activation(
    tensors: dict[str, Array], node: Any, facts: Quantization, form: str, made: set[str]
) -> list[Any]:
    """Let the node read its input through a Q/DQ pair; return the nodes that are new."""
    from onnx.helper import make_node

    name = node.input[0]
    node.input[0] = f'{name}/dequantised'
    if name in made:
        return []
    made.add(name)
    scale, zero = scale_and_zero(*facts.ranges[name], form)
    tensors[f'{name}/scale'], tensors[f'{name}/zero'] = np.array(scale), zero
    sides = [f'{name}/scale', f'{name}/zero']
    return [
        make_node('QuantizeLinear', [name, *sides], [f'{name}/quantised'], f'{name}/quantise'),
        _dequantize(f'{name}/quantised', name, sides),
    ]


def _weights(tensors: dict[str, Array], node: Any, bits: int, made: set[str]) -> list[Any]:
    """Let the node read its weights as int8 codes; return the nodes that are new."""
    name = node.input[1]
    node.input[1] = f'{name}/dequantised'
    if name in made:
        return []
    made.add(name)
    codes, scales = weight_codes(tensors.pop(name), bits)
    sides = [f'{name}/scale', f'{name}/zero']
    tensors[f'{name}/codes'], tensors[sides[0]] = codes, scales
    tensors[sides[1]] = np.zeros(scales.shape, np.int8)
    return [_dequantize(f'{name}/codes', name, sides, axis=1)]


def _dequantize(source: str, name: str, sides: Sequence[str], **attributes: int) -> Any:
    """Return the node that makes <name>/dequantised of codes; sides: scale and zero point."""
    from onnx.helper import make_node

    inputs, outputs = [source, *sides], [f'{name}/dequantised']
    return make_node('DequantizeLinear', inputs, outputs, f'{name}/dequantise', **attributes)


def smooth(model: Any, smoothing: Mapping[str, Sequence[int]]) -> None:
    """
    Divide channels of the named tensors by 2^k and multiply what reads them, in place.

    SmoothQuant (Xiao et al., 2023), X W = (X / s) (s W) per channel: the spread of channels goes
    from activations into weights, where each channel may have it. The division goes into what
    makes X: a LayerNorm's scale and shift, or the value projection in front of an attention. The
    graph computes the same: division by a power of two is exact. Raises BundleError for a
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
