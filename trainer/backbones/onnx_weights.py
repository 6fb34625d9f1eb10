# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Where tensors lie in a file of weights, so that a bundle can name them instead of carrying them.

The weights of an exported ONNX graph's MatMuls are anonymous and transposed: they take their names
from the nodes that read them.
"""

from __future__ import annotations

import hashlib
import json
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ood_perception.errors import DataError

from .weight_names import Array, common_name

TORCH_SUFFIXES = ('.pt', '.pth')
_POSITION_CLS = 'embeddings.position_embeddings.cls'
_POSITION_PATCH = 'embeddings.position_embeddings.patch'


@dataclass(frozen=True)
class SourceTensor:
    """
    Where one tensor of the common layout lies in the file it comes from.

    name: in the common layout ('' where the layout has no use for it). offset: of the raw
    little-endian float32 data in the file, in bytes. shape: in the file. transpose: the common
    layout holds its transpose.
    """

    name: str
    offset: int
    shape: tuple[int, ...]
    transpose: bool


def tensors_of_onnx(path: Path) -> dict[str, Array]:
    """
    Return the named tensors of an exported ViT: name -> float32 array as torch holds them.

    Anonymous initialisers are named after the node that reads them: a MatMul's weight becomes
    the (transposed) weight of its Linear; the class token's and the patches' position embeddings,
    which the exporter separated, are joined again.
    """
    raw = path.read_bytes()
    tensors: dict[str, Array] = {}
    for source in source_tensors(path, raw):
        count = int(np.prod(source.shape))
        array = np.frombuffer(raw, '<f4', count, source.offset).reshape(source.shape)
        tensors[source.name] = array.T if source.transpose else array
    parts = [tensors.pop(name) for name in (_POSITION_CLS, _POSITION_PATCH) if name in tensors]
    if parts:
        tensors['embeddings.position_embeddings'] = np.concatenate(parts, axis=1)
    return tensors


def source_tensors(path: Path, raw: bytes | None = None) -> list[SourceTensor]:
    """
    List where each float32 tensor of a .onnx, .safetensors or torch file lies.

    raw: the file's bytes where they are in memory already. Names are in the common layout.
    """
    raw = path.read_bytes() if raw is None else raw
    if path.suffix == '.onnx':
        return _sources_of_onnx(raw)
    if path.suffix in TORCH_SUFFIXES:
        return _sources_of_torch(path, raw)
    length = int.from_bytes(raw[:8], 'little')
    header = json.loads(raw[8 : 8 + length])
    return [
        SourceTensor(
            common_name(name), 8 + length + e['data_offsets'][0], tuple(e['shape']), False
        )
        for name, e in header.items()
        if name != '__metadata__' and e['dtype'] == 'F32'
    ]


def _sources_of_onnx(raw: bytes) -> list[SourceTensor]:
    """Name an ONNX graph's initialisers and find their data, in the order of the file."""
    import onnx

    graph = onnx.load_from_string(raw).graph
    readers = {name: node for node in graph.node for name in node.input}
    sources, start = [], 0
    for initializer in graph.initializer:
        data = initializer.raw_data
        if initializer.data_type != onnx.TensorProto.FLOAT or len(data) < 64:
            continue
        offset = _only_place(raw, data, start, initializer.name)
        start = offset + len(data)
        name, transpose = _name_of(initializer.name, readers[initializer.name])
        if name:
            shape = tuple(initializer.dims)
            sources.append(SourceTensor(name, offset, shape, transpose))
    return sources


def load_torch(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a file of torch.save by name; DataError for anything else in it."""
    try:
        state = torch.load(path, map_location='cpu', weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise DataError(f'{path} is no file of torch tensors ({error}); give another') from error
    if not isinstance(state, dict) or not all(torch.is_tensor(v) for v in state.values()):
        raise DataError(f'{path} holds more than tensors by name; save its state_dict alone')
    return state


def _sources_of_torch(path: Path, raw: bytes) -> list[SourceTensor]:
    """Find the tensors' data, which torch keeps raw, with the axes in the order of the file."""
    sources = []
    for name, value in load_torch(path).items():
        if value.dtype == torch.float32 and value.nbytes >= 64:
            order = sorted(range(value.ndim), key=lambda axis: -value.stride()[axis])
            stored = value.permute(order).numpy()
            offset = _only_place(raw, stored.tobytes(), 0, name)
            sources.append(SourceTensor(name, offset, stored.shape, False))
    return sources


def _only_place(raw: bytes, data: bytes, start: int, name: str) -> int:
    """
    Return where `data` lies at or after `start`.

    Initialisers are stored one after the other, so the first match behind the last one is it;
    equal tensors have equal bytes, so any match would complete the same weights.
    """
    offset = raw.find(data, start)
    if offset < 0:
        raise DataError(f'the data of tensor {name} is not stored in one piece')
    return offset


def _name_of(name: str, node: Any) -> tuple[str, bool]:
    """Return an initialiser's name in the common layout ('' = not the backbone's), transposed?"""
    if not name.startswith('onnx::'):
        return (common_name(name), False) if name.startswith('backbone.') else ('', False)
    parts = node.name.strip('/').split('/')
    if node.op_type == 'MatMul' and parts[0] == 'backbone':
        return common_name('.'.join([*parts[:-1], 'weight'])), True
    if node.op_type == 'Concat' and 'embeddings' in parts:
        return _POSITION_CLS, False
    if node.op_type == 'Reshape' and 'embeddings' in parts:
        return _POSITION_PATCH, False
    return '', False


def weights_map(path: Path, arrays: dict[str, Array]) -> dict[str, dict[str, Any]]:
    """
    Find exported tensors in the file that their weights come from, by content.

    path: the origin, see source_tensors. arrays: name in the exported graph -> float32 array.

    Returns for each array that the file holds, as it is or with all axes turned: source_offset,
    source_shape, transpose, dtype (the entries of weights.map.json; see the manifest).
    """
    raw = path.read_bytes()
    known: dict[tuple[tuple[int, ...], bytes], tuple[SourceTensor, bool]] = {}
    for source in source_tensors(path, raw):
        count = int(np.prod(source.shape))
        array = np.frombuffer(raw, '<f4', count, source.offset).reshape(source.shape)
        known[_identity(array)] = (source, False)
        if array.ndim >= 2:
            known.setdefault(_identity(array.T), (source, True))
    found = {}
    for name, array in arrays.items():
        if _identity(array) in known:
            source, transpose = known[_identity(array)]
            found[name] = {
                'source_offset': source.offset,
                'source_shape': list(source.shape),
                'transpose': transpose,
                'dtype': 'float32',
            }
    return found


def _identity(array: Array) -> tuple[tuple[int, ...], bytes]:
    """Return shape and digest of an array's float32 values."""
    data = np.ascontiguousarray(array, dtype='<f4')
    return tuple(array.shape), hashlib.sha256(data.data).digest()
