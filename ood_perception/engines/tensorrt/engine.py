# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""TensorRT 10, 11 or for RTX: all stages in one engine on an NVIDIA GPU."""

from __future__ import annotations

import logging
import time

import numpy as np

from ood_perception.bundle.store import Bundle
from ood_perception.engines.base import EngineOptions
from ood_perception.engines.plan import PlannedEngine, plan_for
from ood_perception.engines.tensorrt.cuda import load_cuda, require_gpu
from ood_perception.engines.tensorrt.engine_cache import Request, require_engine
from ood_perception.engines.tensorrt.execution import Execution
from ood_perception.engines.tensorrt.graph import PRECISIONS
from ood_perception.engines.tensorrt.module import BuildOptions, load_tensorrt
from ood_perception.errors import EngineError
from ood_perception.types import EngineOutput, Float32Array, UInt8Array

_LOG = logging.getLogger(__name__)


class TensorRtEngine(PlannedEngine):
    """
    One fused engine: reduced backbone, float32 head, copies and kernels on one stream.

    Batches up to EngineOptions.max_batch run at once, larger ones in pieces.
    """

    def __init__(self, bundle: Bundle, options: EngineOptions) -> None:
        """
        Load the engine from the cache, or build it where the options allow.

        Raises DependencyError without TensorRT or cuda-python; EngineError without a driver or
        GPU, for a missing engine, or one of another GPU or version.
        """
        super().__init__(bundle, options)
        self._precision = chosen_precision(options.precision)
        trt = load_tensorrt()
        cuda = load_cuda()
        # First of all: some TensorRT runtimes end the process where there is no driver.
        self._device, gpu = require_gpu(cuda)
        self._gpu, self._version = gpu, f'{trt.name} {trt.version}'
        self._plan = plan_for(bundle, options)
        build = BuildOptions(options.max_batch, gpu if trt.is_rtx else '')
        request = Request(bundle, self._plan, self._precision, gpu, build)
        kept = require_engine(trt, request, options.build, _LOG.info)
        head = self._plan.head
        kernels = kept.path.with_suffix('.kernels')
        self._execution: Execution | None = Execution(
            trt,
            cuda,
            kept.blob,
            (head.surprisal, head.labels),
            kernels,
            host_code=bool(kept.facts.get('options', {}).get('version_compatible')),
        )

    @property
    def description(self) -> dict[str, str]:
        return {
            'runtime': 'tensorrt',
            'version': self._version,
            'device': f'{self._device} (compute capability {self._gpu})',
            'precision': self._precision,
        }

    def _run(self, image: UInt8Array, in_distribution: Float32Array) -> EngineOutput:
        execution = self._execution
        if execution is None:
            raise EngineError('TensorRtEngine was closed: create a new engine')
        start = time.perf_counter()
        vector = in_distribution.view(np.uint8)
        pieces = []
        for first in range(0, len(image), execution.max_batch):
            piece = image[first : first + execution.max_batch]
            values = {'image': piece.reshape(-1), 'in_distribution': vector}
            pieces.append(self._maps(execution.run(values, len(piece)), len(piece)))
        surprisal = np.concatenate([piece[0] for piece in pieces])
        labels = np.concatenate([piece[1] for piece in pieces])
        elapsed = (time.perf_counter() - start) * 1e3
        return EngineOutput(surprisal, labels, {'all stages': elapsed})

    def _maps(self, outputs: dict[str, UInt8Array], batch: int) -> tuple[Float32Array, UInt8Array]:
        head = self._plan.head
        surprisal = outputs[head.surprisal].view(np.float32)
        shape = (batch, *self.manifest.input.grid(head.upsampling))
        return surprisal.reshape(shape), outputs[head.labels].reshape(shape)

    def close(self) -> None:
        execution, self._execution = self._execution, None
        if execution is not None:
            execution.close()


def chosen_precision(precision: str) -> str:
    """Return the precision of the backbone; 'auto' is fp16. EngineError for an unknown one."""
    if precision not in ('auto', *PRECISIONS):
        raise EngineError(f'precision {precision!r}: use auto, {", ".join(PRECISIONS)}')
    return 'fp16' if precision == 'auto' else precision
