# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The one place that decides cuda-python or pycuda, and asks whether there is a GPU."""

from __future__ import annotations

import importlib

from ood_perception.engines.tensorrt.cuda import Cuda
from ood_perception.engines.tensorrt.cuda_pycuda import PyCuda
from ood_perception.engines.tensorrt.cuda_python import CudaPython
from ood_perception.errors import DependencyError, EngineError


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
