# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The table of bench_precisions: a row per size, engine and precision, from whatever there is."""

from __future__ import annotations

from typing import Any

from ood_perception.engines.base import MODES
from ood_perception.evaluation.reports import markdown_table

ENGINES = (
    ('openvino', 'f32'),
    ('openvino', 'bf16'),
    ('openvino', 'int8'),
    ('onnxruntime', 'f32'),
    ('onnxruntime', 'int8'),
)
THROUGHPUT = MODES[1]


def table(report: dict[str, Any]) -> str:
    """Return the Markdown table of a report."""
    header = ['size', 'engine', 'precision', 'backbone, ms', 'torch / own']
    header += ['share of peak, median', 'fastest runs']
    header += ['a thread each: ms per picture', 'torch / own', 'share of peak, median']
    header += ['image: AP', 'image: FPR95', 'ground: AP', 'ground: FPR95']
    rows = []
    for size in report['sizes']:
        speed = report['speed'].get(size, {})
        for runtime, precision in ENGINES:
            timed = _one_picture(speed, runtime, precision)
            accuracy = report['accuracy'].get(size, {}).get(f'{runtime} {precision}')
            if timed is None and accuracy is None:
                continue
            cells = [size, runtime, precision, *(timed or ['-'] * 4)]
            cells += _a_thread_each(speed, runtime, precision) or ['-'] * 3
            for region in ('image', 'ground'):
                values = (accuracy or {}).get(region, {})
                cells += [
                    f'{values[name]:.2f}' if values else '-'
                    for name in ('average_precision', 'fpr95')
                ]
            rows.append(cells)
    return markdown_table(header, rows)


def _one_picture(speed: dict[str, Any], runtime: str, precision: str) -> list[str] | None:
    """
    Return median time, ratio to torch, and the share of the peak of the median and of the 5 %.

    The peak is the best of its runs; on a machine that others share, the like of it is the best
    runs of the backbone.
    """
    result = _result(speed, runtime, precision, MODES[0])
    if result is None or 'error' in result:
        return result and ['failed', '-', '-', '-']
    times = result['stages_ms']['backbone']
    shares = [_share(speed, precision, times[name]) for name in ('p50', 'p5')]
    return [f'{times["p50"]:.0f}', _ratio(result), *shares]


def _a_thread_each(speed: dict[str, Any], runtime: str, precision: str) -> list[str] | None:
    """Return median time per picture, ratio to torch on the same batch, share of the median."""
    result = _result(speed, runtime, precision, THROUGHPUT)
    if result is None or 'error' in result:
        return result and ['failed', '-', '-']
    time = result['stages_ms']['backbone']['p50'] / result['case']['batch']
    return [f'{time:.0f}', _ratio(result), _share(speed, precision, time)]


def _result(speed: dict[str, Any], *key: str) -> dict[str, Any] | None:
    for result in speed.get('results', []):
        case = result['case']
        if (case['runtime'], case['precision'], case.get('mode', MODES[0])) == key:
            return dict(result)
    return None


def _ratio(result: dict[str, Any]) -> str:
    ratio = result['ratios'].get('torch_backbone', {})
    return f'{ratio["median"]:.2f}' if ratio else '-'


def _share(speed: dict[str, Any], precision: str, milliseconds: float) -> str:
    ideal = speed.get('ideal_ms', {}).get(precision)
    return f'{100 * ideal / milliseconds:.0f} %' if ideal else '-'
