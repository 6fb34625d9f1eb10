# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""weights.map.json: which bytes of a named file become which tensor of the external data."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from ood_perception.bundle.manifest_json import build
from ood_perception.bundle.weights.origin_rules import check_origin
from ood_perception.errors import BundleError
from ood_perception.json_files import read_json
from ood_perception.types import JsonDict

MAP_NAME = 'weights.map.json'
# Between tensors there is room for their alignment, and no more.
_WIDEST_GAP = 4096
_MOST_AXES = 8


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
        value = read_json(path)
    except (OSError, ValueError) as error:
        raise BundleError(f'{path} cannot be read ({error}): copy the bundle again') from error
    result = build(WeightsMap, value, str(path))
    check_origin(result.origin, str(path))
    if not re.fullmatch('[0-9a-f]{64}', result.target.sha256):
        raise BundleError(f'{path}: {result.target.sha256!r} is no sha256; pack the bundle again')
    for tensor in result.tensors:
        _check_tensor(tensor, result.target, path)
    _check_size(result, path)
    return result


def _check_size(content: WeightsMap, path: Path) -> None:
    """Refuse a target that is larger than its tensors, or tensors that multiply the origin."""
    filled = sum(tensor.size for tensor in content.tensors)
    most = min(2 * content.origin['size'], content.target.size)
    if filled > most or content.target.size > filled + _WIDEST_GAP * (len(content.tensors) + 1):
        raise BundleError(
            f'{path}: {len(content.tensors)} tensors of {filled} bytes do not fill '
            f'{content.target.size} bytes out of {content.origin["size"]}; pack the bundle again'
        )


def _check_tensor(tensor: TensorPlace, target: Target, path: Path) -> None:
    order = -1 if tensor.transpose else 1
    fits = 0 <= tensor.offset <= target.size - tensor.size and min(tensor.shape, default=1) > 0
    fits = fits and len(tensor.shape) <= _MOST_AXES
    if tensor.dtype != 'float32' or tensor.source_shape[::order] != tensor.shape or not fits:
        raise BundleError(
            f'{path}: tensor {tensor.name} ({tensor.dtype}, {tensor.source_shape} to '
            f'{tensor.shape} at {tensor.offset}) does not fit {target.file}; pack the bundle again'
        )
