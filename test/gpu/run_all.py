# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Everything that a GPU can show in one go of at most 8 minutes; needs torch, not ROS.

    python test/gpu/run_all.py [--json docs/benchmarks/gpu.json] [--seconds 460]

Parity and speed of torch (eager, compiled, CUDA graph), ONNX Runtime CUDA where its package is
there, and TensorRT or TensorRT for RTX where it knows the card: ViT-S/B/L-14 at 518x1036 and
896x1792, PixOOD heads of 2 and 19 classes x 1000 etalons at f = 1 and 7, the head's share of the
backbone. Without a GPU it says so and ends with 0; --dry-run goes through all of it on the CPU
with tiny sizes. Cases that the time does not suffice for are named in the result.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

NAMES = ('dinov2-s14', 'dinov2-b14', 'dinov2-l14')
SIZES = ((518, 1036), (896, 1792))
HEADS = ((2, 1), (2, 7), (19, 1), (19, 7))


def no_gpu() -> str:
    """Return why nothing can be measured, '' where a GPU is there."""
    try:
        import torch
    except ImportError:
        return "torch is not installed: pip install '.[train]'"
    if not torch.cuda.is_available():
        return f'torch {torch.__version__} sees no NVIDIA GPU'
    return ''


def machine() -> dict[str, Any]:
    """Return what the figures belong to."""
    import torch

    found = {'python': platform.python_version(), 'torch': torch.__version__, 'gpu': 'none'}
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        found |= {
            'gpu': properties.name,
            'compute_capability': f'{properties.major}.{properties.minor}',
            'memory_gib': round(properties.total_memory / 2**30, 1),
            'cuda': torch.version.cuda,
        }
    return found


class Session:
    """Runs cases while there is time and writes what there is after each."""

    def __init__(self, path: Path | None, seconds: float) -> None:
        self._path, self._end = path, time.monotonic() + seconds
        self.result: dict[str, Any] = {'machine': machine(), 'cases': [], 'left_out': []}

    @property
    def left(self) -> float:
        """Seconds in which cases may begin."""
        return self._end - time.monotonic()

    def run(self, name: str, work: Any, cost: float) -> Any:
        """Add a case and return it; None where its guessed seconds are not left."""
        import cases

        start = time.monotonic()
        if cost > self.left:
            self.result['left_out'].append(name)
            return None
        found = cases.attempt(work)
        seconds = round(time.monotonic() - start, 1)
        self.result['cases'].append({'case': name, 'seconds': seconds, 'result': found})
        print(f'{seconds:6.1f} s  {name}: {json.dumps(found)}', flush=True)
        if self._path is not None:
            self._path.write_text(json.dumps(self.result, indent=1) + '\n', encoding='utf-8')
        return found


def measure(session: Session, setup: Any, name: str, size: tuple[int, int]) -> None:
    """Measure one backbone at one size: torch, heads, then the other runtimes."""
    import cases
    import torch

    label, heavy = f'{name} {size[0]}x{size[1]}', 1 if size[0] < 600 else 3
    body = cases.backbone_of(name, size).to(setup.device)
    image = torch.randint(0, 256, (1, *size, 3), dtype=torch.uint8, device=setup.device)
    times = session.run(
        f'{label} torch', lambda: cases.torch_backbone(body, image, setup), 8 * heavy
    )
    with torch.inference_mode():
        tokens = tuple(one.float() for one in body(image))
    for classes, factor in HEADS:
        case = f'{label} torch head {classes} classes x{factor}'
        head = session.run(
            case, lambda c=classes, f=factor: cases.torch_head(tokens, c, f, setup), 4 * heavy
        )
        add_share(session, case, head, times)
    if name == NAMES[0] and heavy == 1:
        session.run(f'{label} torch.compile', lambda: cases.torch_compiled(body, image, setup), 60)
    if heavy == 1 or name == NAMES[0]:  # exporting the large ones takes the CPU too long
        measure_runtimes(session, setup, label, (body, size))


def measure_runtimes(session: Session, setup: Any, label: str, model: tuple[Any, Any]) -> None:
    """Measure TensorRT and ONNX Runtime on the exported stages, head x7 of 2 classes."""
    import cases

    if session.left < 60:
        session.result['left_out'].append(f'{label} TensorRT and ONNX Runtime')
        return
    exported = cases.attempt(lambda: cases.Exported(*model, 7, setup.etalons))
    if isinstance(exported, str):
        session.result['left_out'].append(f'{label} export: {exported}')
        return
    for precision in ('fp16', 'f32'):
        for run in (cases.tensorrt_fused, cases.onnxruntime_fused):
            session.run(
                f'{label} {run.__name__} {precision}',
                lambda r=run, p=precision: r(exported, p, setup),
                30,
            )


def add_share(session: Session, case: str, head: Any, backbone: Any) -> None:
    """Add the head's share of the half backbone, graph against graph where both are there."""
    if not isinstance(head, dict) or not isinstance(backbone, dict):
        return
    pairs = [('graph_ms', 'half_graph_ms'), ('eager_ms', 'half_eager_ms')]
    for own, other in pairs:
        if isinstance(head[own], float) and isinstance(backbone[other], float):
            share = round(head[own] / backbone[other], 3)
            session.result['cases'].append({'case': f'{case} share', 'of': other, 'share': share})
            return


def main() -> int:
    """Measure and write; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument('--json', type=Path, help='write the result here, too')
    parser.add_argument('--seconds', type=float, default=460, help='stop beginning cases then')
    parser.add_argument('--dry-run', action='store_true', help='tiny sizes on the CPU')
    options = parser.parse_args()
    reason = '' if options.dry_run else no_gpu()
    if reason:
        print(f'nothing was measured: {reason}')
        return 0
    import cases
    import torch

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    session = Session(options.json, options.seconds)
    device = 'cpu' if options.dry_run else 'cuda'
    setup = cases.Setup(device, *((2, 20) if options.dry_run else (20, 1000)))
    names, sizes = ((cases.TINY,), ((56, 84),)) if options.dry_run else (NAMES, SIZES)
    for size in sizes:
        for name in names:
            cases.attempt(lambda n=name, s=size: measure(session, setup, n, s))
    if session.result['left_out']:
        print(f'left out: {", ".join(session.result["left_out"])}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
