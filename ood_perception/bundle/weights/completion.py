# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Complete a bundle whose weights are not ours to ship.

weights.map.json says which bytes of the origin file become which tensor of the external data, so
numpy is enough: no torch, no protobuf.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ood_perception.bundle.manifest_json import read_as
from ood_perception.bundle.store import Bundle
from ood_perception.bundle.weights.origin_rules import check_origin
from ood_perception.bundle.weights.origins import locate_origin
from ood_perception.errors import BundleError
from ood_perception.files import cache_root, locked, make_file, sha256_of, sweep
from ood_perception.types import JsonDict, Tell

MAP_NAME = 'weights.map.json'
# Between tensors there is room for their alignment, and no more.
_WIDEST_GAP = 4096
_MOST_AXES = 8
__all__ = ['MAP_NAME', 'complete', 'locate_origin']


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
    result = read_as(WeightsMap, path)
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


def complete(
    bundle: Bundle, source: str | Path | None = None, progress: Tell | None = None
) -> Bundle:
    """
    Return the bundle with its external weights in place; the same bundle where none are missing.

    They are written once into the cache, beside a copy of the graph that names them, whole or
    not at all, and checked against the sha256 in the map.
    source, progress: see origins.locate_origin. Raises BundleError naming the remedy.
    """
    missing = bundle.missing_weights
    if not missing:
        return bundle
    content = _map_of(bundle)
    target = content.target
    folder = cache_root() / 'completed' / f'{target.sha256[:16]}-{bundle.sha256[:16]}'
    kept = _weights(content, source, progress)
    with locked(folder):
        sweep(folder)
        data = folder / target.file
        if not (data.is_file() and data.samefile(kept)) and not _is_target(data, content):
            make_file(data, lambda file: _link(kept, file))
        for stage in missing:
            _place_graph(bundle, stage.file, folder)
    return dataclasses.replace(bundle, stage_root=folder)


def _weights(content: WeightsMap, source: str | Path | None, progress: Tell | None) -> Path:
    """Return the completed external data, kept once for all bundles that share it."""
    kept = cache_root() / 'completed' / content.target.sha256[:32] / 'weights'
    with locked(kept):
        sweep(kept.parent)
        if not _is_target(kept, content):
            origin = locate_origin(content.origin, source, progress)
            make_file(kept, lambda file: _write(file, content, origin))
    return kept


def _is_target(path: Path, content: WeightsMap) -> bool:
    return path.is_file() and sha256_of(path) == content.target.sha256


def _link(kept: Path, file: Path) -> None:
    """Make `file` the same file as `kept`; a copy where the file system knows no hard links."""
    file.unlink()
    try:
        os.link(kept, file)
    except OSError:
        shutil.copyfile(kept, file)


def _map_of(bundle: Bundle) -> WeightsMap:
    """Read the map that fills what is missing; its checksum is the manifest's."""
    wanted = {stage.external_data for stage in bundle.missing_weights}
    names = ', '.join(sorted(wanted))
    if MAP_NAME not in bundle.manifest.files:
        raise BundleError(
            f'bundle {bundle.root} lacks {names} and has no {MAP_NAME} to complete it from: copy '
            'the whole bundle again'
        )
    path = bundle.path(MAP_NAME)
    content = read_map(path)
    if wanted != {content.target.file}:
        raise BundleError(
            f'{path} fills {content.target.file}, missing is {names}: pack the bundle again'
        )
    return content


def _place_graph(bundle: Bundle, name: str, folder: Path) -> None:
    """Put the graph beside its weights, where runtimes look for them."""
    place = folder / name
    if not (place.is_file() and sha256_of(place) == bundle.manifest.files[name].sha256):
        make_file(place, lambda file: shutil.copyfile(bundle.path(name), file))


def _write(file: Path, content: WeightsMap, origin: Path) -> None:
    """Write the external data; BundleError when it is not what the map declares."""
    source = np.memmap(origin, dtype=np.uint8, mode='r')
    target = content.target
    with file.open('wb') as out:
        out.truncate(target.size)
        for place in content.tensors:
            out.seek(place.offset)
            out.write(_tensor(source, place, origin).tobytes())
    found = sha256_of(file)
    if found != target.sha256:
        raise BundleError(
            f'{target.file} completed from {origin} has sha256 {found}, expected '
            f'{target.sha256}: bundle and weights do not belong together'
        )


def _tensor(source: Any, place: TensorPlace, origin: Path) -> Any:
    """Return one tensor of the target, float32 little-endian."""
    start, size = place.source_offset, place.size
    if start < 0 or start + size > source.size:
        raise BundleError(
            f'{MAP_NAME}: tensor {place.name} ({size} bytes at {start}) lies outside {origin} '
            f'({source.size} bytes); copy the bundle again'
        )
    array = np.frombuffer(source[start : start + size].tobytes(), '<f4').reshape(
        place.source_shape
    )
    return np.ascontiguousarray(array.T if place.transpose else array)
