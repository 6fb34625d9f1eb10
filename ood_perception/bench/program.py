# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The measuring of bench_bundle: all cases and what they are compared with, in turns."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ood_perception.bench.cases import Case, to_json
from ood_perception.bench.machine import EnergyMeter, machine
from ood_perception.bench.peak import best_rates
from ood_perception.bench.protocol import Worker, percentiles, ratio, take_turns
from ood_perception.bundle.manifest import Manifest
from ood_perception.bundle.store import load_bundle
from ood_perception.types import JsonDict, Tell

WORKER = 'ood_perception.bench.worker'
NODE = 'ood_perception.ros.tools.bench_node'
NODE_SECONDS = 900
TRAINERS = ('ood_perception_trainer', 'trainer')  # installed; in a checkout
PEAK = 'ood_perception.bench.peak'
_BLAS = ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS')
_NOT_REPORTED = 'not reported by this machine'
Ready = tuple[Worker, JsonDict]  # a process and its facts
Entry = tuple[Case, Worker, JsonDict]


def run(
    cases: Sequence[Case], tell: Tell, *, references: bool, sides: Sequence[int], node: int
) -> JsonDict:
    """
    Measure everything in turns; return what goes into the JSON file. tell: progress.

    references: torch and the naive head too, where the trainer is installed. sides: of the peak's
    matrices, () = no peak. node: the node in a real graph as well, frames per case.
    """
    facts = machine()
    with contextlib.ExitStack() as stack:
        entries: list[Entry] = []
        for case in cases:
            tell(f'compiling: {case.label}')
            worker = stack.enter_context(Worker(case.label, WORKER, asdict(case)))
            entries.append((case, worker, worker.ready()))
        alive = [entry for entry in entries if not entry[1].error]
        peaks = _peaks(stack, alive, sides, tell)
        torches = _torches(stack, alive, tell) if references else {}
        if alive:
            others = (*peaks.values(), *torches.values())
            workers = [entry[1] for entry in alive] + [worker for worker, _ in others]
            tell(f'measuring {len(workers)} processes in turns')
            take_turns(workers, cases[0].runs, cases[0].warmup)
        rates = {
            threads: best_rates(worker.times(), known['operations'])
            for threads, (worker, known) in peaks.items()
            if not worker.error
        }
        report: JsonDict = {
            'machine': facts,
            'energy': 'told' if EnergyMeter().told else _NOT_REPORTED,
            'peak_gflops': {str(threads): rate for threads, rate in rates.items()},
            'references': [
                {'name': worker.name, 'stages_ms': _stages_ms(worker)}
                for worker, _ in torches.values()
            ],
            'results': [_result(one, rates, torches.get(_torch_key(one))) for one in entries],
        }
    if node:
        tell('the node in a real graph')
        report['node'] = measure_node(cases[0], node)
    return report


def _peaks(
    stack: contextlib.ExitStack, entries: Sequence[Entry], sides: Sequence[int], tell: Tell
) -> dict[int, Ready]:
    """Return per number of threads the process that measures products; none without sides."""
    counts = sorted({case.cores for case, *_ in entries}) if sides else []
    started = {count: _started(stack, peak_worker(count, sides), tell) for count in counts}
    return {count: ready for count, ready in started.items() if not ready[0].error}


def _torches(
    stack: contextlib.ExitStack, entries: Sequence[Entry], tell: Tell
) -> dict[tuple[object, ...], Ready]:
    """Return the torch process of every bundle, class set, number of threads and images."""
    found: dict[tuple[object, ...], Ready] = {}
    for entry in entries:
        case, _, known = entry
        if _torch_key(entry) not in found:
            manifest = load_bundle(case.bundle).manifest
            worker = torch_worker(manifest, known['classes'], case.cores, known['images'])
            found[_torch_key(entry)] = _started(stack, worker, tell)
    return {key: ready for key, ready in found.items() if not ready[0].error}


def _torch_key(entry: Entry) -> tuple[object, ...]:
    case, _, known = entry
    return case.bundle, case.cores, known.get('images', 0), tuple(known.get('classes', ()))


def _started(stack: contextlib.ExitStack, worker: Worker, tell: Tell) -> Ready:
    stack.enter_context(worker)
    tell(f'preparing: {worker.name}')
    known = worker.ready()
    if worker.error:
        tell(f'not measured: {worker.name}: {worker.error}')
    return worker, known


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
    return Worker(f'torch on {threads} threads', trainer_module(), task, environment, slow=True)


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


def _result(entry: Entry, rates: dict[int, dict[str, float]], reference: Ready | None) -> JsonDict:
    """Return a case's figures, or its error."""
    case, worker, known = entry
    end = worker.finish()
    if worker.error or not worker.rounds:
        return {'case': to_json(case), 'error': worker.error or 'nothing was measured'}
    times = worker.times()
    total = sum(times['total']) / 1e3
    return {
        'case': to_json(case),
        **known,
        'stages_ms': _stages_ms(worker),
        'frames_per_second': case.batch * len(times['total']) / total,
        **end,
        'joules_per_run': percentiles(worker.joules)['p50'] if worker.joules else _NOT_REPORTED,
        'share_of_peak': shares_of_peak(case, known, times, rates),
        'ratios': ratios(worker, reference[0] if reference else None),
    }


def shares_of_peak(
    case: Case, known: JsonDict, times: dict[str, list[float]], rates: dict[int, dict[str, float]]
) -> dict[str, float]:
    """
    Return per stage: rate of its matrix products over the best rate in its precision.

    Time that goes into other than products counts as lost. A head runs in float32; a backbone
    in int8 is a mix, whose share refers to the int8 rate. A head whose search an index makes has
    no share: its products are not computed.
    """
    precision = str(known['engine']['precision'])
    names = {'int8': 'i8', 'bf16': 'bf16', 'bfloat16': 'bf16'}
    reduced = next((kind for name, kind in names.items() if precision.startswith(name)), 'f32')
    shares, searched = {}, any(name.startswith('search') for name in times)
    for stage, operations in known['operations'].items():
        if searched and stage == 'head':
            continue
        kind = 'f32' if stage.startswith('head') else reduced
        peak = rates.get(case.cores, {}).get(kind)
        if peak and stage in times:
            shares[stage] = operations / percentiles(times[stage])['p50'] / 1e6 / peak
    return shares


def ratios(worker: Worker, reference: Worker | None) -> dict[str, dict[str, float]]:
    """Return reference time over own time: torch over the backbone, naive distances over head."""
    if reference is None or reference.error:
        return {}
    pairs = {'torch_backbone': 'backbone', 'naive_distances': 'head'}
    rounds = list(zip(reference.rounds, worker.rounds, strict=False))
    return {
        other: ratio([a[other] for a, _ in rounds], [b[own] for _, b in rounds])
        for other, own in pairs.items()
        if rounds and other in rounds[0][0] and own in rounds[0][1]
    }


def _stages_ms(worker: Worker) -> dict[str, dict[str, float]]:
    return {name: percentiles(values) for name, values in worker.times().items()}


def measure_node(case: Case, frames: int) -> JsonDict:
    """Return what the node's benchmark says; it runs in a process, since it needs ROS."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / 'node.json'
        command = [sys.executable, '-m', NODE, '--frames', str(frames), '--out', str(out)]
        command += ['--bundle', case.bundle, '--weights', case.weights]
        command += ['--size', f'{case.camera[1]}x{case.camera[0]}']
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=NODE_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            return {'error': f'the node took more than {NODE_SECONDS} s'}
        if not out.exists():
            lines = done.stderr.strip().splitlines() or [f'exit status {done.returncode}']
            return {'error': lines[-1]}
        values: JsonDict = json.loads(out.read_text(encoding='utf-8'))
    for one in values['cases']:
        one['image'] = os.path.basename(one['image'])
    return values
