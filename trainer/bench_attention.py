# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
What attention alone reaches of the machine's peak in OpenVINO: the bound of the backbone's share.

    python -m trainer.bench_attention [--threads 1] --json docs/benchmarks/attention.json

A ViT-S's attention (6 heads, 64 wide) at the tokens of three input sizes, as the exported graph
writes it (products and softmax) and as one ScaledDotProductAttention node, in turns with the
peak of square products. What the best runs reach bounds a backbone whose other products ran at
the full peak: share_bound = whole / (weights / peak + attention / reached), in units of the peak.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ood_perception.bench.machine import machine
from ood_perception.engines.matmul_peak import openvino_product, products
from ood_perception.errors import DependencyError
from ood_perception.evaluation.reports import markdown_table

from .results import write_json

HEADS, WIDTH, BLOCKS, CHAIN = 6, 64, 12, 4
TOKENS = {'280x560': 800, '392x784': 1568, '518x1036': 2738}
FORMS = ('products and softmax', 'one node')
SIDE = 1024


def attention_run(tokens: int, form: str, precision: str, threads: int) -> Callable[[], Any]:
    """Return a run of CHAIN attentions in a row; form: see FORMS."""
    try:
        import openvino
        from openvino import opset13 as ops
    except ImportError as error:
        raise DependencyError('the benchmark needs openvino: pip install openvino') from error
    given = [ops.parameter([1, HEADS, tokens, WIDTH], np.float32) for _ in range(3)]
    query, key, value = given
    node = query
    for _ in range(CHAIN):
        if form == FORMS[1]:
            node = ops.scaled_dot_product_attention(node, key, value)
        else:
            scaled = ops.multiply(node, ops.constant(np.float32(WIDTH**-0.5)))
            shares = ops.softmax(ops.matmul(scaled, key, False, True), -1)
            node = ops.matmul(shares, value, False, False)
        node = ops.add(node, query)
    options = {'INFERENCE_PRECISION_HINT': precision, 'INFERENCE_NUM_THREADS': threads}
    model = openvino.Core().compile_model(openvino.Model([node], given), 'CPU', options)
    request = model.create_infer_request()
    rng = np.random.default_rng(0)
    feeds = [rng.normal(0, 0.3, (1, HEADS, tokens, WIDTH)).astype(np.float32) for _ in range(3)]
    return lambda: request.infer(feeds, share_inputs=True)


def operations(tokens: int) -> tuple[float, float]:
    """Return a ViT-S's operations of products with weights, and of attention, all blocks."""
    width = HEADS * WIDTH
    return BLOCKS * 24.0 * tokens * width**2, BLOCKS * 4.0 * tokens**2 * width


def bounds(tokens: int, rates: dict[str, float], attention: dict[str, float]) -> dict[str, float]:
    """
    Return the largest possible share of the peak per precision, int8 as the mix with bf16.

    rates: of square products, GFLOP/s by f32, bf16, i8; attention: reached, by f32 and bf16.
    """
    linear, quadratic = operations(tokens)
    result = {}
    for name, weights, other in (
        ('f32', 'f32', 'f32'),
        ('bf16', 'bf16', 'bf16'),
        ('int8', 'i8', 'bf16'),
    ):
        if weights in rates and other in attention:
            ideal = linear / rates[weights] + quadratic / rates[other]
            result[name] = ideal / (linear / rates[weights] + quadratic / attention[other])
    return result


def measure(threads: int, rounds: int) -> dict[str, Any]:
    """Return rates of the peak and of attention, best of the rounds, and the bounds."""
    runs: dict[tuple[str, str], tuple[Callable[[], Any], float]] = {}
    for precision in ('f32', 'bf16', 'i8'):
        product = openvino_product(precision, SIDE, threads)
        if product is not None:
            runs['peak', precision] = (product, products(SIDE))
    kinds = [precision for kind, precision in runs if precision != 'i8']
    for size, tokens in TOKENS.items():
        for form in FORMS:
            for precision in kinds:
                work = CHAIN * operations(tokens)[1] / BLOCKS
                run = attention_run(tokens, form, precision, threads)
                runs[f'{size} {form}', precision] = (run, work)
    best = dict.fromkeys(runs, 0.0)
    for _ in range(rounds):
        for name, (run, work) in runs.items():
            start = time.perf_counter()
            run()
            best[name] = max(best[name], work / (time.perf_counter() - start) / 1e9)
    peak = {precision: best['peak', precision] for kind, precision in runs if kind == 'peak'}
    rows = []
    for size, tokens in TOKENS.items():
        reached = {p: max(best[f'{size} {form}', p] for form in FORMS) for p in kinds}
        forms = {f'{form} {p}': best[f'{size} {form}', p] for form in FORMS for p in kinds}
        rows.append({'size': size, 'gflops': forms, 'share_bound': bounds(tokens, peak, reached)})
    return {'machine': machine(), 'threads': threads, 'peak_gflops': peak, 'rows': rows}


def table(report: dict[str, Any]) -> str:
    """Return the Markdown table of a report."""
    header = ['size', 'attention, bf16', 'as one node', 'of the peak', 'bound of bf16', 'of int8']
    peak, rows = report['peak_gflops']['bf16'], []
    for row in report['rows']:
        rates = [row['gflops'][f'{form} bf16'] for form in FORMS]
        shares = [max(rates) / peak, row['share_bound']['bf16'], row['share_bound']['int8']]
        cells = [f'{rate:.0f} GFLOP/s' for rate in rates]
        rows.append([row['size'], *cells, *(f'{100 * share:.0f} %' for share in shares)])
    return markdown_table(header, rows)


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
    print(table(report))
    if options.json:
        write_json(options.json, report)


if __name__ == '__main__':
    main()
