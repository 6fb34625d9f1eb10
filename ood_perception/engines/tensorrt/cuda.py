# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Device memory, streams and CUDA graphs, whichever package reaches them (see cuda_choice).

Addresses and streams are plain integers, as TensorRT takes them. Everything is on GPU 0; what a
process should see is CUDA_VISIBLE_DEVICES' business.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from ood_perception.errors import EngineError
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
