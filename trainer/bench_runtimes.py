# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""An exported graph in a CPU runtime, as one call: for benchmarks of parts that are no bundle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ood_perception.errors import DependencyError

Run = Callable[[], Any]


def openvino_run(
    model: bytes, inputs: Sequence[np.ndarray[Any, Any]], precision: str = 'f32', threads: int = 1
) -> Run:
    """Return a call that runs a graph on inputs (in its order); it returns the first output."""
    try:
        import openvino
    except ImportError as error:
        raise DependencyError('the benchmark needs openvino: pip install openvino') from error
    core = openvino.Core()
    graph = core.read_model(model)
    # a fixed batch: twice as fast as a free one
    shapes = [list(value.shape) for value in inputs]
    graph.reshape(dict(zip([port.any_name for port in graph.inputs], shapes, strict=True)))
    options = {
        'INFERENCE_PRECISION_HINT': precision,
        'INFERENCE_NUM_THREADS': threads,
        'NUM_STREAMS': 1,
    }
    request = core.compile_model(graph, 'CPU', options).create_infer_request()
    feeds = dict(enumerate(inputs))

    def run() -> Any:
        request.infer(feeds, share_inputs=True, share_outputs=True)
        return request.get_output_tensor(0).data

    return run


def onnxruntime_run(model: bytes, inputs: Sequence[np.ndarray[Any, Any]], threads: int = 1) -> Run:
    """Do as openvino_run in ONNX Runtime, float32."""
    try:
        import onnxruntime
    except ImportError as error:
        raise DependencyError("pip install 'ood_perception[onnxruntime]'") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options, providers=['CPUExecutionProvider'])
    names = [port.name for port in session.get_inputs()]
    feeds = dict(zip(names, inputs, strict=True))
    return lambda: session.run(None, feeds)[0]
