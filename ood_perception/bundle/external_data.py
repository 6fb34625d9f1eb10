# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Graphs may refer to one file beside them, the one that the manifest names for their stage."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ood_perception.bundle.manifest import Manifest, StageSpec
from ood_perception.errors import BundleError


def check_external_data(root: Path, manifest: Manifest) -> None:
    """
    Raise BundleError for a graph with tensors in a file that no checksum covers.

    root: the bundle's folder. A runtime reads whatever place a tensor names, so every tensor is
    looked at, wherever it hides: initializers, attributes, inner graphs, functions.
    """
    for stage in manifest.stages:
        spec = manifest.files.get(stage.external_data)
        for tensor in external_tensors(root / stage.file):
            _check_place(tensor, stage, spec.size if spec else None, root / stage.file)


def external_tensors(path: Path) -> Iterator[Any]:
    """
    Yield the TensorProtos of an ONNX file that keep their data elsewhere.

    Raises BundleError for what is no ONNX file, and for a tensor with its values in several
    places: each runtime may read others than were looked at.
    """
    import onnx
    from google.protobuf.message import DecodeError

    model = onnx.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except (OSError, DecodeError, RecursionError) as error:
        raise BundleError(f'{path} is no ONNX graph ({error}): copy the bundle again') from error
    for message in _messages(model):
        if not isinstance(message, onnx.TensorProto):
            continue
        kept = sum(field.name.endswith('_data') for field, _ in message.ListFields())
        if kept > 1:
            raise BundleError(
                f'{path}: tensor {message.name!r} has its values in {kept} places; refused'
            )
        if message.external_data or message.data_location == onnx.TensorProto.EXTERNAL:
            yield message


def _messages(message: Any) -> Iterator[Any]:
    """Yield a protobuf message and all that lie in it."""
    waiting = [message]
    while waiting:
        one = waiting.pop()
        yield one
        for field, value in one.ListFields():
            if field.message_type is not None:
                repeated = not hasattr(value, 'ListFields')
                waiting.extend(value if repeated else [value])


def _check_place(tensor: Any, stage: StageSpec, size: int | None, path: Path) -> None:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get('location', '')
    if not location or location != stage.external_data or '/' in stage.file + location:
        raise BundleError(
            f'{path}: tensor {tensor.name!r} lies in {location!r}, the manifest names '
            f'{stage.external_data!r} for it: a file without a checksum is not read; refused'
        )
    numbers = [entries.get(key, '0') for key in ('offset', 'length')]
    plain = all(text.isascii() and text.isdecimal() and len(text) < 19 for text in numbers)
    if not plain or (size is not None and _end(tensor, *map(int, numbers)) > size):
        raise BundleError(
            f'{path}: tensor {tensor.name!r} lies at {numbers} of {location} of {size} bytes; '
            'pack the bundle again'
        )


def _end(tensor: Any, offset: int, length: int) -> int:
    """Return the byte behind a tensor's data; without a length they are as many as its shape."""
    from onnx import helper

    try:
        width = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    except KeyError:  # of no type: graph_rules refuses it
        width = 1
    return offset + (length or math.prod(tensor.dims) * width)
