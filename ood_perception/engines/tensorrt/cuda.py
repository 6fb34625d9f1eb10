# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Device memory, streams and CUDA graphs, whichever package reaches them (see load_cuda).

Addresses and streams are plain integers, as TensorRT takes them. Everything is on GPU 0; what a
process should see is CUDA_VISIBLE_DEVICES' business.
"""

from __future__ import annotations

import ctypes
import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ood_perception.errors import DependencyError, EngineError
from ood_perception.types import UInt8Array


class Cuda(ABC):
    """What TensorRT's execution needs of CUDA; every method raises EngineError on a CUDA error."""

    name = ''
    has_graphs = False

    @abstractmethod
    def device_count(self) -> int:
        """Return the number of GPUs; EngineError without a driver."""

    @abstractmethod
    def device(self) -> tuple[str, str]:
        """Return name and compute capability, such as ('NVIDIA RTX A4000', '8.6')."""

    @abstractmethod
    def create_stream(self) -> int:
        """Return a new stream that does not wait for the default one."""

    @abstractmethod
    def destroy_stream(self, stream: int) -> None:
        """Release a stream."""

    @abstractmethod
    def synchronize(self, stream: int) -> None:
        """Wait until all work of the stream is done."""

    @abstractmethod
    def allocate(self, size: int) -> int:
        """Return the address of `size` bytes on the device."""

    @abstractmethod
    def free(self, address: int) -> None:
        """Release device memory."""

    @abstractmethod
    def allocate_host(self, size: int) -> UInt8Array:
        """Return page-locked host memory, uint8 (size,), that asynchronous copies need."""

    @abstractmethod
    def free_host(self, array: UInt8Array) -> None:
        """Release page-locked memory; the array must not be touched afterwards."""

    @abstractmethod
    def to_device(self, address: int, array: UInt8Array, stream: int) -> None:
        """Start copying page-locked bytes (N,) to the device."""

    @abstractmethod
    def to_host(self, array: UInt8Array, address: int, stream: int) -> None:
        """Start copying len(array) bytes from the device to page-locked memory."""

    def begin_capture(self, stream: int) -> None:
        """Record what is enqueued from now on instead of running it."""
        raise EngineError(f'{self.name} has no CUDA graphs')

    def end_capture(self, stream: int) -> Any:
        """Return the recorded work, ready to launch."""
        raise EngineError(f'{self.name} has no CUDA graphs')

    def launch(self, graph: Any, stream: int) -> None:
        """Enqueue recorded work."""
        raise EngineError(f'{self.name} has no CUDA graphs')

    def destroy_graph(self, graph: Any) -> None:
        """Release recorded work."""
        raise EngineError(f'{self.name} has no CUDA graphs')


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


class PyCuda(Cuda):
    """pycuda's driver interface on the primary context, which TensorRT uses, too."""

    name = 'pycuda'

    def __init__(self, driver: Any) -> None:
        self._driver = driver
        self._context: Any = None
        self._streams: dict[int, Any] = {}
        self._memory: dict[int, Any] = {}

    @contextmanager
    def _current(self) -> Iterator[None]:
        """Make the context current: threads differ, and pycuda does not do it by itself."""
        try:
            if self._context is None:
                self._driver.init()
                self._context = self._driver.Device(0).retain_primary_context()
            self._context.push()
            try:
                yield
            finally:
                self._driver.Context.pop()
        except self._driver.Error as error:
            raise EngineError(f'pycuda: {error}') from error

    def device_count(self) -> int:
        try:
            self._driver.init()
            return int(self._driver.Device.count())
        except self._driver.Error as error:
            raise EngineError(f'pycuda: {error}') from error

    def device(self) -> tuple[str, str]:
        device = self._driver.Device(0)
        major, minor = device.compute_capability()
        return str(device.name()), f'{major}.{minor}'

    def create_stream(self) -> int:
        with self._current():
            stream = self._driver.Stream()
            handle = int(stream.handle)
            self._streams[handle] = stream
        return handle

    def destroy_stream(self, stream: int) -> None:
        with self._current():
            del self._streams[stream]

    def synchronize(self, stream: int) -> None:
        with self._current():
            self._streams[stream].synchronize()

    def allocate(self, size: int) -> int:
        with self._current():
            memory = self._driver.mem_alloc(size)
            self._memory[int(memory)] = memory
        return int(memory)

    def free(self, address: int) -> None:
        with self._current():
            self._memory.pop(address).free()

    def allocate_host(self, size: int) -> UInt8Array:
        with self._current():
            array: UInt8Array = self._driver.pagelocked_empty(size, 'uint8')
        return array

    def free_host(self, array: UInt8Array) -> None:
        with self._current():
            array.base.free()  # type: ignore[union-attr]  # pycuda's PagelockedHostAllocation

    def to_device(self, address: int, array: UInt8Array, stream: int) -> None:
        with self._current():
            self._driver.memcpy_htod_async(address, array, self._streams[stream])

    def to_host(self, array: UInt8Array, address: int, stream: int) -> None:
        with self._current():
            self._driver.memcpy_dtoh_async(array, address, self._streams[stream])


def load_cuda() -> Cuda:
    """Return cuda-python, else pycuda; DependencyError where neither is installed."""
    for module in ('cuda.bindings.runtime', 'cuda.cudart'):
        try:
            return CudaPython(importlib.import_module(module))
        except (ImportError, OSError, RuntimeError):
            continue
    try:
        driver = importlib.import_module('pycuda.driver')
    except (ImportError, OSError) as error:
        raise DependencyError(
            "engine tensorrt needs cuda-python or pycuda: pip install 'cuda-bindings>=12.6' (its "
            'first number is the CUDA version of the driver)'
        ) from error
    return PyCuda(driver)


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
