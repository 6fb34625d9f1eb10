# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Outputs of frozen backbones on disk: bundles of one backbone run it once an image."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ood_perception.bundle.store import Bundle
from ood_perception.engines.base import Engine
from ood_perception.engines.chain import ChainEngine
from ood_perception.engines.int8 import INT8, quantization_path
from ood_perception.files import make_file, sha256_of

from ..artifacts import digest


def share_backbone(engine: Engine, bundle: Bundle, folder: Path) -> None:
    """
    Let an engine keep what its backbone gave, by graph, weights, quantisation, engine and input.

    What is read again is what was computed, to the bit; every image of a batch, such as a further
    view of a frame, is found again alone. An engine whose first stage is no backbone stays as it
    is. folder: a file of all outputs an image and backbone (8 MB at 378 x 672 with three blocks of
    a ViT-S); it may be deleted at any time.
    """
    stage = bundle.manifest.stages[0]
    if not isinstance(engine, ChainEngine) or not stage.external_data:
        return
    path = bundle.stage_path(stage)
    files = [path, path.resolve().parent / stage.external_data]
    if engine.description['precision'] == INT8:
        files.append(quantization_path(bundle))
    own = folder / digest([*(sha256_of(file) for file in files), engine.description])[:24]
    engine.first_stage = lambda feeds, compute: _outputs(own, feeds, compute)


def _outputs(
    folder: Path, feeds: Sequence[Any], compute: Callable[[], Sequence[Any]]
) -> list[Any]:
    """Return the backbone's outputs for a batch, each (B, ...); feeds: its images, one array."""
    (images,) = feeds
    paths = [folder / f'{_name(image)}.npz' for image in images]
    if not all(path.is_file() for path in paths):
        computed = [np.array(one) for one in compute()]
        for place, path in enumerate(paths):
            if not path.is_file():
                make_file(path, partial(_write, [one[place : place + 1] for one in computed]))
    kept = [_read(path) for path in paths]
    return [np.concatenate(parts) for parts in zip(*kept, strict=True)]


def _name(image: Any) -> str:
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()[:24]


def _write(outputs: list[Any], target: Path) -> None:
    with target.open('wb') as file:  # a name would get a suffix
        np.savez(file, *outputs)


def _read(path: Path) -> list[Any]:
    with np.load(path) as found:
        return [found[f'arr_{place}'] for place in range(len(found.files))]
