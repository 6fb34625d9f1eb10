# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A TensorRT engine with its context, stream and buffers, replayed as a CUDA graph."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ood_perception.engines.tensorrt.cuda import Cuda
from ood_perception.engines.tensorrt.module import TensorRt
from ood_perception.errors import EngineError, OodPerceptionError
from ood_perception.files import make_file
from ood_perception.types import UInt8Array

INPUTS = {'image': 'UINT8', 'in_distribution': 'FLOAT'}
ITEM_BYTES = {'UINT8': 1, 'FLOAT': 4}


@dataclass(frozen=True)
class Buffer:
    """A tensor's memory at the largest batch: device address and page-locked bytes (N,)."""

    name: str
    is_input: bool
    per_frame: bool
    shape: tuple[int, ...]
    item_bytes: int
    address: int
    host: UInt8Array

    def bytes_of(self, batch: int) -> UInt8Array:
        """Return the page-locked bytes that a batch uses."""
        shape = self.shape_of(batch)
        return self.host[: int(np.prod(shape)) * self.item_bytes]

    def shape_of(self, batch: int) -> tuple[int, ...]:
        """Return the tensor's shape for a batch."""
        return (batch, *self.shape[1:]) if self.per_frame else self.shape


def make_buffer(engine: Any, cuda: Cuda, name: str, max_batch: int) -> Buffer:
    """Return memory for a tensor of an ICudaEngine; EngineError for a free shape or no memory."""
    shape = tuple(int(size) for size in engine.get_tensor_shape(name))
    item = ITEM_BYTES[engine.get_tensor_dtype(name).name]
    per_frame = name != 'in_distribution'
    if any(size < 0 for size in shape[1 if per_frame else 0 :]):
        raise EngineError(
            f'tensor {name} of the engine has the free shape {shape}: the node runs one size; '
            'pack the bundle again'
        )
    full = (max_batch, *shape[1:]) if per_frame else shape
    size = int(np.prod(full)) * item
    address = cuda.allocate(size)
    try:
        host = cuda.allocate_host(size)
    except EngineError:
        cuda.free(address)
        raise
    return Buffer(name, name in INPUTS, per_frame, shape, item, address, host)


class Execution:
    """
    Runs an engine on one stream; not for two threads at a time.

    Buffers are made once, for the largest batch, and every run copies its results out before the
    next may write them. Where the batch is that of the run before, the copies and kernels are
    recorded once and replayed as a CUDA graph. A graph holds only while its context keeps its
    shapes, so another batch drops it.
    """

    def __init__(
        self,
        tensorrt: TensorRt,
        cuda: Cuda,
        blob: bytes,
        outputs: tuple[str, str],
        kernels: Path | None = None,
        host_code: bool = False,
    ) -> None:
        """
        Load an engine; the GPU must have been asked for before (cuda.require_gpu).

        outputs: names of surprisal and labels. kernels: file in which TensorRT for RTX keeps what
        it compiles for this card. host_code: whether the engine may bring code for the CPU, as
        version-compatible ones do. Raises EngineError for an engine that does not belong here.
        """
        self._trt, self._cuda, self._kernels = tensorrt, cuda, kernels
        self._outputs = outputs
        self._graph: Any = None
        self._batch = self._stream = 0
        self._buffers: list[Buffer] = []
        self._runtime: Any = None
        self._runtime_cache: Any = None
        self._context: Any = None
        self._engine: Any = self._load(blob, host_code)
        try:
            self._context = self._create_context()
            self._stream = cuda.create_stream()
            self._check_tensors()
            # the largest batch of the engine's profile
            self.max_batch = int(self._engine.get_tensor_profile_shape('image', 0)[2][0])
            self._make_buffers()
        except BaseException:
            self.close()
            raise

    def run(self, values: dict[str, UInt8Array], batch: int) -> dict[str, UInt8Array]:
        """
        Run once; values: per input its bytes (N,); returns per output its own bytes (N,).

        batch: 1..max_batch. Raises EngineError when TensorRT or CUDA fails.
        """
        if self._engine is None:
            raise EngineError('TensorRtEngine was closed: create a new engine')
        for buffer in self._buffers:
            if buffer.is_input:
                buffer.bytes_of(batch)[:] = values[buffer.name]
        if batch != self._batch:
            self._drop_graph()
            self._set_batch(batch)
            self._enqueue(batch)  # the first run with a shape allocates, so it cannot be recorded
        else:
            self._graph = self._graph or self._record(batch)
            self._cuda.launch(self._graph, self._stream)
        self._cuda.synchronize(self._stream)
        outputs = [buffer for buffer in self._buffers if not buffer.is_input]
        return {buffer.name: buffer.bytes_of(batch).copy() for buffer in outputs}

    def close(self) -> None:
        """Release graph, buffers, stream, context and engine, in this order; twice is fine."""
        if self._engine is None:
            return
        if self._stream:
            with contextlib.suppress(EngineError):  # after a device error release what is left
                self._cuda.synchronize(self._stream)
        self._drop_graph()
        for buffer in self._buffers:
            with contextlib.suppress(EngineError):
                self._cuda.free(buffer.address)
                self._cuda.free_host(buffer.host)
        self._buffers = []
        self._keep_kernels()
        self._context = None
        if self._stream:
            with contextlib.suppress(EngineError):
                self._cuda.destroy_stream(self._stream)
        self._stream, self._engine, self._runtime = 0, None, None

    def _load(self, blob: bytes, host_code: bool) -> Any:
        self._trt.messages.clear()
        self._runtime = self._trt.module.Runtime(self._trt.logger)
        if host_code:
            self._runtime.engine_host_code_allowed = True
        engine = self._runtime.deserialize_cuda_engine(blob)
        if engine is None:
            raise EngineError(
                f'TensorRT {self._trt.version} refuses the engine: {self._trt.last_error()}; it '
                'was built for another GPU or version: build it here with compile_bundle'
            )
        return engine

    def _create_context(self) -> Any:
        if self._trt.is_rtx:
            module = self._trt.module
            config = self._engine.create_runtime_config()
            strategy = module.DynamicShapesKernelSpecializationStrategy.EAGER
            config.dynamic_shapes_kernel_specialization_strategy = strategy
            self._runtime_cache = config.create_runtime_cache()
            if self._kernels is not None and self._kernels.is_file():
                self._runtime_cache.deserialize(self._kernels.read_bytes())
            config.set_runtime_cache(self._runtime_cache)
            context = self._engine.create_execution_context(config)
        else:
            context = self._engine.create_execution_context()
        if context is None:
            raise EngineError(f'TensorRT cannot run the engine: {self._trt.last_error()}')
        return context

    def _keep_kernels(self) -> None:
        """Write what TensorRT for RTX compiled for this card, so that the next start is quick."""
        cache, path = self._runtime_cache, self._kernels
        self._runtime_cache = None
        if cache is None or path is None or path.is_file():
            return
        data = bytes(cache.serialize())
        with contextlib.suppress(OSError, OodPerceptionError):  # it only saves time
            make_file(path, lambda file: file.write_bytes(data))

    def _check_tensors(self) -> None:
        """Refuse an engine whose inputs and outputs are not those of the contract."""
        engine, mode = self._engine, self._trt.module.TensorIOMode.INPUT
        names = [str(engine.get_tensor_name(i)) for i in range(engine.num_io_tensors)]
        found = {
            name: (engine.get_tensor_mode(name) == mode, engine.get_tensor_dtype(name).name)
            for name in names
        }
        surprisal, labels = self._outputs
        wanted = {name: (True, kind) for name, kind in INPUTS.items()}
        wanted |= {surprisal: (False, 'FLOAT'), labels: (False, 'UINT8')}
        if found != wanted:
            raise EngineError(
                f'the engine has the tensors {found}, expected {wanted}: remove it from the cache '
                'and build it again'
            )

    def _make_buffers(self) -> None:
        for index in range(self._engine.num_io_tensors):
            name = str(self._engine.get_tensor_name(index))
            self._buffers.append(make_buffer(self._engine, self._cuda, name, self.max_batch))
            if not self._context.set_tensor_address(name, self._buffers[-1].address):
                raise EngineError(f'TensorRT refuses tensor {name}: {self._trt.last_error()}')

    def _set_batch(self, batch: int) -> None:
        self._batch = 0
        for buffer in self._buffers:
            if buffer.is_input and not self._context.set_input_shape(
                buffer.name, buffer.shape_of(batch)
            ):
                raise EngineError(f'TensorRT refuses a batch of {batch}: {self._trt.last_error()}')
        self._batch = batch

    def _enqueue(self, batch: int) -> None:
        """Start copies in, the network and copies out."""
        for buffer in self._buffers:
            if buffer.is_input:
                self._cuda.to_device(buffer.address, buffer.bytes_of(batch), self._stream)
        if not self._context.execute_async_v3(self._stream):
            self._batch = 0
            raise EngineError(f'TensorRT cannot run: {self._trt.last_error()}')
        for buffer in self._buffers:
            if not buffer.is_input:
                self._cuda.to_host(buffer.bytes_of(batch), buffer.address, self._stream)

    def _record(self, batch: int) -> Any:
        self._cuda.begin_capture(self._stream)
        try:
            self._enqueue(batch)
        except EngineError:
            with contextlib.suppress(EngineError):
                self._cuda.destroy_graph(self._cuda.end_capture(self._stream))
            raise
        return self._cuda.end_capture(self._stream)

    def _drop_graph(self) -> None:
        graph, self._graph = self._graph, None
        if graph is not None:
            self._cuda.destroy_graph(graph)
