# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
What a bundle's times are compared with: the machine's peak, torch, and the naive head.

torch and the naive head come from the trainer's package, in a process of its own where it is
installed with its extra: this package knows neither.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from ood_perception.bench.protocol import Worker
from ood_perception.bundle.manifest import Manifest
from ood_perception.types import JsonDict

TRAINERS = ('ood_perception_trainer', 'trainer')  # installed; in a checkout
PEAK = 'ood_perception.bench.peak'
_BLAS = ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS')


def peak_worker(threads: int, sides: Sequence[int]) -> Worker:
    """Return the process that measures matrix products on so many threads."""
    task = {'threads': threads, 'sides': list(sides)}
    environment = dict.fromkeys(_BLAS, str(threads))
    return Worker(f'peak of {threads} threads', PEAK, task, environment, slow=True)


def torch_worker(manifest: Manifest, classes: Sequence[str], threads: int, batch: int) -> Worker:
    """
    Return the process with the bundle's backbone in torch (eager, float32, random weights).

    It also has the naive head's distances: upsampled features against as many etalons as the
    named classes have, in OpenVINO. Its error says where there is no such process.
    """
    task = {**torch_task(manifest, classes), 'threads': threads, 'batch': batch}
    environment = {'OMP_NUM_THREADS': str(threads)}
    worker = Worker(f'torch on {threads} threads', trainer_module(), task, environment, slow=True)
    return worker


def trainer_module() -> str:
    """Return the module of the torch process, as installed; the checkout's name for none."""
    for package in TRAINERS:
        name = f'{package}.bench_reference'
        try:
            if importlib.util.find_spec(name):
                return name
        except ModuleNotFoundError:
            continue
    return f'{TRAINERS[0]}.bench_reference'


def torch_task(manifest: Manifest, classes: Sequence[str]) -> JsonDict:
    """Return the sizes that decide the time: of the backbone, and of the head's distances."""
    size, head = manifest.input, manifest.heads[0]
    backbone = next((stage for stage in manifest.stages if stage.inputs == ('image',)), None)
    layers = [name.partition('_')[2] for name in (backbone.outputs if backbone else ())]
    known = manifest.provenance.get('classes', {})
    etalons = [known.get(name, {}).get('etalons', 0) for name in classes]
    return {
        'backbone': str(manifest.provenance.get('backbone', '')),
        'layers': [int(layer) for layer in layers if layer.isdigit()],
        'height': size.height,
        'width': size.width,
        'upsampling': head.upsampling,
        'etalons': [count for count in etalons if count],
    }
