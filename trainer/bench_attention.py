# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
What the parts of a ViT-S block reach of the machine's peak in OpenVINO, each run alone.

    python -m trainer.bench_attention [--threads 1] --json docs/benchmarks/attention.json

Attention (6 heads, 64 wide) at the tokens of three input sizes: as the exported graph writes it
(products and softmax), as one ScaledDotProductAttention node, without its softmax, and in torch's
own kernel; the block's products with weights, without and with GELU. In turns with the peak of
square products, the best of the rounds counts. With norms, residual sums and all else for free the
backbone's share of the peak is at most ideal / (products with weights + attention), times of these
parts.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ood_perception.bench.machine import machine
from ood_perception.engines.matmul_peak import openvino_product, products
from ood_perception.errors import DependencyError
from ood_perception.evaluation.reports import markdown_table
from ood_perception.evaluation.results import write_json

HEADS, WIDTH, BLOCKS, CHAIN = 6, 64, 12, 4
TOKENS = {'280x560': 800, '392x784': 1568, '518x1036': 2738}
FORMS = ('products and softmax', 'one node')
NO_SOFTMAX = 'without softmax'
TORCH = 'torch'  # beside OpenVINO's: is there a faster kernel?
WEIGHTS, GELU = 'products with weights', 'products with weights, GELU'
MIXES = {'f32': ('f32', 'f32'), 'bf16': ('bf16', 'bf16'), 'int8': ('i8', 'bf16')}
STEPS = ('products alone', 'and softmax', 'and GELU')
SIDE = 1024
Rates = Mapping[tuple[str, str], float]  # (part, precision) -> GFLOP/s


def attention_run(tokens: int, form: str, precision: str, threads: int) -> Callable[[], Any]:
    """Return a run of CHAIN attentions in a row; form: one of FORMS, or NO_SOFTMAX."""
    ops = _openvino().opset13
    given = [ops.parameter([1, HEADS, tokens, WIDTH], np.float32) for _ in range(3)]
    query, key, value = given
    node = query
    for _ in range(CHAIN):
        if form == FORMS[1]:
            node = ops.scaled_dot_product_attention(node, key, value)
        else:
            scaled = ops.multiply(node, ops.constant(np.float32(WIDTH**-0.5)))
            scores = ops.matmul(scaled, key, False, True)
            shares = scores if form == NO_SOFTMAX else ops.softmax(scores, -1)
            node = ops.matmul(shares, value, False, False)
        node = ops.add(node, query)
    rng = np.random.default_rng(0)
    feeds = [rng.normal(0, 0.3, (1, HEADS, tokens, WIDTH)).astype(np.float32) for _ in range(3)]
    return _compiled(node, given, precision, threads, feeds)


def torch_attention_run(tokens: int, precision: str, threads: int) -> Callable[[], Any]:
    """Return the same run in torch's scaled_dot_product_attention; precision: f32 or bf16."""
    import torch

    attention = torch.nn.functional.scaled_dot_product_attention
    kind = torch.bfloat16 if precision == 'bf16' else torch.float32
    rng = np.random.default_rng(0)
    shape = (1, HEADS, tokens, WIDTH)
    draws = [torch.from_numpy(rng.normal(0, 0.3, shape)).to(kind) for _ in range(3)]

    @torch.inference_mode()
    def run() -> torch.Tensor:
        torch.set_num_threads(threads)
        query, key, value = draws
        node = query
        for _ in range(CHAIN):
            node = attention(node, key, value) + query
        return node

    return run


def weights_run(tokens: int, part: str, precision: str, threads: int) -> Callable[[], Any]:
    """
    Return a run of one block's six products with weights in a row; part: WEIGHTS or GELU.

    precision: f32, bf16, or i8 (8-bit inputs, 32-bit sums, the rest in bf16 where it can be).
    """
    openvino = _openvino()
    ops, rng, width = openvino.opset13, np.random.default_rng(0), HEADS * WIDTH
    given = ops.parameter([tokens, width], np.float32)
    node = given
    for rows in (width, width, width, width, 4 * width, width):
        columns = node.get_output_partial_shape(0)[1].get_length()
        drawn = rng.uniform(-1, 1, (rows, columns)).astype(np.float32)
        weights = ops.constant(drawn)
        if precision == 'i8':
            node = ops.fake_quantize(node, -128.0, 127.0, -128.0, 127.0, 256)
            weights = ops.fake_quantize(weights, -1.0, 1.0, -1.0, 1.0, 255)
        node = ops.matmul(node, weights, False, True)
        if part == GELU and rows == 4 * width:
            node = ops.gelu(node, 'erf')
    feed = rng.uniform(-1, 1, (tokens, width)).astype(np.float32)
    reduced = 'BF16' in openvino.Core().get_property('CPU', 'OPTIMIZATION_CAPABILITIES')
    hint = ('bf16' if reduced else 'f32') if precision == 'i8' else precision
    return _compiled(node, [given], hint, threads, [feed])


def _compiled(
    node: Any, given: list[Any], precision: str, threads: int, feeds: list[Any]
) -> Callable[[], Any]:
    openvino = _openvino()
    options = {
        'INFERENCE_PRECISION_HINT': precision,
        'INFERENCE_NUM_THREADS': threads,
        'NUM_STREAMS': 1,
    }
    model = openvino.Core().compile_model(openvino.Model([node], given), 'CPU', options)
    request = model.create_infer_request()
    return lambda: request.infer(feeds, share_inputs=True, share_outputs=True)


def _openvino() -> Any:
    try:
        import openvino
        import openvino.opset13
    except ImportError as error:
        raise DependencyError('the benchmark needs openvino: pip install openvino') from error
    return openvino


def operations(tokens: int) -> tuple[float, float]:
    """Return a ViT-S's operations of products with weights, and of attention, all blocks."""
    width = HEADS * WIDTH
    return BLOCKS * 24.0 * tokens * width**2, BLOCKS * 4.0 * tokens**2 * width


def bounds(tokens: int, peak: Mapping[str, float], parts: Rates) -> dict[str, list[float]]:
    """
    Return per precision the largest possible share of the peak after each of STEPS.

    peak: of square products, GFLOP/s by f32, bf16, i8. parts: what the parts reach; 'int8' is the
    mix of i8 products with weights and bf16 attention.
    """
    linear, quadratic = operations(tokens)
    result = {}
    for name, (weights, attention) in MIXES.items():
        if weights not in peak or attention not in peak:
            continue
        ideal = linear / peak[weights] + quadratic / peak[attention]
        whole = max(parts[form, attention] for form in FORMS)
        steps = (
            (parts[WEIGHTS, weights], parts[NO_SOFTMAX, attention]),
            (parts[WEIGHTS, weights], whole),
            (parts[GELU, weights], whole),
        )
        result[name] = [ideal / (linear / one + quadratic / other) for one, other in steps]
    return result


def runs_of(
    tokens: int, precisions: list[str], threads: int
) -> dict[tuple[str, str], tuple[Callable[[], Any], float]]:
    """Return (part, precision) -> a run and its operations."""
    linear, quadratic = (amount / BLOCKS for amount in operations(tokens))
    runs: dict[tuple[str, str], tuple[Callable[[], Any], float]] = {}
    for precision in precisions:
        for part in (WEIGHTS, GELU):
            runs[part, precision] = (weights_run(tokens, part, precision, threads), linear)
        if precision != 'i8':
            for form in (*FORMS, NO_SOFTMAX):
                run = attention_run(tokens, form, precision, threads)
                runs[form, precision] = (run, CHAIN * quadratic)
            other = torch_attention_run(tokens, precision, threads)
            runs[TORCH, precision] = (other, CHAIN * quadratic)
    return runs


def measure(threads: int, rounds: int) -> dict[str, Any]:
    """Return rates of the peak and of the parts, best of the rounds, and the bounds."""
    squares = {p: openvino_product(p, SIDE, threads) for p in ('f32', 'bf16', 'i8')}
    peaks = {p: (run, products(SIDE)) for p, run in squares.items() if run is not None}
    peak = dict.fromkeys(peaks, 0.0)
    rows = []
    for size, tokens in TOKENS.items():
        runs = runs_of(tokens, list(peaks), threads)
        parts = dict.fromkeys(runs, 0.0)
        for _ in range(rounds):
            for precision, pair in peaks.items():
                peak[precision] = max(peak[precision], _rate(*pair))
            for key, pair in runs.items():
                parts[key] = max(parts[key], _rate(*pair))
        rows.append((size, parts))
    report = [
        {
            'size': size,
            'gflops': {f'{part} {precision}': rate for (part, precision), rate in parts.items()},
            'share_bound': bounds(TOKENS[size], peak, parts),
        }
        for size, parts in rows
    ]
    return {'machine': machine(), 'threads': threads, 'peak_gflops': peak, 'rows': report}


def _rate(run: Callable[[], Any], work: float) -> float:
    start = time.perf_counter()
    run()
    return work / (time.perf_counter() - start) / 1e9


def table(report: dict[str, Any]) -> str:
    """Return the Markdown table of a report: the bounds, step by step."""
    header = ['size', 'precision', *(f'bound: {step}' for step in STEPS)]
    rows = [
        [row['size'], name, *(f'{100 * share:.0f} %' for share in shares)]
        for row in report['rows']
        for name, shares in row['share_bound'].items()
    ]
    return markdown_table(header, rows)


def kernels(report: dict[str, Any]) -> str:
    """Return the Markdown table of attention's kernels: what each reaches of the peak."""
    forms = (*FORMS, NO_SOFTMAX, TORCH)
    rows = [
        [row['size'], precision, *(f'{100 * rate / peak:.0f} %' for rate in rates)]
        for row in report['rows']
        for precision, peak in report['peak_gflops'].items()
        if (rates := [r for form in forms if (r := row['gflops'].get(f'{form} {precision}'))])
    ]
    return markdown_table(['size', 'precision', *forms], rows)


def main() -> None:
    """Measure, print, and write the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--rounds', type=int, default=10)
    parser.add_argument('--json', type=Path, help='write the report to this file')
    options = parser.parse_args()
    report = measure(options.threads, options.rounds)
    print(table(report), kernels(report), sep='\n')
    if options.json:
        write_json(options.json, report)


if __name__ == '__main__':
    main()
