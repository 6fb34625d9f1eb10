# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime on the CPU, f32 or int8: the second engine, and the check on the first."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ood_perception.bundle.manifest import StageSpec
from ood_perception.bundle.store import Bundle
from ood_perception.engines.base import EngineOptions
from ood_perception.engines.chain import ChainEngine, frame_by_frame
from ood_perception.engines.cpu import Int8Products, onnxruntime_int8
from ood_perception.errors import required
from ood_perception.requirements import install_command


class OnnxRuntimeEngine(ChainEngine):
    """One session per stage; int8: products with weights in int8, everything else in float32."""

    name: ClassVar[str] = 'onnxruntime'
    precisions: ClassVar[tuple[str, ...]] = ('f32', 'int8')

    def __init__(self, bundle: Bundle, options: EngineOptions) -> None:
        """Compile; DependencyError without ONNX Runtime, else as ChainEngine."""
        self._runtime = _onnxruntime()
        self._threads = options.threads or len(os.sched_getaffinity(0))
        self._pool: ThreadPoolExecutor | None = None
        if options.mode == 'throughput':
            self._pool = ThreadPoolExecutor(self._threads, 'onnxruntime')
        super().__init__(bundle, options)

    @classmethod
    def int8_products(cls) -> Int8Products:
        _onnxruntime()
        return onnxruntime_int8()

    @property
    def description(self) -> dict[str, str]:
        return {
            'runtime': 'onnxruntime',
            'version': str(self._runtime.__version__),
            'device': 'CPU',
            **self.precision_facts,
        }

    def _compile(self, stage: StageSpec, model: Any) -> Any:
        options = self._runtime.SessionOptions()
        options.log_severity_level = 3
        if self._pool is not None:
            options.intra_op_num_threads = 1
        elif self.options.threads:
            options.intra_op_num_threads = self.options.threads
        if self.options.pin_threads and self._pool is None and self._threads > 1:
            options.intra_op_num_threads = self._threads
            options.add_session_config_entry('session.intra_op_thread_affinities', self._cores())
        source = str(model) if isinstance(model, Path) else model
        session = self._runtime.InferenceSession(
            source, options, providers=['CPUExecutionProvider']
        )
        return session, stage

    def _infer(self, compiled: Any, feeds: Sequence[Any]) -> Sequence[Any]:
        session, stage = compiled
        run = partial(session.run, list(stage.outputs))
        if self._pool is None or len(feeds[0]) == 1:
            outputs: Sequence[Any] = run(dict(zip(stage.inputs, feeds, strict=True)))
            return outputs
        parts = list(self._pool.map(run, frame_by_frame(stage, feeds)))
        return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]

    def _cores(self) -> str:
        """Return a core for each thread but the caller's, as ONNX Runtime counts them, from 1."""
        cores = sorted(os.sched_getaffinity(0))
        return ';'.join(str(cores[i % len(cores)] + 1) for i in range(1, self._threads))

    def close(self) -> None:
        super().close()
        if self._pool is not None:
            self._pool.shutdown()


def _onnxruntime() -> Any:
    remedy = f'engine onnxruntime needs its package: {install_command("onnxruntime")}'
    return required('onnxruntime', remedy)
