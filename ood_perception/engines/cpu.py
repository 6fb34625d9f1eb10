# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
What this CPU makes of int8, asked once per runtime: of the runtime itself, by a product.

No list of instructions answers it: /proc/cpuinfo names the host's under an emulator, numpy's
table of CPUID has no AVX-VNNI, OpenVINO tells INT8 of every CPU, and none of them knows of a limit
that was set for a runtime (ONEDNN_MAX_CPU_ISA).
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ood_perception.cpu_flags import cpu_flags

SIDE = 64  # of the product that asks: several registers wide
EXACT_BITS, REDUCED_BITS = 8, 7
SATURATES = 'this CPU adds products of bytes in 16 bits, without VNNI'
Array = NDArray[Any]


@dataclass(frozen=True)
class Int8Products:
    """
    How a runtime multiplies uint8 activations by int8 weights on this CPU.

    weight_bits: of the weights whose products it sums without an error: 8, or 7 (reduced range)
        where pairs of products are added in saturating int16, as x86 without VNNI does.
    kernel: what the runtime calls it, '' where it does not tell; part of the cache's key.
    slower: why int8 is no faster than float32, '' where it is.
    """

    weight_bits: int
    kernel: str = ''
    slower: str = ''

    @property
    def refused(self) -> str:
        """Why int8 is not even built when asked for by name: it would cost both time and AP."""
        return self.slower if self.weight_bits == REDUCED_BITS else ''


@cache
def openvino_int8() -> Int8Products:
    """Return what OpenVINO does; it must be installed."""
    import openvino

    core = openvino.Core()
    options = {'INFERENCE_NUM_THREADS': 1, 'INFERENCE_PRECISION_HINT': 'f32'}
    compiled = core.compile_model(core.read_model(_product()), 'CPU', options)
    kernel = _kernel(compiled)
    if _is_exact(compiled(_bytes())[0]):
        return Int8Products(EXACT_BITS, kernel, _without_dot_products())
    if 'avx512' in kernel:
        return Int8Products(REDUCED_BITS, kernel)
    # The whole backbone took 1.08 of float32's time: docs/engines.md.
    reason = f'{SATURATES}, and without AVX-512 OpenVINO is no faster in int8 than in f32'
    return Int8Products(REDUCED_BITS, kernel, reason)


@cache
def onnxruntime_int8() -> Int8Products:
    """Return what ONNX Runtime does; it must be installed."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(_product(), options, providers=['CPUExecutionProvider'])
    if _is_exact(session.run(None, {'x': _bytes()})[0]):
        return Int8Products(EXACT_BITS, slower=_without_dot_products())
    return Int8Products(REDUCED_BITS)  # with AVX2 already 0.74 of float32's time: docs/engines.md


def _bytes() -> Array:
    return np.full((1, SIDE, SIDE), 255, np.float32)


def _is_exact(sums: Array) -> bool:
    """Return whether sums of 255 * 127 are right: two of them leave int16."""
    return bool((sums == SIDE * 255 * 127).all())


def _product() -> bytes:
    """Return a graph of one int8 product, Q/DQ pairs as in engines.int8, weights all 127."""
    import onnx

    model = onnx.parser.parse_model(f"""
        <ir_version: 8, opset_import: ["": 17]>
        product (float[1, {SIDE}, {SIDE}] x) => (float[1, {SIDE}, {SIDE}] y)
        <float scale = {{1}}, uint8 zero = {{0}}> {{
            quantised = QuantizeLinear(x, scale, zero)
            values = DequantizeLinear(quantised, scale, zero)
            weights = DequantizeLinear<axis = 1>(codes, scales, zeros)
            y = MatMul(values, weights)
        }}""")
    constants = {
        'codes': np.full((SIDE, SIDE), 127, np.int8),
        'scales': np.ones(SIDE, np.float32),
        'zeros': np.zeros(SIDE, np.int8),
    }
    stored = [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()]
    model.graph.initializer.extend(stored)
    return bytes(model.SerializeToString())


def _kernel(compiled: Any) -> str:
    """Return OpenVINO's name of the product's kernel, 'brgemm_avx512_I8', '' if it has none."""
    for node in compiled.get_runtime_model().get_ordered_ops():
        facts = node.get_rt_info()
        if 'layerType' in facts and facts['layerType'].astype(str) in ('FullyConnected', 'MatMul'):
            return str(facts['primitiveType'].astype(str))
    return ''


def _without_dot_products() -> str:
    """Return why exact sums are no faster here: on Arm without dot products, '' elsewhere."""
    if platform.machine() not in ('aarch64', 'arm64') or {'asimddp', 'i8mm'} & {*cpu_flags()}:
        return ''
    return 'this CPU has no instructions for it (dot products of bytes)'
