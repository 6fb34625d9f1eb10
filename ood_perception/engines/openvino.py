# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""OpenVINO on the CPU: the default engine."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ood_perception.bundle.cache import sha256_of
from ood_perception.bundle.manifest import StageSpec
from ood_perception.bundle.store import Bundle
from ood_perception.engines import compiled_cache
from ood_perception.engines.base import EngineOptions
from ood_perception.engines.chain import ChainEngine
from ood_perception.errors import DependencyError, EngineError


class OpenVinoEngine(ChainEngine):
    """
    One compiled model and one infer request per stage.

    The precision is set explicitly for every stage: left alone OpenVINO takes bf16 for the head
    too where the CPU has it, which leaves the score a few dozen distinct values.
    """

    def __init__(self, bundle: Bundle, options: EngineOptions) -> None:
        """Compile; DependencyError without OpenVINO, else as ChainEngine."""
        try:
            import openvino
        except ImportError as error:
            raise DependencyError(
                "engine openvino needs the package openvino: pip install 'openvino>=2025.0'"
            ) from error
        self._version: str = openvino.__version__
        self._core = openvino.Core()
        capabilities = self._core.get_property('CPU', 'OPTIMIZATION_CAPABILITIES')
        self._capabilities = sorted(str(name) for name in capabilities)
        has_bf16 = 'BF16' in capabilities
        if options.precision == 'bf16' and not has_bf16:
            raise EngineError(
                f'precision bf16: this CPU computes {", ".join(capabilities)}; use f32 or auto'
            )
        reduced = options.precision == 'bf16' or (options.precision == 'auto' and has_bf16)
        self._precision = 'bf16' if reduced else 'f32'
        super().__init__(bundle, options)

    @property
    def description(self) -> dict[str, str]:
        """Runtime, version, device and precision."""
        device = self._core.get_property('CPU', 'FULL_DEVICE_NAME')
        return {
            'runtime': 'openvino',
            'version': self._version,
            'device': str(device),
            'precision': self._precision,
        }

    def _compile(self, stage: StageSpec, model: Any) -> Any:
        precision = self._precision if stage.reduced_precision else 'f32'
        config: dict[str, Any] = {
            'INFERENCE_PRECISION_HINT': precision,
            'PERFORMANCE_HINT': 'LATENCY',
            'NUM_STREAMS': 1,
        }
        if self.options.threads:
            config['INFERENCE_NUM_THREADS'] = self.options.threads
        key = {
            'graph': _digest(model),
            'runtime': f'openvino {self._version}',
            'device': f'{self.description["device"]} {" ".join(self._capabilities)}',
            **{name: str(value) for name, value in config.items()},
        }
        # Backbones import no faster than they compile (measured), and would fill the disk.
        read = self._core.read_model(str(model) if isinstance(model, Path) else model)
        compiled = _StageByBatch(
            self._core, stage, read, config, None if stage.external_data else key
        )
        compiled.request(1)  # what this runtime refuses shows now
        return compiled

    def _infer(self, compiled: Any, feeds: Sequence[Any]) -> Sequence[Any]:
        outputs: Sequence[Any] = compiled.run(feeds)
        return outputs


class _StageByBatch:
    """
    One stage, compiled per batch size when that size first comes.

    A free batch axis costs the x7 head twice the time (measured: 41 to 79 ms at 20x40 patches).
    """

    def __init__(
        self,
        core: Any,
        stage: StageSpec,
        model: Any,
        config: dict[str, Any],
        key: dict[str, str] | None,
    ) -> None:
        """Compile nothing yet. key: what a kept compilation depends on, None = keep none."""
        self._core, self._stage, self._model, self._config = core, stage, model, config
        self._key = key
        self._requests: dict[int, Any] = {}

    def request(self, batch: int) -> Any:
        """Return the infer request for a batch size."""
        if batch not in self._requests:
            compiled = self._imported(batch) or self._compiled(batch)
            self._requests[batch] = compiled.create_infer_request()
        return self._requests[batch]

    def _imported(self, batch: int) -> Any:
        """Return the kept compilation, None where there is none that this runtime takes."""
        blob = compiled_cache.load({**self._key, 'batch': str(batch)}) if self._key else None
        if blob is None:
            return None
        try:
            return self._core.import_model(blob, 'CPU', self._config)
        except RuntimeError:  # whatever made it unreadable: compiling replaces it
            return None

    def _compiled(self, batch: int) -> Any:
        model = self._model.clone()
        shapes = {port.any_name: port.partial_shape for port in model.inputs}
        fixed = {
            name: [batch, *(side.get_length() for side in list(shape)[1:])]
            for name, shape in shapes.items()
            if shape[0].is_dynamic
        }
        model.reshape(fixed)
        compiled = self._core.compile_model(model, 'CPU', self._config)
        if self._key:
            blob = compiled.export_model().getvalue()
            compiled_cache.store({**self._key, 'batch': str(batch)}, blob)
        return compiled

    def run(self, feeds: Sequence[Any]) -> list[Any]:
        """Run on inputs in the order of the stage; outputs are views until the next run."""
        request = self.request(len(feeds[0]))
        named = dict(zip(self._stage.inputs, feeds, strict=True))
        request.infer(named, share_inputs=True, share_outputs=True)
        return [request.get_tensor(name).data for name in self._stage.outputs]


def _digest(model: Path | bytes) -> str:
    return sha256_of(model) if isinstance(model, Path) else hashlib.sha256(model).hexdigest()
