# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What is measured of one backbone size and resolution; weights are random, times do not care."""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_models import random_pixood

from ood_perception.bundle.manifest import HeadSpec, StageSpec
from ood_perception.engines.plan import Plan
from ood_perception.engines.tensorrt.build import build_engine, supported_gpus
from ood_perception.engines.tensorrt.cuda import load_cuda, require_gpu
from ood_perception.engines.tensorrt.execution import Execution
from ood_perception.engines.tensorrt.graph import fused_model, write_model
from ood_perception.engines.tensorrt.module import BuildOptions, load_tensorrt
from ood_perception.errors import OodPerceptionError
from trainer.backbones.vit import build
from trainer.backbones.weight_names import Architecture
from trainer.bench_reference import named_backbone
from trainer.export.onnx import head_to_onnx, save, to_onnx
from trainer.heads.pixood.model import PixOODHead

LAYERS = ('tokens_0', 'tokens_1', 'tokens_2')
TINY = 'tiny'


@dataclass(frozen=True)
class Setup:
    """Where and how: device 'cuda' or 'cpu', runs per figure, etalons per class."""

    device: str
    runs: int
    etalons: int

    @property
    def half(self) -> torch.dtype:
        """The half type that the device is quick in."""
        return torch.float16 if self.device == 'cuda' else torch.bfloat16


def backbone_of(name: str, size: tuple[int, int]) -> torch.nn.Module:
    """Return a baked random backbone: dinov2-s14, ..., or 'tiny'."""
    if name == TINY:
        torch.manual_seed(0)
        backbone = build(Architecture('dinov2', 32, 3, 14, 64, 0, 4)).eval()
    else:
        backbone = named_backbone(name)
    depth = backbone.depth
    return backbone.baked(*size, (depth // 2 - 1, depth * 2 // 3 - 1, depth - 1))


def head_of(dim: int, classes: int, factor: int, etalons: int) -> torch.nn.Module:
    """Return a PixOOD head of random numbers."""
    return PixOODHead(random_pixood([etalons] * classes, dim, LAYERS), factor).eval()


def median_ms(run: Callable[[], Any], setup: Setup) -> float:
    """Return the median milliseconds of a run, device work included."""
    for _ in range(3):
        run()
    times = []
    for _ in range(setup.runs):
        _wait(setup)
        start = time.perf_counter()
        run()
        _wait(setup)
        times.append((time.perf_counter() - start) * 1e3)
    return round(float(np.median(times)), 3)


def _wait(setup: Setup) -> None:
    if setup.device == 'cuda':
        torch.cuda.synchronize()


def _without_gradients(module: torch.nn.Module, half: torch.dtype | None, device: str) -> Any:
    """Return a function: weights in half, norms and softmax in float32 where half is given."""

    def run(*inputs: torch.Tensor) -> Any:
        with torch.inference_mode():
            if half is None:
                return module(*inputs)
            with torch.autocast(device, half, cache_enabled=False):
                return module(*inputs)

    return run


def graphed(run: Callable[..., Any], inputs: tuple[torch.Tensor, ...]) -> Callable[[], Any]:
    """Return a replay of a recorded CUDA graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            run(*inputs)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = run(*inputs)

    def replay() -> Any:
        graph.replay()
        return kept

    return replay


def torch_backbone(body: torch.nn.Module, image: torch.Tensor, setup: Setup) -> dict[str, Any]:
    """Return times in float32, half and as a CUDA graph, and how far half is off."""
    full = _without_gradients(body, None, setup.device)
    small = copy.deepcopy(body).to(setup.half)
    half = _without_gradients(small, setup.half, setup.device)
    found: dict[str, Any] = {
        'f32_eager_ms': median_ms(lambda: full(image), setup),
        'half_eager_ms': median_ms(lambda: half(image), setup),
    }
    found['half_graph_ms'] = attempt(
        lambda: median_ms(graphed(half, (image,)), setup), cuda_only(setup)
    )
    a, b = full(image)[-1].float().flatten(0, 2), half(image)[-1].float().flatten(0, 2)
    cosine = torch.nn.functional.cosine_similarity(a, b, dim=-1)
    found['token_cosine'] = {'mean': float(cosine.mean()), 'least': float(cosine.min())}
    return found


def torch_compiled(body: torch.nn.Module, image: torch.Tensor, setup: Setup) -> dict[str, Any]:
    """Return the time of torch.compile in half, and how long compiling took."""
    small = copy.deepcopy(body).to(setup.half)
    half = _without_gradients(torch.compile(small), setup.half, setup.device)
    start = time.perf_counter()
    half(image)
    seconds = time.perf_counter() - start
    return {'ms': median_ms(lambda: half(image), setup), 'compile_seconds': round(seconds, 1)}


def torch_head(
    tokens: tuple[torch.Tensor, ...], classes: int, factor: int, setup: Setup
) -> dict[str, Any]:
    """Return times of a float32 head, eager and as a CUDA graph."""
    head = head_of(tokens[0].shape[-1], classes, factor, setup.etalons).to(setup.device)
    inputs = (*tokens, torch.ones(classes, device=setup.device))
    run = _without_gradients(head, None, setup.device)
    return {
        'classes': classes,
        'factor': factor,
        'eager_ms': median_ms(lambda: run(*inputs), setup),
        'graph_ms': attempt(lambda: median_ms(graphed(run, inputs), setup), cuda_only(setup)),
    }


class Exported:
    """Backbone and head as ONNX stages in a folder of their own, with torch's float32 answer."""

    def __init__(self, body: torch.nn.Module, size: tuple[int, int], factor: int, etalons: int):
        self._folder = tempfile.TemporaryDirectory(prefix='ood_gpu_')
        self.folder = Path(self._folder.name)
        body = body.cpu().float()
        image = np.random.default_rng(0).integers(0, 256, (1, *size, 3), dtype=np.uint8)
        self.image = image
        tokens = body(torch.from_numpy(image))
        head = head_of(tokens[0].shape[-1], 2, factor, etalons)
        save(
            to_onnx(body, (torch.from_numpy(image).repeat(2, 1, 1, 1),), ('image',), LAYERS),
            self.folder / 'backbone.onnx',
        )
        save(head_to_onnx(head, [t.repeat(2, 1, 1, 1) for t in tokens]), self.folder / 'head.onnx')
        with torch.inference_mode():
            self.expected = head(*tokens, torch.ones(2))[0].numpy()

    def fused(self, precision: str) -> Path:
        """Return one typed graph of both."""
        stages = (
            StageSpec('backbone', 'backbone.onnx', ('image',), LAYERS, '', True),
            StageSpec('head', 'head.onnx', (*LAYERS, 'in_distribution'), ('surprisal', 'labels')),
        )
        names = ('class_0', 'class_1')
        spec = HeadSpec('pixood', 'surprisal', 'labels', 1, 'min', 'held-out', names)
        paths = tuple(self.folder / stage.file for stage in stages)
        target = self.folder / precision
        target.mkdir(exist_ok=True)
        return write_model(fused_model(Plan(spec, names, stages, paths), precision), target)

    def parity(self, surprisal: np.ndarray) -> dict[str, float]:
        """Return how far an output is from torch's float32 (random weights: read ranks)."""
        a, b = self.expected.ravel(), surprisal.reshape(-1)
        ranks = [np.argsort(np.argsort(x, kind='stable'), kind='stable') for x in (a, b)]
        return {
            'surprisal_difference_99.9': float(np.quantile(np.abs(a - b), 0.999)),
            'rank_correlation': float(np.corrcoef(*ranks)[0, 1]),
            'distinct_share': float(np.unique(b).size / np.unique(a).size),
        }


def onnxruntime_fused(exported: Exported, precision: str, setup: Setup) -> Any:
    """Return time and parity of ONNX Runtime on the GPU, or why there is none."""
    try:
        import onnxruntime
    except ImportError:
        return 'onnxruntime is not installed'
    wanted = 'CUDAExecutionProvider' if setup.device == 'cuda' else 'CPUExecutionProvider'
    if wanted not in onnxruntime.get_available_providers():
        return f'this onnxruntime has no {wanted}: pip install onnxruntime-gpu'
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        str(exported.fused(precision)), options, providers=[wanted]
    )
    feeds = {'image': exported.image, 'in_distribution': np.ones(2, np.float32)}
    surprisal = session.run(None, feeds)[0]
    ms = median_ms(lambda: session.run(None, feeds), setup)
    return {'ms_with_copies': ms, **exported.parity(surprisal)}


def tensorrt_fused(exported: Exported, precision: str, setup: Setup) -> Any:
    """Return build facts, time and parity of TensorRT, or why there is none here."""
    trt = load_tensorrt()
    try:
        cuda = load_cuda()
        _, gpu = require_gpu(cuda)
    except OodPerceptionError as error:
        cuda, gpu, missing = None, '8.9', str(error)
    if trt.is_rtx and gpu not in supported_gpus(trt):
        return f'{trt.name} {trt.version} has no float32 head for compute capability {gpu}'
    options = BuildOptions(compute_capability=gpu if trt.is_rtx else '')
    blob, facts = build_engine(exported.fused(precision), options)
    found = {key: facts[key] for key in ('runtime', 'version', 'bytes', 'build_seconds')}
    if cuda is None:
        return {**found, 'not_run': missing}
    execution = Execution(trt, cuda, blob, ('surprisal', 'labels'))
    values = {
        'image': exported.image.reshape(-1),
        'in_distribution': np.ones(2, np.float32).view(np.uint8),
    }
    try:
        surprisal = execution.run(values, 1)['surprisal'].view(np.float32)
        ms = median_ms(lambda: execution.run(values, 1), setup)
        found['cuda_graph'] = execution._graph is not None
    finally:
        execution.close()
    return {**found, 'ms_with_copies': ms, **exported.parity(surprisal)}


def cuda_only(setup: Setup) -> str:
    """Return why a CUDA graph cannot be, '' where it can."""
    return '' if setup.device == 'cuda' else 'needs a GPU'


def attempt(work: Callable[[], Any], reason: str = '') -> Any:
    """Return what work gives, or in words why it gives nothing; one case does not end the rest."""
    if reason:
        return reason
    try:
        return work()
    except Exception as error:
        if 'out of memory' in str(error):
            torch.cuda.empty_cache()
        lines = str(error).strip().splitlines() or ['']
        return f'{type(error).__name__}: {lines[0]}'
