# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Outputs of frozen backbones on disk: bundles of one backbone run it once a picture."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ood_perception.bundle.store import Bundle
from ood_perception.engines.base import Engine
from ood_perception.engines.chain import ChainEngine
from ood_perception.engines.int8.ranges_file import INT8, quantization_path
from ood_perception.files import make_file, sha256_of


class SharedBackbone:
    """
    Keeps what a backbone gave for a picture, by graph, weights, quantisation, engine and input.

    What is read again is what was computed, to the bit. folder: a file of all outputs a picture
    and backbone (8 MB at 378 x 672 with three blocks of a ViT-S); it may be deleted at any time.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def attach(self, engine: Engine, bundle: Bundle) -> None:
        """Let an engine ask here first; one whose first stage is no backbone stays as it is."""
        stage = bundle.manifest.stages[0]
        if not isinstance(engine, ChainEngine) or not stage.external_data:
            return
        path = bundle.stage_path(stage)
        files = [path, path.resolve().parent / stage.external_data]
        if engine.description['precision'] == INT8:
            files.append(quantization_path(bundle))
        parts = [sha256_of(file) for file in files]
        mark = _digest(json.dumps([*parts, engine.description], sort_keys=True).encode())
        engine.first_stage = lambda feeds, compute: self._outputs(mark, feeds, compute)

    def _outputs(
        self, mark: str, feeds: Sequence[Any], compute: Callable[[], Sequence[Any]]
    ) -> list[Any]:
        content = b''.join(np.ascontiguousarray(feed).tobytes() for feed in feeds)
        path = self.folder / mark / f'{_digest(content)}.npz'
        if not path.is_file():
            outputs = [np.array(one) for one in compute()]
            make_file(path, lambda target: _write(target, outputs))
            return outputs
        with np.load(path) as found:
            return [found[f'arr_{place}'] for place in range(len(found.files))]


def _write(path: Path, outputs: Sequence[Any]) -> None:
    with path.open('wb') as file:  # a name would get a suffix
        np.savez(file, *outputs)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:24]
