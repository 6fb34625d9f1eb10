# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Time the PixOOD head on the CPU: against upsampled features, and against the backbone.

    python -m trainer.bench_head [--grid 27x48] [--bank 2x1000 --bank 19x1000] [--factor 7]

Forms: etalons met on the patch grid against features upsampled first. Shares: the whole head
(distances, classifier, densities, tables, in OpenVINO float32) against the whole backbone in
float32 and bf16. Random numbers: the time depends on the sizes alone. One thread; everything
takes turns, so that what slows the machine down for a while slows all of it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ood_perception.bench.machine import machine
from ood_perception.bench.statistics import ratio
from ood_perception.bundle.cache import make_file
from ood_perception.json_files import json_text
from ood_perception.types import JsonDict

from .bench_models import Distances, named_backbone, random_banks, random_pixood
from .bench_runtimes import onnxruntime_run, openvino_run
from .export import head_to_onnx, to_onnx
from .heads.pixood_module import PixOODHead

Run = Callable[[], Any]
Grid = tuple[int, int]
PRECISIONS = ('bf16', 'f32')
ROUNDS = 7


def in_turns(runs: dict[str, Run], rounds: int) -> dict[str, list[list[float]]]:
    """Return per run and round its CPU milliseconds (one thread: the wall's, undisturbed)."""
    for run in runs.values():
        run()
    times: dict[str, list[list[float]]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.process_time()
            run()
            times[name].append([1e3 * (time.process_time() - start)])
    return times


def median_of(times: list[list[float]]) -> float:
    """Return the median of all rounds."""
    return float(np.median(np.concatenate(times)))


def time_forms(
    grid: Grid, classes: int, etalons: int, factor: int = 7, dim: int = 384, rounds: int = ROUNDS
) -> list[JsonDict]:
    """
    Time both forms of the distances in torch, ONNX Runtime and OpenVINO, float32.

    Returns per runtime naive_ms, fast_ms (medians), their ratio over the rounds, and the largest
    relative error of each against float64.
    """
    banks = random_banks([etalons] * classes, dim)
    tokens = torch.randn(1, *grid, dim, generator=torch.Generator().manual_seed(0))
    runs, errors = _form_runs(tokens, banks, factor)
    times = in_turns(runs, rounds)
    found = []
    for runtime in ('torch', 'onnxruntime', 'openvino'):
        naive, fast = f'{runtime} naive', f'{runtime} fast'
        found.append(
            {
                'grid': list(grid),
                'classes': classes,
                'etalons': etalons,
                'factor': factor,
                'runtime': runtime,
                'naive_ms': median_of(times[naive]),
                'fast_ms': median_of(times[fast]),
                'ratio': ratio(times[naive], times[fast]),
                'naive_error': errors[naive],
                'fast_error': errors[fast],
            }
        )
    return found


def _form_runs(
    tokens: torch.Tensor, banks: list[torch.Tensor], factor: int
) -> tuple[dict[str, Run], dict[str, float]]:
    """Return '<runtime> <form>' -> run, and its largest relative error against float64."""
    exact = Distances([bank.double() for bank in banks], factor, 'naive')
    truth = exact(tokens.double()).numpy()
    runs: dict[str, Run] = {}
    for form in ('naive', 'fast'):
        module = Distances(banks, factor, form)
        model = to_onnx(module, (tokens,), ('tokens',), ('distances',)).SerializeToString()
        inputs = [tokens.numpy()]
        runs[f'torch {form}'] = lambda module=module: module(tokens).numpy()
        runs[f'onnxruntime {form}'] = onnxruntime_run(model, inputs)
        runs[f'openvino {form}'] = openvino_run(model, inputs)
    errors = {name: float((np.abs(run() - truth) / truth).max()) for name, run in runs.items()}
    return runs, errors


def time_shares(
    grid: Grid,
    counts: list[int],
    etalons: int,
    factor: int = 7,
    name: str = 'dinov2-s14',
    rounds: int = ROUNDS,
) -> list[JsonDict]:
    """
    Time whole heads of several class counts and the backbone in each precision, in turns.

    Returns per precision and class count backbone_ms, head_ms (medians) and ratio = head over
    backbone, over the rounds.
    """
    backbone = named_backbone(name)
    size = (grid[0] * backbone.patch, grid[1] * backbone.patch)
    layers = (5, 8, backbone.depth - 1)
    runs = _backbone_runs(backbone.baked(*size, layers), size)
    for count in counts:
        runs[f'head {count}'] = _head_run(grid, count, etalons, factor, backbone.dim)
    times = in_turns(runs, rounds)
    return [
        {
            'grid': list(grid),
            'backbone': f'{name} {precision}',
            'backbone_ms': median_of(times[precision]),
            'classes': count,
            'etalons': etalons,
            'factor': factor,
            'head_ms': median_of(times[f'head {count}']),
            'ratio': ratio(times[f'head {count}'], times[precision]),
        }
        for precision in PRECISIONS
        if precision in times
        for count in counts
    ]


def _backbone_runs(body: torch.nn.Module, size: tuple[int, int]) -> dict[str, Run]:
    """Return the backbone in every precision that the CPU has."""
    image = torch.zeros((1, *size, 3), dtype=torch.uint8)
    names = [f'tokens_{index}' for index in range(3)]
    model = to_onnx(body, (image,), ('image',), names).SerializeToString()
    return {kind: openvino_run(model, [image.numpy()], kind) for kind in PRECISIONS}


def _head_run(grid: Grid, classes: int, etalons: int, factor: int, dim: int) -> Run:
    layers = ('tokens_0', 'tokens_1', 'tokens_2')
    head = PixOODHead(random_pixood([etalons] * classes, dim, layers), factor)
    tokens = [torch.randn(1, *grid, dim) for _ in layers]
    model = head_to_onnx(head, tokens).SerializeToString()
    return openvino_run(model, [*(one.numpy() for one in tokens), np.ones(classes, np.float32)])


def show_forms(rows: list[JsonDict]) -> str:
    """Return one line per runtime: both times, their ratio, both errors."""
    return '\n'.join(
        f'  {row["runtime"]:12s} naive {row["naive_ms"]:8.1f} ms   ours {row["fast_ms"]:8.1f} ms'
        f'   x{row["ratio"]["median"]:5.1f}   {row["naive_error"]:.0e} / {row["fast_error"]:.0e}'
        for row in rows
    )


def show_shares(rows: list[JsonDict]) -> str:
    """Return one line per backbone and head."""
    return '\n'.join(
        f'  {row["backbone"]} {row["backbone_ms"]:8.1f} ms   head {row["classes"]:2d} classes '
        f'{row["head_ms"]:8.1f} ms   {row["ratio"]["median"]:6.1%} '
        f'({row["ratio"]["least"]:.1%} to {row["ratio"]["greatest"]:.1%})'
        for row in rows
    )


def _pair(text: str) -> tuple[int, int]:
    first, _, second = text.partition('x')
    return int(first), int(second)


def main() -> None:
    """Print the tables; write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--grid', type=_pair, action='append', help='patches, HxW')
    parser.add_argument('--bank', type=_pair, action='append', help='CLASSESxETALONS')
    parser.add_argument('--backbone', default='dinov2-s14')
    parser.add_argument('--factor', type=int, default=7)
    parser.add_argument('--rounds', type=int, default=ROUNDS)
    parser.add_argument('--no-forms', action='store_true', help='the shares of the backbone alone')
    parser.add_argument('--json', type=Path, help='also write every figure to this file')
    options = parser.parse_args()
    torch.set_num_threads(1)
    report = measure(options)
    if options.json:
        text = json_text(report) + '\n'
        make_file(options.json, lambda file: _write(file, text))


@torch.inference_mode()
def measure(options: argparse.Namespace) -> JsonDict:
    """Measure what the options name; print it as it comes."""
    report: JsonDict = {'machine': machine(), 'forms': [], 'shares': []}
    banks = options.bank or [(2, 1000), (19, 1000)]
    for grid in options.grid or [(20, 40), (28, 56), (37, 74)]:
        print(f'{grid[0]}x{grid[1]} patches, x{options.factor}, one thread', flush=True)
        for etalons in dict.fromkeys(count for _, count in banks):
            counts = [classes for classes, count in banks if count == etalons]
            shares = time_shares(
                grid, counts, etalons, options.factor, options.backbone, options.rounds
            )
            print(show_shares(shares), flush=True)
            report['shares'] += shares
        if not options.no_forms and grid == (options.grid or [(20, 40)])[0]:
            classes, etalons = banks[0]
            forms = time_forms(grid, classes, etalons, options.factor, rounds=options.rounds)
            print(show_forms(forms), flush=True)
            report['forms'] += forms
    return report


def _write(file: Path, text: str) -> None:
    file.write_text(text, encoding='utf-8')


if __name__ == '__main__':
    main()
