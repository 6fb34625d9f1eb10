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
import numpy.typing as npt

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


class StreamedStage:
    """
    One stage, compiled for one image per number of streams when that number first comes.

    The images of a batch go through as requests of their own, side by side in as many streams as
    share them evenly: threads that share one image wait for each other at every layer (a small
    network takes half as long again), and a free batch axis costs the x7 head twice the time
    (measured: 41 to 79 ms at 20x40 patches).
    """

    def __init__(
        self,
        core: Any,
        stage: StageSpec,
        model: Any,
        config: dict[str, Any],
        key: dict[str, str],
        on_disk: bool = True,
    ) -> None:
        """
        Compile nothing yet.

        config: OpenVINO's options; NUM_STREAMS there holds for all batches, 0 = as the batch asks
        for. key: what a compilation depends on. on_disk: keep it in the cache; else engines of
        this process share it.
        """
        self._core, self._stage, self._config = core, stage, config
        self._model, self._key, self._on_disk = model, key, on_disk
        self._threads: int = config.get('INFERENCE_NUM_THREADS') or len(os.sched_getaffinity(0))
        self._models: dict[int, Any] = {}  # what is shared lives as long as somebody holds it
        self._batches: dict[int, tuple[list[Any], list[npt.NDArray[Any]]]] = {}

    def ready(self, batch: int) -> tuple[list[Any], list[npt.NDArray[Any]]]:
        """Return a request for each image of a batch, and the outputs that they write into."""
        if batch not in self._batches:
            streams = self._config['NUM_STREAMS'] or streams_for(batch, self._threads)
            if streams not in self._models:
                self._models[streams] = self._obtained(streams)
            self._batches[batch] = _requests(self._models[streams], self._stage.outputs, batch)
        return self._batches[batch]

    def _obtained(self, streams: int) -> Any:
        """Return the compiled model: kept, or compiled now while other processes wait for it."""
        key, config = {**self._key, 'streams': str(streams)}, self._streamed(streams)
        if not self._on_disk:
            parts = tuple(f'{name}: {value}' for name, value in sorted(key.items()))
            return shared(parts, lambda: self._compiled(streams))
        made: list[Any] = []

        def build() -> tuple[bytes, JsonDict]:
            made.append(self._compiled(streams))
            return made[0].export_model().getvalue(), {'stage': self._stage.name}

        blob, built = compiled_cache.obtain(key, build)
        if not built:
            try:
                return self._core.import_model(blob, 'CPU', config)
            except RuntimeError:  # whatever made it unreadable: compiling replaces it
                compiled_cache.obtain(key, build, again=True)
        return made[0]

    def _streamed(self, streams: int) -> dict[str, Any]:
        return {**self._config, 'NUM_STREAMS': streams}

    def _compiled(self, streams: int) -> Any:
        model = self._model.clone()
        shapes = {port.any_name: port.partial_shape for port in model.inputs}
        fixed = {
            name: [1, *(side.get_length() for side in list(shape)[1:])]
            for name, shape in shapes.items()
            if shape[0].is_dynamic
        }
        model.reshape(fixed)
        return self._core.compile_model(model, 'CPU', self._streamed(streams))

    def run(self, feeds: Sequence[Any]) -> list[Any]:
        """Run on inputs in the order of the stage; the next run writes into the same outputs."""
        requests, outputs = self.ready(len(feeds[0]))
        for request, named in zip(requests, frame_by_frame(self._stage, feeds), strict=True):
            request.start_async(named, share_inputs=True)
        for request in requests:
            request.wait()
        return list(outputs)


def _requests(
    model: Any, names: Sequence[str], batch: int
) -> tuple[list[Any], list[npt.NDArray[Any]]]:
    """Return a request for each image of a batch, and the named outputs that they write into."""
    tensor, outputs = _openvino().Tensor, []
    requests = [model.create_infer_request() for _ in range(batch)]
    for name in names:
        port = model.output(name)
        shape = (batch, *list(port.shape)[1:])
        outputs.append(np.zeros(shape, port.get_element_type().to_dtype()))
        for row, request in enumerate(requests):
            request.set_tensor(name, tensor(outputs[-1][row : row + 1], shared_memory=True))
    return requests, outputs


def streams_for(batch: int, threads: int) -> int:
    """Return the most streams, up to one a thread, that a batch fills evenly."""
    return max(count for count in range(1, min(batch, threads) + 1) if batch % count == 0)


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
        compiled = StreamedStage(
            self._core, stage, read, config, key, on_disk=not stage.external_data
        )
        compiled.ready(1)  # what this runtime refuses shows now
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
            'NUM_STREAMS': 0,
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
