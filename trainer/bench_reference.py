# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
The process that bench_bundle compares with: torch eager float32, and the naive head's distances.

    python -m trainer.bench_reference       a measuring process, see ood_perception.bench.protocol
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from ood_perception.bench.machine import peak_rss_mb
from ood_perception.bench.protocol import Measure, Times, serve
from ood_perception.errors import ConfigError, required
from ood_perception.types import JsonDict

from .backbones.vit import VitBackbone, build
from .backbones.weight_names import Architecture
from .export.onnx import to_onnx
from .heads.upsampling import naive_squared_distances

_WIDTHS = {'s': (384, 12), 'b': (768, 12), 'l': (1024, 24)}
_NAME = re.compile(r'dinov2(-reg)?-([sbl])(\d+)')


def named_backbone(name: str) -> VitBackbone:
    """Return dinov2-s14, dinov2-reg-b14, ... with random weights; ConfigError for another name."""
    match = _NAME.fullmatch(name)
    if not match:
        raise ConfigError(f'backbone {name!r}: expected a name such as dinov2-s14, dinov2-reg-b14')
    dim, depth = _WIDTHS[match[2]]
    registers = 4 if match[1] else 0
    patch = int(match[3])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build(Architecture('dinov2', dim, depth, patch, 4 * dim, registers, 37)).eval()


def random_banks(counts: Sequence[int], dim: int) -> list[torch.Tensor]:
    """Return one bank of etalons (K, D) per count."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(count, dim, generator=generator) for count in counts]


class NaiveDistances(nn.Module):
    """Squared distances to the banks' nearest etalons of upsampled features, as published."""

    def __init__(self, banks: Sequence[torch.Tensor], factor: int) -> None:
        super().__init__()
        self.banks = nn.ParameterList([nn.Parameter(bank, requires_grad=False) for bank in banks])
        self.factor = factor

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Map tokens (B, gh, gw, D) to (B, classes, gh*f, gw*f)."""
        return torch.stack(naive_squared_distances(tokens, list(self.banks), self.factor), 1)


def openvino_run(
    model: bytes, inputs: Sequence[np.ndarray[Any, Any]], threads: int = 1
) -> Callable[[], Any]:
    """Return a call that runs a graph in float32 on inputs (in its order), its first output."""
    openvino = required('openvino', 'the benchmark needs openvino: pip install openvino')
    core = openvino.Core()
    graph = core.read_model(model)
    # a fixed batch: twice as fast as a free one
    shapes = [list(value.shape) for value in inputs]
    graph.reshape(dict(zip([port.any_name for port in graph.inputs], shapes, strict=True)))
    options = {
        'INFERENCE_PRECISION_HINT': 'f32',
        'INFERENCE_NUM_THREADS': threads,
        'NUM_STREAMS': 1,
    }
    request = core.compile_model(graph, 'CPU', options).create_infer_request()
    feeds = dict(enumerate(inputs))

    def run() -> Any:
        request.infer(feeds, share_inputs=True, share_outputs=True)
        return request.get_output_tensor(0).data

    return run


def prepare(task: JsonDict) -> tuple[JsonDict, Measure, Callable[[], JsonDict]]:
    """Make the models that the task names (see ood_perception.bench.program.torch_task)."""
    torch.set_num_threads(task['threads'])
    backbone = named_backbone(task['backbone'])
    height, width = task['height'], task['width']
    body = backbone.baked(height, width, task['layers'])
    image = torch.zeros((task['batch'], height, width, 3), dtype=torch.uint8)
    runs: dict[str, Callable[[], Any]] = {'torch_backbone': lambda: body(image)}
    if task['etalons']:
        grid = (task['batch'], height // backbone.patch, width // backbone.patch, backbone.dim)
        tokens = torch.randn(grid)
        naive = NaiveDistances(random_banks(task['etalons'], backbone.dim), task['upsampling'])
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
