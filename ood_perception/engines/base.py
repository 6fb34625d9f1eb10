# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The contract of every engine: public methods check, `_run` does the work."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ood_perception.bundle.manifest import Manifest
from ood_perception.errors import EngineError
from ood_perception.types import EngineOutput, Float32Array, UInt8Array

MODES = ('latency', 'throughput')


@dataclass(frozen=True)
class EngineOptions:
    """
    How an engine is compiled.

    runtime: 'openvino', 'onnxruntime', ... (a key of engines.ENGINES) or 'auto'.
    precision: of backbone and decoder: 'f32', 'bf16', 'int8', ... or 'auto' (the fastest that
        costs little and keeps the golden vectors: plan.py). A head always runs in float32.
    threads: CPU threads, 0 = all.
    head: name of the head, '' = the bundle's first.
    compiled_classes: classes whose scores the head is compiled for, () = the bundle's own set.
    max_batch: most frames of a run, such as the number of cameras (GPU engines are built for it).
    build: whether an engine that is not in the cache may be built, where that takes long (GPU).
    mode: 'latency' (all threads on one image; OpenVINO runs the images of a batch side by side
        where they share the threads evenly) or 'throughput' (one thread per image, always: more
        frames a second, each later).
    pin_threads: whether threads stay on their cores, None = as the runtime does.
    weight_bits: of int8 on a CPU: 0 = those that it multiplies exactly (engines.cpu); 8 or 7, to
        measure them, are built on every CPU.
    """

    runtime: str = 'auto'
    precision: str = 'auto'
    threads: int = 0
    head: str = ''
    compiled_classes: tuple[str, ...] = ()
    max_batch: int = 1
    build: bool = True
    mode: str = 'latency'
    pin_threads: bool | None = None
    weight_bits: int = 0


class Engine(ABC):
    """
    All stages of a bundle behind one `run`, which one thread at a time may call.

    last: what the last run gave.
    """

    choice = ''  # why precision auto took this one; '' where it was asked for by name
    run_ms = 0.0  # wall time of the last run, milliseconds; after the golden check, of one image

    def __init__(self, manifest: Manifest, options: EngineOptions) -> None:
        self.manifest = manifest
        self.options = options
        nothing = np.zeros((0, 0, 0))
        self.last = EngineOutput(nothing.astype(np.float32), nothing.astype(np.uint8), {})

    @property
    @abstractmethod
    def compiled_classes(self) -> tuple[str, ...]:
        """Names of the classes that `in_distribution` chooses from, in its order."""

    @property
    @abstractmethod
    def description(self) -> dict[str, str]:
        """Runtime, version, device and precision, for diagnostics and benchmarks."""

    @property
    def measured_as(self) -> str:
        """Under which name the manifest's `precisions` hold this engine's cost and bounds."""
        return self.description['precision']

    def run(self, image: UInt8Array, in_distribution: Float32Array) -> EngineOutput:
        """
        Run all stages.

        image: uint8 (B, h, w, 3) RGB at the network resolution, B >= 1.
        in_distribution: float32 (C,) of 0/1 over compiled_classes, at least one 1.

        Raises EngineError for a wrong shape or type, or when the runtime fails.
        """
        spec = self.manifest.input
        expected = (spec.height, spec.width, 3)
        if image.dtype != np.uint8 or image.shape[1:] != expected or not len(image):
            raise EngineError(
                f'engine input is {image.dtype} {image.shape}, expected uint8 (B, '
                f'{spec.height}, {spec.width}, 3): resize with ood_perception.image.geometry'
            )
        count = len(self.compiled_classes)
        if in_distribution.shape != (count,) or not in_distribution.any():
            raise EngineError(
                f'in_distribution has shape {in_distribution.shape} and sum '
                f'{float(in_distribution.sum()):g}, expected ({count},) with at least one 1 over '
                f'{", ".join(self.compiled_classes)}'
            )
        begin = time.perf_counter()
        output = self._run(np.ascontiguousarray(image), in_distribution.astype(np.float32))
        self.run_ms = (time.perf_counter() - begin) * 1e3
        self.last = output
        return output

    @abstractmethod
    def _run(self, image: UInt8Array, in_distribution: Float32Array) -> EngineOutput:
        """Run on checked input."""

    def class_vector(self, names: Sequence[str]) -> Float32Array:
        """Return float32 (C,) of 0/1 for the named classes; EngineError for an unknown name."""
        unknown = [name for name in names if name not in self.compiled_classes]
        if unknown or not names:
            raise EngineError(
                f'in_distribution classes {list(names)}: {unknown or "empty list"} not among the '
                f'compiled classes {list(self.compiled_classes)}'
            )
        return np.array([name in names for name in self.compiled_classes], dtype=np.float32)

    def close(self) -> None:  # noqa: B027 - nothing to release is a fine default
        """Release the runtime's resources; calling it twice is fine."""

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
