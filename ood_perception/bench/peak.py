# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
The machine's best rate of matrix products per precision: what a share of the peak refers to.

    python -m ood_perception.bench.peak      a measuring process, see bench.protocol
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ood_perception.bench.protocol import Measure, Times, serve
from ood_perception.errors import required
from ood_perception.types import JsonDict

SIDES = (512, 1024, 2048)
CHAIN = 4  # products in a row, so that the way in and out hardly counts
PRECISIONS = ('f32', 'bf16', 'i8')


def products(side: int) -> float:
    """Return the operations of one run: CHAIN products of side x side matrices."""
    return CHAIN * 2.0 * side**3


def openvino_product(precision: str, side: int, threads: int) -> Callable[[], Any] | None:
    """
    Return a run of CHAIN products in OpenVINO; None where the CPU has no such precision.

    precision: f32, bf16 or i8 (8-bit inputs, 32-bit sums). Raises DependencyError without it.
    """
    openvino = required('openvino', 'the peak is measured with openvino: pip install openvino')
    ops = openvino.opset13
    core = openvino.Core()
    capabilities = core.get_property('CPU', 'OPTIMIZATION_CAPABILITIES')
    if {'f32': 'FP32', 'bf16': 'BF16', 'i8': 'INT8'}[precision] not in capabilities:
        return None
    generator = np.random.default_rng(0)
    given = ops.parameter([side, side], np.float32)
    node = given
    for _ in range(CHAIN):
        # half of the range of 8 bits, which sums exactly on a CPU without VNNI, too (engines.cpu)
        weights = ops.constant(generator.uniform(-0.5, 0.5, (side, side)).astype(np.float32))
        if precision == 'i8':
            node = ops.fake_quantize(node, -128.0, 127.0, -128.0, 127.0, 256)
            weights = ops.fake_quantize(weights, -1.0, 1.0, -1.0, 1.0, 255)
        node = ops.matmul(node, weights, False, True)
    options = {
        'INFERENCE_PRECISION_HINT': 'bf16' if precision == 'bf16' else 'f32',
        'INFERENCE_NUM_THREADS': threads,
        'NUM_STREAMS': 1,
    }
    model = openvino.Model([node], [given], 'products')
    request = core.compile_model(model, 'CPU', options).create_infer_request()
    feed = {0: generator.uniform(-1, 1, (side, side)).astype(np.float32)}
    return lambda: request.infer(feed, share_inputs=True, share_outputs=True)


def numpy_product(side: int) -> Callable[[], Any]:
    """Return a run of CHAIN products in numpy's BLAS (threads: see its environment variables)."""
    generator = np.random.default_rng(0)
    left, right = (generator.uniform(-1, 1, (side, side)).astype(np.float32) for _ in range(2))
    return lambda: [left @ right for _ in range(CHAIN)]


def prepare(task: JsonDict) -> tuple[JsonDict, Measure, Callable[[], JsonDict]]:
    """Compile all products for task['threads'], 'sides', 'precisions'; see bench.protocol."""
    runs: dict[str, Callable[[], Any]] = {}
    work: dict[str, float] = {}
    for side in task['sides']:
        for precision in task.get('precisions', PRECISIONS):
            run = openvino_product(precision, side, task['threads'])
            if run is not None:
                runs[f'openvino {precision} {side}'] = run
        runs[f'numpy f32 {side}'] = numpy_product(side)
    for name in runs:
        work[name] = products(int(name.split()[-1]))

    def measure(count: int) -> Times:
        return {name: [_milliseconds(run) for _ in range(count)] for name, run in runs.items()}

    return {'operations': work}, measure, lambda: {}


def best_rates(times: Times, operations: dict[str, float]) -> dict[str, float]:
    """Return the best GFLOP/s per precision over all sides, libraries and runs."""
    best: dict[str, float] = {}
    for name, values in times.items():
        precision = name.split()[1]
        best[precision] = max(best.get(precision, 0.0), operations[name] / min(values) / 1e6)
    return best


def best_of_all_cores(
    precisions: Sequence[str] = PRECISIONS, sides: Sequence[int] = SIDES, runs: int = 5
) -> dict[str, float]:
    """Measure here and now: the best GFLOP/s per precision on all cores of this process."""
    threads = len(os.sched_getaffinity(0))
    task = {'threads': threads, 'sides': list(sides), 'precisions': list(precisions)}
    facts, measure, _ = prepare(task)
    return best_rates(measure(runs), facts['operations'])


def _milliseconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return (time.perf_counter() - start) * 1e3


if __name__ == '__main__':
    sys.exit(serve(prepare))
