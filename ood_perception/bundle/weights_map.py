# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""weights.map.json: which bytes of a named file become which tensor of the external data."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path

from ood_perception.bundle.reading import build
from ood_perception.errors import BundleError
from ood_perception.types import JsonDict

MAP_NAME = 'weights.map.json'
_ORIGIN_FIELDS = {'kind': str, 'file': str, 'sha256': str, 'size': int}


@dataclass(frozen=True)
class Target:
    """The external data file that is completed: name inside the bundle, sha256, bytes."""

    file: str
    sha256: str
    size: int


@dataclass(frozen=True)
class TensorPlace:
    """
    One float32 tensor, little-endian.

    offset, shape: in the target. source_offset, source_shape: in the origin; transpose: it is
    stored there with its two axes exchanged.
    """

    name: str
    offset: int
    shape: tuple[int, ...]
    source_offset: int
    source_shape: tuple[int, ...]
    transpose: bool = False
    dtype: str = 'float32'

    @property
    def size(self) -> int:
        """Return its bytes."""
        return 4 * math.prod(self.shape)


@dataclass(frozen=True)
class WeightsMap:
    """origin: see origins.locate_origin. tensors: bytes of the target beside them are 0."""

    origin: JsonDict
    target: Target
    tensors: tuple[TensorPlace, ...]


def read_map(path: Path) -> WeightsMap:
    """Read and check a weights.map.json; BundleError naming file, field and remedy."""
    try:
        value = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise BundleError(f'{path} cannot be read ({error}): copy the bundle again') from error
    result = build(WeightsMap, value, str(path))
    for name, kind in _ORIGIN_FIELDS.items():
        if not isinstance(result.origin.get(name), kind):
            raise BundleError(f'{path}: origin has no {name} ({kind.__name__}); pack it again')
    for sha256 in (result.origin['sha256'], result.target.sha256):
        if not re.fullmatch('[0-9a-f]{64}', sha256):
            raise BundleError(f'{path}: {sha256!r} is no sha256; pack the bundle again')
    for tensor in result.tensors:
        _check_tensor(tensor, result.target, path)
    return result


def _check_tensor(tensor: TensorPlace, target: Target, path: Path) -> None:
    order = -1 if tensor.transpose else 1
    fits = 0 <= tensor.offset <= target.size - tensor.size and min(tensor.shape, default=1) > 0
    if tensor.dtype != 'float32' or tensor.source_shape[::order] != tensor.shape or not fits:
        raise BundleError(
            f'{path}: tensor {tensor.name} ({tensor.dtype}, {tensor.source_shape} to '
            f'{tensor.shape} at {tensor.offset}) does not fit {target.file}; pack the bundle again'
        )
