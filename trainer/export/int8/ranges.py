# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What static int8 needs to know of a backbone: its activations on in-distribution frames."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ood_perception.engines.graphs.precision_types import read_model
from ood_perception.engines.int8 import Quantization, linear_nodes, smoothable
from ood_perception.errors import required
from ood_perception.requirements import install_command

STRENGTH = 0.5  # SmoothQuant's alpha: how much of the spread goes into the weights
_TINY = 1e-5
Array = npt.NDArray[Any]


def measured_quantization(path: Path, images: Iterable[Array]) -> Quantization:
    """
    Run a float32 backbone on frames and return ranges and smoothing of every product with weights.

    path: the completed backbone.onnx. images: uint8 (h, w, 3) RGB at network size.
    """
    model = read_model(path)
    channels = channel_ranges(model, images)
    smoothing = {
        name: exponents_of(values, _weights_behind(model, name))
        for name, values in channels.items()
        if smoothable(model, name)
    }
    ranges = {}
    for name, values in channels.items():
        scale = np.exp2(np.array(smoothing.get(name, 0.0), np.float32))
        low, high = (values / scale).min(axis=2)[:, 0], (values / scale).max(axis=2)[:, 1]
        # the mean over frames: one frame's extremes would cost all others bits
        ranges[name] = (float(low.mean()), float(high.mean()))
    return Quantization(ranges, smoothing)


def channel_ranges(model: Any, images: Iterable[Array]) -> dict[str, Array]:
    """Return input of products with weights -> float32 (frames, 2, channels): least, greatest."""
    remedy = f'ranges need onnxruntime: {install_command("train")}'
    onnxruntime = required('onnxruntime', remedy)
    from onnx import TensorProto, helper

    names = list(dict.fromkeys(node.input[0] for node in linear_nodes(model)))
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names]
    del model.graph.output[:]
    model.graph.output.extend(outputs)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    rows: dict[str, list[Array]] = {name: [] for name in names}
    for image in images:
        for name, values in zip(names, session.run(names, {'image': image[None]}), strict=True):
            flat = values.reshape(-1, values.shape[-1])
            rows[name].append(np.stack([flat.min(axis=0), flat.max(axis=0)]))
    return {name: np.stack(values).astype(np.float32) for name, values in rows.items()}


def exponents_of(ranges: Array, weights: Array) -> tuple[int, ...]:
    """
    Return log2 of each channel's divisor: max |x|^a / max |w|^(1 - a), rounded, of mean 0.

    ranges: float32 (frames, 2, channels). weights: float32 (channels,), largest |w| that meets it.
    """
    largest = np.maximum(np.abs(ranges).max(axis=1).mean(axis=0), _TINY)
    wanted = STRENGTH * np.log2(largest) - (1 - STRENGTH) * np.log2(np.maximum(weights, _TINY))
    return tuple(int(k) for k in np.rint(wanted - wanted.mean()))


def _weights_behind(model: Any, name: str) -> Array:
    """Return float32 (channels,): the largest |w| of each row, over all readers of a tensor."""
    from onnx import numpy_helper

    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    rows = [
        np.abs(numpy_helper.to_array(stored[node.input[1]])).max(axis=1)
        for node in linear_nodes(model)
        if node.input[0] == name
    ]
    return np.asarray(np.max(rows, axis=0))
