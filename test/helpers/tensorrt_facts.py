# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What TensorRT and CUDA this machine has, for tests that need or must not have one."""

import pytest

from ood_perception.engines.tensorrt.cuda import load_cuda, require_gpu
from ood_perception.errors import OodPerceptionError


def gpu():
    """Return (name, compute capability), None without a usable GPU."""
    try:
        return require_gpu(load_cuda())
    except OodPerceptionError:
        return None


def skip_where_a_gpu_is():
    """Skip a test of what happens without a GPU."""
    if gpu():
        pytest.skip(f'this machine has a GPU: {gpu()[0]}')


def require_rtx():
    """Return TensorRT for RTX; skip where its wheels are not installed."""
    pytest.importorskip('tensorrt_rtx_bindings', reason="pip install '.[tensorrt-rtx]' brings it")
    from ood_perception.engines.tensorrt.module import load_tensorrt

    load_tensorrt.cache_clear()
    trt = load_tensorrt()
    if not trt.is_rtx:
        pytest.skip(f'{trt.name} {trt.version} is used here instead of TensorRT for RTX')
    return trt
