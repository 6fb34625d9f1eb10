# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""OpenVINO with the search of nearest references (cDNP) in faiss's inverted lists."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from ood_perception.bundle.manifest import StageSpec
from ood_perception.bundle.store import Bundle
from ood_perception.engines.base import EngineOptions
from ood_perception.engines.graphs.head_cuts import Search, cut_searches
from ood_perception.engines.graphs.precision_types import read_model
from ood_perception.engines.openvino import OpenVinoEngine
from ood_perception.engines.plan import Plan
from ood_perception.errors import BundleError, required
from ood_perception.requirements import install_command
from ood_perception.types import Float32Array

FEWEST = 4096  # references; fewer are searched one by one, as fast
LISTS_PER_ROOT = 2.56  # lists per square root of the references: 256 for 10 000
FEWEST_PER_LIST = 39  # what faiss asks for to place a list
PROBED = 8  # one list in so many is searched


class NeighbourIndex:
    """
    The mean distance to the k nearest references, by an index of each attention head's part.

    exact: search all references; else inverted lists, one in eight of which is searched: on
    CamVid's keys they find the true neighbours of 99 % of the patches (docs/heads/knn.md).
    threads: 0 = all.
    """

    def __init__(self, faiss: Any, search: Search, exact: bool, threads: int = 0) -> None:
        self._faiss, self._search, self._exact = faiss, search, exact
        self._threads = threads or faiss.omp_get_max_threads()
        width = len(search.center) // search.heads
        self._parts = [slice(h * width, (h + 1) * width) for h in range(search.heads)]
        faiss.omp_set_num_threads(self._threads)
        self._indices = [self._index(search.references[:, part]) for part in self._parts]

    def _index(self, references: Float32Array) -> Any:
        count, width = references.shape
        values = np.ascontiguousarray(references)
        plain = self._faiss.IndexFlatL2(width)
        if self._exact or count < FEWEST:
            plain.add(values)
            return plain
        lists = min(round(LISTS_PER_ROOT * math.sqrt(count)), count // FEWEST_PER_LIST)
        index = self._faiss.IndexIVFFlat(plain, width, lists)
        index.train(values)
        index.add(values)
        index.nprobe = max(1, lists // PROBED)
        return index

    def distances(self, features: Float32Array) -> Float32Array:
        """Return float32 (B, gh, gw) of features float32 (B, gh, gw, D)."""
        self._faiss.omp_set_num_threads(self._threads)  # faiss keeps it per calling thread
        flat = np.asarray(features, np.float32).reshape(-1, len(self._search.center))
        flat = flat - self._search.center
        parts = [
            self._mean(index, np.ascontiguousarray(flat[:, part]))
            for index, part in zip(self._indices, self._parts, strict=True)
        ]
        mean: Float32Array = np.stack(parts).mean(0, keepdims=True)
        return mean.reshape(features.shape[:3])

    def _mean(self, index: Any, queries: Float32Array) -> Float32Array:
        squared, _ = index.search(queries, self._search.k)
        few = squared[:, -1] > np.finfo(np.float32).max / 2  # lists with fewer than k references
        if few.any():
            every = self._faiss.SearchParametersIVF(nprobe=index.nlist)
            squared[few], _ = index.search(queries[few], self._search.k, params=every)
        return np.asarray(np.sqrt(np.maximum(squared, 0)).mean(1), np.float32)


class FaissEngine(OpenVinoEngine):
    """
    OpenVINO for backbone and head, faiss for the search between them, as stages of their own.

    Precision f32 searches exactly, as all of f32 keeps the tightest bounds on the golden vectors.
    In less, the index is inverted lists, faster and inexact, and the bounds of that precision hold
    for the whole. BundleError for a head that searches nothing.
    """

    name: ClassVar[str] = 'faiss'

    def __init__(self, bundle: Bundle, options: EngineOptions) -> None:
        """Compile; DependencyError without faiss, else as OpenVinoEngine."""
        remedy = f'engine faiss needs its package: {install_command("faiss")}'
        self._faiss = required('faiss', remedy)
        super().__init__(bundle, options)

    @property
    def description(self) -> dict[str, str]:
        version = f'{self._faiss.__version__}, OpenVINO {self._version}'
        return {**super().description, 'runtime': 'faiss', 'version': version}

    def _planned(self, plan: Plan) -> Plan:
        place = next(i for i, s in enumerate(plan.stages) if plan.head.surprisal in s.outputs)
        stage, source = plan.stages[place], plan.models[place]
        model = read_model(source)
        searches = cut_searches(model)
        if not searches:
            raise BundleError(  # no other precision would help, as after an EngineError
                f'engine faiss: head {plan.head.name} searches no references; use openvino'
            )
        self._searches = {f'search_{i}' if i else 'search': s for i, s in enumerate(searches)}
        found = [
            StageSpec(name, stage.file, (search.feature,), (search.distance,))
            for name, search in self._searches.items()
        ]
        read = {value.name for value in model.graph.input}
        inputs = [name for name in stage.inputs if name in read]
        head = replace(stage, inputs=(*inputs, *(s.distance for s in searches)))
        data: bytes = model.SerializeToString(deterministic=True)
        stages, models = list(plan.stages), list(plan.models)
        stages[place : place + 1] = [*found, head]
        models[place : place + 1] = [*[source for _ in found], data]
        return replace(plan, stages=tuple(stages), models=tuple(models))

    def _compile(self, stage: StageSpec, model: Any) -> Any:
        if stage.name in self._searches:
            search, exact = self._searches[stage.name], self._precision == 'f32'
            return NeighbourIndex(self._faiss, search, exact, self.options.threads)
        return super()._compile(stage, model)

    def _infer(self, compiled: Any, feeds: Sequence[Any]) -> Sequence[Any]:
        if isinstance(compiled, NeighbourIndex):
            return [compiled.distances(feeds[0])]
        return super()._infer(compiled, feeds)
