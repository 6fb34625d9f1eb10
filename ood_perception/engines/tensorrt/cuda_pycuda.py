# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Device memory and streams through pycuda, where a platform ships that; no CUDA graphs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ood_perception.engines.tensorrt.cuda import Cuda
from ood_perception.errors import EngineError
from ood_perception.types import UInt8Array


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
