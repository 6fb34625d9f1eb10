# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Device memory, streams and CUDA graphs by NVIDIA's cuda-python.

Addresses and streams are plain integers, as TensorRT takes them. Everything is on GPU 0; what a
process should see is CUDA_VISIBLE_DEVICES' business.
"""

from __future__ import annotations

import ctypes
import importlib
from typing import Any

import numpy as np

from ood_perception.errors import DependencyError, EngineError
from ood_perception.types import UInt8Array


class Cuda:
    """What TensorRT's execution needs of CUDA; every method raises EngineError on a CUDA error."""

    def __init__(self, runtime: Any) -> None:
        """runtime: the module of the CUDA runtime of cuda-bindings, before 12.6 cuda.cudart."""
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
        """Return the number of GPUs; EngineError without a driver."""
        return int(self._do('cudaGetDeviceCount'))

    def device(self) -> tuple[str, str]:
        """Return name and compute capability, such as ('NVIDIA RTX A4000', '8.6')."""
        attributes = self._cuda.cudaDeviceAttr
        major = self._do('cudaDeviceGetAttribute', attributes.cudaDevAttrComputeCapabilityMajor, 0)
        minor = self._do('cudaDeviceGetAttribute', attributes.cudaDevAttrComputeCapabilityMinor, 0)
        name = self._do('cudaGetDeviceProperties', 0).name
        text = name.decode() if isinstance(name, bytes) else str(name)
        return text.rstrip('\0'), f'{major}.{minor}'

    def create_stream(self) -> int:
        """Return a new stream that does not wait for the default one."""
        flags = self._cuda.cudaStreamNonBlocking
        return int(self._do('cudaStreamCreateWithFlags', flags))

    def destroy_stream(self, stream: int) -> None:
        """Release a stream."""
        self._do('cudaStreamDestroy', stream)

    def synchronize(self, stream: int) -> None:
        """Wait until all work of the stream is done."""
        self._do('cudaStreamSynchronize', stream)

    def allocate(self, size: int) -> int:
        """Return the address of `size` bytes on the device."""
        return int(self._do('cudaMalloc', size))

    def free(self, address: int) -> None:
        """Release device memory."""
        self._do('cudaFree', address)

    def allocate_host(self, size: int) -> UInt8Array:
        """Return page-locked host memory, uint8 (size,), that asynchronous copies need."""
        address = int(self._do('cudaMallocHost', size))
        memory = ctypes.cast(address, ctypes.POINTER(ctypes.c_uint8))
        return np.ctypeslib.as_array(memory, (size,))

    def free_host(self, array: UInt8Array) -> None:
        """Release page-locked memory; the array must not be touched afterwards."""
        self._do('cudaFreeHost', array.ctypes.data)

    def to_device(self, address: int, array: UInt8Array, stream: int) -> None:
        """Start copying page-locked bytes (N,) to the device."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._do('cudaMemcpyAsync', address, array.ctypes.data, array.nbytes, kind, stream)

    def to_host(self, array: UInt8Array, address: int, stream: int) -> None:
        """Start copying len(array) bytes from the device to page-locked memory."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._do('cudaMemcpyAsync', array.ctypes.data, address, array.nbytes, kind, stream)

    def begin_capture(self, stream: int) -> None:
        """Record what is enqueued from now on instead of running it."""
        mode = self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._do('cudaStreamBeginCapture', stream, mode)

    def end_capture(self, stream: int) -> Any:
        """Return the recorded work, ready to launch."""
        graph = self._do('cudaStreamEndCapture', stream)
        try:
            return self._do('cudaGraphInstantiate', graph, 0)
        finally:
            self._do('cudaGraphDestroy', graph)

    def launch(self, graph: Any, stream: int) -> None:
        """Enqueue recorded work."""
        self._do('cudaGraphLaunch', graph, stream)

    def destroy_graph(self, graph: Any) -> None:
        """Release recorded work."""
        self._do('cudaGraphExecDestroy', graph)


def load_cuda() -> Cuda:
    """Return the interface to CUDA; DependencyError where cuda-python is not installed."""
    for module in ('cuda.bindings.runtime', 'cuda.cudart'):
        try:
            return Cuda(importlib.import_module(module))
        except (ImportError, OSError, RuntimeError):
            continue
    raise DependencyError(
        "engine tensorrt needs cuda-python: pip install 'cuda-bindings>=12.6' (its first number "
        'is the CUDA version of the driver)'
    )


def require_gpu(cuda: Cuda) -> tuple[str, str]:
    """
    Return name and compute capability of the GPU; EngineError where there is none to use.

    Ask this before any TensorRT runtime object: without a driver some of them end the process.
    """
    try:
        count = cuda.device_count()
    except EngineError as error:
        raise EngineError(
            f'no usable NVIDIA driver: {error}; install one, or use a CPU engine'
        ) from error
    if count < 1:
        raise EngineError(
            'no NVIDIA GPU is visible: see CUDA_VISIBLE_DEVICES, or use a CPU engine'
        )
    return cuda.device()
