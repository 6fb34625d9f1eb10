# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime on the CPU, float32: the second engine, and the check on the first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ood_perception.bundle.manifest import StageSpec
from ood_perception.bundle.store import Bundle
from ood_perception.engines.base import EngineOptions
from ood_perception.engines.chain import ChainEngine
from ood_perception.errors import DependencyError, EngineError


class OnnxRuntimeEngine(ChainEngine):
    """One session per stage, all in float32."""

    def __init__(self, bundle: Bundle, options: EngineOptions) -> None:
        """Compile; DependencyError without ONNX Runtime, else as ChainEngine."""
        try:
            import onnxruntime
        except ImportError as error:
            raise DependencyError(
                "engine onnxruntime needs its package: pip install 'ood_perception[onnxruntime]'"
            ) from error
        if options.precision not in ('auto', 'f32'):
            raise EngineError(
                f'precision {options.precision!r}: engine onnxruntime computes f32; use f32, auto '
                'or engine openvino'
            )
        self._runtime: Any = onnxruntime
        super().__init__(bundle, options)

    @property
    def description(self) -> dict[str, str]:
        """Runtime, version, device and precision."""
        return {
            'runtime': 'onnxruntime',
            'version': str(self._runtime.__version__),
            'device': 'CPU',
            'precision': 'f32',
        }

    def _compile(self, stage: StageSpec, model: Any) -> Any:
        options = self._runtime.SessionOptions()
        options.log_severity_level = 3
        if self.options.threads:
            options.intra_op_num_threads = self.options.threads
        source = str(model) if isinstance(model, Path) else model
        session = self._runtime.InferenceSession(
            source, options, providers=['CPUExecutionProvider']
        )
        return session, stage

    def _infer(self, compiled: Any, feeds: Sequence[Any]) -> Sequence[Any]:
        session, stage = compiled
        outputs: Sequence[Any] = session.run(
            list(stage.outputs), dict(zip(stage.inputs, feeds, strict=True))
        )
        return outputs
