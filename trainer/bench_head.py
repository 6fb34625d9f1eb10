# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Time the PixOOD head on the CPU: etalons met on the patch grid against upsampled features.

    python -m trainer.bench_head [--grid 27x48] [--bank 2x1000 --bank 11x200] [--factor 7]

One thread, random numbers: the time depends on the sizes alone.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ood_perception.errors import DependencyError

from .export import to_onnx
from .heads.upsampling import SquaredDistances, naive_squared_distances

FORMS = ('naive', 'fast')
Run = Callable[[], Any]


@dataclass(frozen=True)
class Timing:
    """Median CPU milliseconds of a form in a runtime; its largest relative error."""

    form: str
    runtime: str
    milliseconds: float
    error: float


class _Distances(nn.Module):
    """Either form as one output (B, classes, gh*f, gw*f), as the exporter wants it."""

    def __init__(self, banks: list[torch.Tensor], factor: int, form: str) -> None:
        super().__init__()
        self.banks = nn.ParameterList([nn.Parameter(bank, requires_grad=False) for bank in banks])
        self.fast = SquaredDistances(banks, factor) if form == 'fast' else None
        self.factor = factor

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        if self.fast is not None:
            return torch.stack(self.fast(tokens), 1)
        return torch.stack(naive_squared_distances(tokens, list(self.banks), self.factor), 1)


def time_forms(
    grid: tuple[int, int],
    classes: int,
    etalons: int,
    factor: int = 7,
    dim: int = 384,
    repeats: int = 5,
) -> list[Timing]:
    """Time both forms in torch, ONNX Runtime and OpenVINO (float32, one thread)."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(1, *grid, dim, generator=generator)
    banks = [torch.randn(etalons, dim, generator=generator) for _ in range(classes)]
    truth = _Distances([bank.double() for bank in banks], factor, 'fast')(tokens.double()).numpy()
    timings = []
    for form in FORMS:
        module = _Distances(banks, factor, form)
        model = to_onnx(module, (tokens,), ('tokens',), ('distances',)).SerializeToString()
        values = tokens.numpy()
        runs = {
            'torch': lambda module=module: module(tokens).numpy(),
            'onnxruntime': _onnxruntime(model, values),
            'openvino': _openvino(model, values),
        }
        for runtime, run in runs.items():
            error = float((np.abs(run() - truth) / truth).max())
            timings.append(Timing(form, runtime, _median_ms(run, repeats), error))
    return timings


def _onnxruntime(model: bytes, tokens: Any) -> Run:
    try:
        import onnxruntime
    except ImportError as error:
        raise DependencyError("pip install 'ood_perception[onnxruntime]'") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=['CPUExecutionProvider'])
    return lambda: session.run(None, {'tokens': tokens})[0]


def _openvino(model: bytes, tokens: Any) -> Run:
    try:
        import openvino
    except ImportError as error:
        raise DependencyError('the benchmark needs openvino: pip install openvino') from error
    core = openvino.Core()
    graph = core.read_model(model)
    graph.reshape(list(tokens.shape))  # a fixed batch: twice as fast as a free one
    options = {'INFERENCE_PRECISION_HINT': 'f32', 'INFERENCE_NUM_THREADS': 1, 'NUM_STREAMS': 1}
    request = core.compile_model(graph, 'CPU', options).create_infer_request()
    return lambda: next(iter(request.infer({'tokens': tokens}).values()))


def _median_ms(run: Run, repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.process_time()  # one thread: what other processes do hardly counts
        run()
        times.append(time.process_time() - start)
    return 1e3 * float(np.median(times))


def report(timings: list[Timing]) -> str:
    """Return one line per runtime: both times, their ratio and both errors."""
    found = {(timing.form, timing.runtime): timing for timing in timings}
    lines = []
    for runtime in dict.fromkeys(timing.runtime for timing in timings):
        naive, fast = found['naive', runtime], found['fast', runtime]
        lines.append(
            f'  {runtime:12s} naive {naive.milliseconds:8.1f} ms   fast {fast.milliseconds:8.1f} '
            f'ms   x{naive.milliseconds / fast.milliseconds:5.1f}   error '
            f'{naive.error:.1e} / {fast.error:.1e}'
        )
    return '\n'.join(lines)


def _pair(text: str) -> tuple[int, int]:
    first, _, second = text.partition('x')
    return int(first), int(second)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--grid', type=_pair, action='append', help='patches, HxW')
    parser.add_argument('--bank', type=_pair, action='append', help='CLASSESxETALONS')
    parser.add_argument('--factor', type=int, default=7)
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--json', type=Path, help='also write every timing to this file')
    options = parser.parse_args()
    torch.set_num_threads(1)
    record = []
    for grid in options.grid or [(20, 40), (27, 48)]:
        for classes, etalons in options.bank or [(2, 1000), (11, 200)]:
            print(f'{grid[0]}x{grid[1]} patches, x{options.factor}, {classes} x {etalons} etalons')
            timings = time_forms(grid, classes, etalons, options.factor, repeats=options.repeats)
            print(report(timings), flush=True)
            case = {'grid': grid, 'classes': classes, 'etalons': etalons}
            record += [{**case, 'factor': options.factor, **asdict(t)} for t in timings]
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(record, indent=1) + '\n', encoding='utf-8')


if __name__ == '__main__':
    main()
