# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What an evaluation has an engine do beside: share its backbone's outputs, count one view."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ood_perception.bundle.store import Bundle
from ood_perception.engines.base import Engine
from ood_perception.engines.chain import ChainEngine
from ood_perception.engines.int8 import INT8, quantization_path
from ood_perception.errors import ConfigError
from ood_perception.files import make_file, sha256_of
from ood_perception.types import EngineOutput

from ..artifacts import digest


def count_one_view(engine: Engine, name: str) -> None:
    """
    Let the scores of one further view count alone: those of the others are 0 from now on.

    The labels stay the whole image's, and with them the region of interest. Raises ConfigError
    for a view that the bundle does not have.
    """
    names = ['', *(view.name for view in engine.manifest.input.views)]
    if name not in names:
        raise ConfigError(f'{engine.manifest.name} has no view {name!r}; it has {names[1:]}')
    compute, place = engine.run, names.index(name)

    def run(images: Any, chosen: Any) -> EngineOutput:
        output = compute(images, chosen)
        counts = np.arange(len(output.surprisal)) % len(names) == place
        return replace(output, surprisal=output.surprisal * counts[:, None, None])

    engine.run = run  # type: ignore[method-assign]


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
