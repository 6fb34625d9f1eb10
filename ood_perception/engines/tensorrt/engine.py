# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""TensorRT 10, 11 or for RTX: all stages in one engine on an NVIDIA GPU."""

from __future__ import annotations

import dataclasses
import logging
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ood_perception.bundle.store import Bundle
from ood_perception.engines import cache as compiled_cache
from ood_perception.engines.base import EngineOptions
from ood_perception.engines.graphs.precision_types import read_model
from ood_perception.engines.int8 import quantised, quantization_path, read_quantization
from ood_perception.engines.plan import Plan, PlannedEngine, plan_for
from ood_perception.engines.tensorrt.build import build_engine
from ood_perception.engines.tensorrt.cuda import load_cuda, require_gpu
from ood_perception.engines.tensorrt.execution import Execution
from ood_perception.engines.tensorrt.graph import PRECISIONS, fused_model, write_model
from ood_perception.engines.tensorrt.module import BuildOptions, TensorRt, load_tensorrt
from ood_perception.errors import EngineError
from ood_perception.files import cache_root
from ood_perception.types import EngineOutput, Float32Array, JsonDict, Tell, UInt8Array

GRAPH_REVISION = '1'  # raise it when the same bundle gives another typed graph


@dataclass(frozen=True)
class Request:
    """What engine is wanted; gpu: compute capability, such as '8.9', here or named."""

    bundle: Bundle
    plan: Plan
    precision: str
    gpu: str
    options: BuildOptions


@dataclass(frozen=True)
class KeptEngine:
    """blob: the serialised engine. facts: how it was built. path: its file. built: just now."""

    blob: bytes
    facts: JsonDict
    path: Path
    built: bool


def engine_key(trt: TensorRt, request: Request) -> dict[str, str]:
    """Return everything that the engine depends on."""
    options, version = request.options, trt.version
    return {
        'kind': 'tensorrt engine',
        'bundle': request.bundle.sha256,
        'graph': GRAPH_REVISION,
        'runtime': trt.name,
        'version': f'{version.split(".")[0]}.x' if options.version_compatible else version,
        'gpu': 'Ampere and later' if options.hardware_compatible else request.gpu,
        'precision': request.precision,
        'head': request.plan.head.name,
        'classes': ', '.join(request.plan.compiled_classes),
        'max_batch': str(options.max_batch),  # limits of the search change no input
    }


def find_engine(trt: TensorRt, request: Request) -> KeptEngine | None:
    """Return a kept engine: the exact one first, then a version- or hardware-compatible one."""
    flags = [(False, False), (True, False), (False, True), (True, True)]
    for version, hardware in flags if not trt.is_rtx else flags[:1]:
        options = dataclasses.replace(
            request.options, version_compatible=version, hardware_compatible=hardware
        )
        key = engine_key(trt, dataclasses.replace(request, options=options))
        blob = compiled_cache.load(key)
        if blob is not None:
            path = compiled_cache.key_path(key)
            return KeptEngine(blob, compiled_cache.metadata_of(key), path, False)
    return None


def obtain_engine(trt: TensorRt, request: Request, tell: Tell | None = None) -> KeptEngine:
    """Return the cached engine, built first where missing; EngineError when TensorRT refuses."""
    key = engine_key(trt, request)
    key_path = compiled_cache.key_path(key)

    def build() -> tuple[bytes, JsonDict]:
        with tempfile.TemporaryDirectory(prefix='ood_perception_') as folder:
            given = _int8_backbone(request.bundle) if request.precision == 'int8' else None
            model = fused_model(request.plan, request.precision, given)
            path = write_model(model, Path(folder))
            del model
            timing = key_path.parent / f'timing-{trt.name}-{trt.version}-{request.gpu}.cache'
            blob, facts = build_engine(path, request.options, tell, timing, trt)
        return blob, {**facts, 'precision': request.precision, 'gpu': request.gpu}

    blob, built = compiled_cache.obtain(key, build)
    return KeptEngine(blob, compiled_cache.metadata_of(key), key_path, built)


def require_engine(
    trt: TensorRt, request: Request, may_build: bool, tell: Tell | None
) -> KeptEngine:
    """Return the engine; EngineError where it is missing and may not be built."""
    found = find_engine(trt, request)
    if found is not None:
        return found
    if not may_build:
        raise EngineError(
            f'no TensorRT engine of bundle {request.bundle.manifest.name} in {request.precision} '
            f'for {", ".join(request.plan.compiled_classes)} on compute capability {request.gpu} '
            f'({trt.name} {trt.version}, up to {request.options.max_batch} frames) is in '
            f'{cache_root()}: build it with compile_bundle --engine tensorrt, or set '
            'on_missing_engine to compile'
        )
    return obtain_engine(trt, request, tell)


def _int8_backbone(bundle: Bundle) -> Any:
    """Return the 8-bit backbone as TensorRT takes it; EngineError without its ranges."""
    facts = read_quantization(quantization_path(bundle))
    stage = next(stage for stage in bundle.manifest.stages if stage.name == 'backbone')
    return quantised(read_model(bundle.stage_path(stage)), facts, 'symmetric')


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
        spec, head = self.manifest.input, self._plan.head
        rows, columns = (
            side // spec.patch * head.upsampling for side in (spec.height, spec.width)
        )
        surprisal = outputs[head.surprisal].view(np.float32)
        shape = (batch, rows, columns)
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
