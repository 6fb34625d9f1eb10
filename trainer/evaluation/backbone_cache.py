# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Outputs of frozen backbones on disk: bundles of one backbone run it once a picture."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ood_perception.bundle.store import Bundle
from ood_perception.engines.base import Engine
from ood_perception.engines.chain import ChainEngine
from ood_perception.engines.int8.ranges_file import INT8, quantization_path
from ood_perception.files import make_file, sha256_of

from ..artifacts import digest


def share_backbone(engine: Engine, bundle: Bundle, folder: Path) -> None:
    """
    Let an engine keep what its backbone gave, by graph, weights, quantisation, engine and input.

    What is read again is what was computed, to the bit. An engine whose first stage is no backbone
    stays as it is. folder: a file of all outputs a picture and backbone (8 MB at 378 x 672 with
    three blocks of a ViT-S); it may be deleted at any time.
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
    content = b''.join(np.ascontiguousarray(feed).tobytes() for feed in feeds)
    path = folder / f'{hashlib.sha256(content).hexdigest()[:24]}.npz'
    if path.is_file():
        with np.load(path) as found:
            return [found[f'arr_{place}'] for place in range(len(found.files))]
    outputs = [np.array(one) for one in compute()]

    def write(target: Path) -> None:
        with target.open('wb') as file:  # a name would get a suffix
            np.savez(file, *outputs)

    make_file(path, write)
    return outputs
