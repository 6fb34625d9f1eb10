# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""CUDA by NVIDIA's cuda-python."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from ood_perception.engines.tensorrt.cuda import Cuda
from ood_perception.errors import EngineError
from ood_perception.types import UInt8Array


class CudaPython(Cuda):
    """NVIDIA's cuda-python (cuda-bindings; before 12.6 the module cuda.cudart)."""

    name = 'cuda-python'
    has_graphs = True

    def __init__(self, runtime: Any) -> None:
        self._cuda = runtime

    def _do(self, function: str, *arguments: Any) -> Any:
        """Call a function of the CUDA runtime; return its one result, or None."""
        error, *results = getattr(self._cuda, function)(*arguments)
        if int(error) != 0:
            _, text = self._cuda.cudaGetErrorString(error)
            words = text.decode() if isinstance(text, bytes) else str(text)
            raise EngineError(f'{function} failed: {words} (CUDA error {int(error)})')
        return results[0] if results else None

    def device_count(self) -> int:
        return int(self._do('cudaGetDeviceCount'))

    def device(self) -> tuple[str, str]:
        attributes = self._cuda.cudaDeviceAttr
        major = self._do('cudaDeviceGetAttribute', attributes.cudaDevAttrComputeCapabilityMajor, 0)
        minor = self._do('cudaDeviceGetAttribute', attributes.cudaDevAttrComputeCapabilityMinor, 0)
        name = self._do('cudaGetDeviceProperties', 0).name
        text = name.decode() if isinstance(name, bytes) else str(name)
        return text.rstrip('\0'), f'{major}.{minor}'

    def create_stream(self) -> int:
        flags = self._cuda.cudaStreamNonBlocking
        return int(self._do('cudaStreamCreateWithFlags', flags))

    def destroy_stream(self, stream: int) -> None:
        self._do('cudaStreamDestroy', stream)

    def synchronize(self, stream: int) -> None:
        self._do('cudaStreamSynchronize', stream)

    def allocate(self, size: int) -> int:
        return int(self._do('cudaMalloc', size))

    def free(self, address: int) -> None:
        self._do('cudaFree', address)

    def allocate_host(self, size: int) -> UInt8Array:
        address = int(self._do('cudaMallocHost', size))
        memory = ctypes.cast(address, ctypes.POINTER(ctypes.c_uint8))
        return np.ctypeslib.as_array(memory, (size,))

    def free_host(self, array: UInt8Array) -> None:
        self._do('cudaFreeHost', array.ctypes.data)

    def to_device(self, address: int, array: UInt8Array, stream: int) -> None:
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._do('cudaMemcpyAsync', address, array.ctypes.data, array.nbytes, kind, stream)

    def to_host(self, array: UInt8Array, address: int, stream: int) -> None:
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._do('cudaMemcpyAsync', array.ctypes.data, address, array.nbytes, kind, stream)

    def begin_capture(self, stream: int) -> None:
        mode = self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._do('cudaStreamBeginCapture', stream, mode)

    def end_capture(self, stream: int) -> Any:
        graph = self._do('cudaStreamEndCapture', stream)
        try:
            return self._do('cudaGraphInstantiate', graph, 0)
        finally:
            self._do('cudaGraphDestroy', graph)

    def launch(self, graph: Any, stream: int) -> None:
        self._do('cudaGraphLaunch', graph, stream)

    def destroy_graph(self, graph: Any) -> None:
        self._do('cudaGraphExecDestroy', graph)
