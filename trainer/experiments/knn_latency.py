# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Time of the exact search over the number of references, and of faiss beside it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ood_perception.evaluation.results import write_json

from ..export import to_onnx
from ..heads.knn_search import NearestReferences
from .scoring import latency_ms
from .table_run import setting

if TYPE_CHECKING:
    from .knn_rows import KnnTableConfig

LOG = logging.getLogger(__name__)
SIZES = (1_000, 3_000, 10_000, 30_000, 100_000, 300_000)
WIDTH = 384
LISTS, PROBES = 256, 8  # of faiss's inverted file


def measure_latency(config: KnnTableConfig, threads: int = 1) -> dict[str, Any]:
    """Return ms a frame per runtime and number; kept as latency.json in the table's folder."""
    height, width = config.recipe.view.height // 14, config.recipe.view.width // 14
    rng = np.random.default_rng(0)
    tokens = rng.normal(size=(1, height, width, WIDTH)).astype(np.float32)
    record: dict[str, Any] = {'setting': {**setting(), 'threads': threads}, 'ms': {}}
    record |= {'tokens': height * width, 'width': WIDTH, 'k': config.recipe.knn.k}
    for size in SIZES:
        references = rng.normal(size=(size, WIDTH)).astype(np.float32)
        calls = _calls(references, tokens, config.recipe.knn.k, threads)
        record['ms'][size] = {name: latency_ms(call, 5) for name, call in calls.items()}
        LOG.info('%d references: %s', size, record['ms'][size])
    write_json(config.folder / 'latency.json', record)
    return record


def _calls(
    references: np.ndarray[Any, Any], tokens: np.ndarray[Any, Any], k: int, threads: int
) -> dict[str, Callable[[], object]]:
    """Return one search of a frame's tokens per way to do it."""
    module = NearestReferences(torch.from_numpy(references), k)
    frame = torch.from_numpy(tokens)
    calls: dict[str, Callable[[], object]] = {'torch': lambda: module(frame)}
    graph = to_onnx(module, (frame,), ('keys',), ('distance',)).SerializeToString()
    try:
        import openvino

        core = openvino.Core()
        options = {'INFERENCE_NUM_THREADS': threads, 'INFERENCE_PRECISION_HINT': 'f32'}
        compiled = core.compile_model(core.read_model(graph), 'CPU', options)
        calls['OpenVINO'] = lambda: compiled([tokens])
    except ImportError:
        LOG.info('openvino is not installed: not measured')
    return calls | _faiss_calls(references, tokens.reshape(-1, tokens.shape[-1]), k, threads)


def _faiss_calls(
    references: np.ndarray[Any, Any], queries: np.ndarray[Any, Any], k: int, threads: int
) -> dict[str, Callable[[], object]]:
    try:
        import faiss
    except ImportError:
        LOG.info('faiss-cpu is not installed: not measured')
        return {}
    faiss.omp_set_num_threads(threads)
    flat = faiss.IndexFlatL2(references.shape[1])
    flat.add(references)
    quantiser = faiss.IndexFlatL2(references.shape[1])
    lists = faiss.IndexIVFFlat(quantiser, references.shape[1], LISTS)
    lists.train(references[:20_000])
    lists.add(references)
    lists.nprobe = PROBES
    return {
        'faiss, exact': lambda: flat.search(queries, k),
        f'faiss, {PROBES} of {LISTS} lists': lambda: lists.search(queries, k),
    }
