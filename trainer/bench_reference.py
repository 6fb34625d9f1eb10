# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
The process that bench_bundle compares with: torch eager float32, and the naive head's distances.

    python -m trainer.bench_reference       a measuring process, see ood_perception.bench.protocol
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from ood_perception.bench.machine import peak_rss_mb
from ood_perception.bench.protocol import Measure, Times, serve
from ood_perception.types import JsonDict

from .bench_models import Distances, named_backbone, random_banks
from .bench_runtimes import openvino_run
from .export import to_onnx


def prepare(task: JsonDict) -> tuple[JsonDict, Measure, Callable[[], JsonDict]]:
    """Make the models that the task names (see ood_perception.bench.references.torch_task)."""
    torch.set_num_threads(task['threads'])
    backbone = named_backbone(task['backbone'])
    height, width = task['height'], task['width']
    body = backbone.baked(height, width, task['layers'])
    image = torch.zeros((task['batch'], height, width, 3), dtype=torch.uint8)
    runs: dict[str, Callable[[], Any]] = {'torch_backbone': lambda: body(image)}
    if task['etalons']:
        grid = (task['batch'], height // backbone.patch, width // backbone.patch, backbone.dim)
        tokens = torch.randn(grid)
        naive = Distances(random_banks(task['etalons'], backbone.dim), task['upsampling'], 'naive')
        model = to_onnx(naive, (tokens,), ('tokens',), ('distances',)).SerializeToString()
        runs['naive_distances'] = openvino_run(model, [tokens.numpy()], threads=task['threads'])

    @torch.inference_mode()
    def measure(count: int) -> Times:
        return {name: [_milliseconds(run) for _ in range(count)] for name, run in runs.items()}

    facts = {'torch': torch.__version__, 'etalons': task['etalons']}
    return facts, measure, lambda: {'rss_mb': peak_rss_mb()}


def _milliseconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return (time.perf_counter() - start) * 1e3


if __name__ == '__main__':
    sys.exit(serve(prepare))
