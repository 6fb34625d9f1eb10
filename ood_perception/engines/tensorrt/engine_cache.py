# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""TensorRT engines that are kept: what each one's key holds, loaded or built."""

from __future__ import annotations

import dataclasses
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ood_perception.bundle.store import Bundle
from ood_perception.engines import cache as compiled_cache
from ood_perception.engines.graphs.precision_types import read_model
from ood_perception.engines.int8 import quantised, quantization_path, read_quantization
from ood_perception.engines.plan import Plan
from ood_perception.engines.tensorrt.build import build_engine
from ood_perception.engines.tensorrt.graph import fused_model, write_model
from ood_perception.engines.tensorrt.module import BuildOptions, TensorRt
from ood_perception.errors import EngineError
from ood_perception.files import cache_root
from ood_perception.types import JsonDict, Tell

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
