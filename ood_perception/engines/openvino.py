# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""OpenVINO on the CPU: the default engine."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ood_perception.bundle.manifest import StageSpec
from ood_perception.bundle.store import Bundle
from ood_perception.engines import cache as compiled_cache
from ood_perception.engines.base import EngineOptions
from ood_perception.engines.cache import identity, shared
from ood_perception.engines.chain import ChainEngine, frame_by_frame
from ood_perception.engines.cpu import Int8Products, openvino_int8
from ood_perception.errors import EngineError, required
from ood_perception.files import sha256_of
from ood_perception.types import JsonDict


class StageByBatch:
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
        key: dict[str, str],
        on_disk: bool = True,
        side_by_side: bool = False,
    ) -> None:
        """
        Compile nothing yet.

        key: what a compilation depends on. on_disk: keep it in the cache; else engines of this
        process share it. side_by_side: the images of a batch run at once, one request each,
        instead of as one batch.
        """
        self._core, self._stage, self._model, self._config = core, stage, model, config
        self._key, self._on_disk, self._side_by_side = key, on_disk, side_by_side
        self._models: dict[int, Any] = {}  # what is shared lives as long as somebody holds it
        self._requests: dict[int, Any] = {}
        self._parallel: list[Any] = []

    def request(self, batch: int) -> Any:
        """Return the infer request for a batch size."""
        if batch not in self._requests:
            self._models[batch] = self._obtained(batch)
            self._requests[batch] = self._models[batch].create_infer_request()
        return self._requests[batch]

    def _obtained(self, batch: int) -> Any:
        """Return the compiled model: kept, or compiled now while other processes wait for it."""
        key = {**self._key, 'batch': str(batch)}
        if not self._on_disk:
            parts = tuple(f'{name}: {value}' for name, value in sorted(key.items()))
            return shared(parts, lambda: self._compiled(batch))
        made: list[Any] = []

        def build() -> tuple[bytes, JsonDict]:
            made.append(self._compiled(batch))
            return made[0].export_model().getvalue(), {'stage': self._stage.name}

        blob, built = compiled_cache.obtain(key, build)
        if not built:
            try:
                return self._core.import_model(blob, 'CPU', self._config)
            except RuntimeError:  # whatever made it unreadable: compiling replaces it
                compiled_cache.obtain(key, build, again=True)
        return made[0]

    def _compiled(self, batch: int) -> Any:
        model = self._model.clone()
        shapes = {port.any_name: port.partial_shape for port in model.inputs}
        fixed = {
            name: [batch, *(side.get_length() for side in list(shape)[1:])]
            for name, shape in shapes.items()
            if shape[0].is_dynamic
        }
        model.reshape(fixed)
        return self._core.compile_model(model, 'CPU', self._config)

    def run(self, feeds: Sequence[Any]) -> list[Any]:
        """Run on inputs in the order of the stage; outputs are views until the next run."""
        if self._side_by_side and len(feeds[0]) > 1:
            return self._run_side_by_side(feeds)
        request = self.request(len(feeds[0]))
        named = dict(zip(self._stage.inputs, feeds, strict=True))
        request.infer(named, share_inputs=True, share_outputs=True)
        return [request.get_tensor(name).data for name in self._stage.outputs]

    def _run_side_by_side(self, feeds: Sequence[Any]) -> list[Any]:
        count = len(feeds[0])
        compiled = self.request(1).get_compiled_model()
        while len(self._parallel) < count:
            self._parallel.append(compiled.create_infer_request())
        rows = frame_by_frame(self._stage, feeds)
        for request, named in zip(self._parallel, rows, strict=False):
            request.start_async(named, share_inputs=True)
        for request in self._parallel[:count]:
            request.wait()
        return [
            np.concatenate([request.get_tensor(name).data for request in self._parallel[:count]])
            for name in self._stage.outputs
        ]


class OpenVinoEngine(ChainEngine):
    """
    One compiled model per stage.

    The precision is set explicitly for every stage: left alone OpenVINO takes bf16 for the head
    too where the CPU has it, which leaves the score a few dozen distinct values. int8: products
    with weights in int8, the rest of the backbone in bf16 where the CPU has it.
    """

    name: ClassVar[str] = 'openvino'
    precisions: ClassVar[tuple[str, ...]] = ('f32', 'bf16', 'int8')

    def __init__(self, bundle: Bundle, options: EngineOptions) -> None:
        """Compile; DependencyError without OpenVINO, else as ChainEngine."""
        openvino = _openvino()
        self._version: str = openvino.__version__
        self._core = openvino.Core()
        self._capabilities = _capabilities(self._core)
        if options.precision == 'bf16' and 'BF16' not in self._capabilities:
            raise EngineError(f'precision bf16: {self.slow_precisions()["bf16"]}; use f32 or auto')
        super().__init__(bundle, options)

    @classmethod
    def int8_products(cls) -> Int8Products:
        _openvino()
        return openvino_int8()

    @classmethod
    def slow_precisions(cls) -> dict[str, str]:
        told = super().slow_precisions()
        capabilities = _capabilities(_openvino().Core())
        if 'BF16' not in capabilities:
            told['bf16'] = f'this CPU computes {", ".join(capabilities)}'
        return told

    @property
    def description(self) -> dict[str, str]:
        device = self._core.get_property('CPU', 'FULL_DEVICE_NAME')
        return {
            'runtime': 'openvino',
            'version': self._version,
            'device': str(device),
            **self.precision_facts,
        }

    def _compile(self, stage: StageSpec, model: Any) -> Any:
        config, graph = self._config(stage), model
        if not isinstance(model, Path):
            graph = hashlib.sha256(model).hexdigest()
        elif stage.external_data:
            graph = identity(model, stage.external_data)
        else:
            graph = sha256_of(model)
        key = {
            'graph': graph,
            'runtime': f'openvino {self._version}',
            'device': f'{self.description["device"]} {" ".join(self._capabilities)}',
            'int8': openvino_int8().kernel,  # tells CPUs of one name apart, as clouds have them
            **{name: str(value) for name, value in config.items()},
        }
        # Backbones import no faster than they compile (measured), and would fill the disk; but
        # another class set must not compile the backbone again.
        read = self._core.read_model(str(model) if isinstance(model, Path) else model)
        compiled = StageByBatch(
            *(self._core, stage, read, config, key),
            on_disk=not stage.external_data,
            side_by_side=self.options.mode == 'throughput',
        )
        compiled.request(1)  # what this runtime refuses shows now
        return compiled

    def _config(self, stage: StageSpec) -> dict[str, Any]:
        """Return OpenVINO's options for a stage."""
        reduced = stage.reduced_precision and self._precision != 'f32'
        options = self.options
        config: dict[str, Any] = {
            'INFERENCE_PRECISION_HINT': (
                'bf16' if reduced and 'BF16' in self._capabilities else 'f32'
            ),
            'PERFORMANCE_HINT': 'LATENCY',
            'NUM_STREAMS': 1,
        }
        if options.mode == 'throughput':
            threads = options.threads or len(os.sched_getaffinity(0))
            config |= {'PERFORMANCE_HINT': 'THROUGHPUT', 'NUM_STREAMS': threads}
        if options.threads:
            config['INFERENCE_NUM_THREADS'] = options.threads
        if options.pin_threads is not None:
            config['ENABLE_CPU_PINNING'] = options.pin_threads
        return config

    def _infer(self, compiled: Any, feeds: Sequence[Any]) -> Sequence[Any]:
        outputs: Sequence[Any] = compiled.run(feeds)
        return outputs


def _openvino() -> Any:
    remedy = "engine openvino needs the package openvino: pip install 'openvino>=2025.0'"
    return required('openvino', remedy)


def _capabilities(core: Any) -> list[str]:
    return sorted(str(name) for name in core.get_property('CPU', 'OPTIMIZATION_CAPABILITIES'))
