# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Memory of an engine's inputs and outputs: on the device, and page-locked on the host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ood_perception.engines.tensorrt.cuda import Cuda
from ood_perception.errors import EngineError
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
            'build with heights and widths empty'
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
