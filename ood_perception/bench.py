# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Benchmark of a bundle's engines: latency per stage, throughput, memory, distance to the golden.

Every case runs in a process of its own, so that memory and thread pools of one do not show in
the next.
"""

from __future__ import annotations

import itertools
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ood_perception.bundle.completion import complete
from ood_perception.bundle.store import load_bundle
from ood_perception.engines import create_checked_engine
from ood_perception.engines.base import Engine, EngineOptions
from ood_perception.engines.golden import read_golden
from ood_perception.errors import EngineError, OodPerceptionError
from ood_perception.settings import head_of
from ood_perception.types import Float32Array, JsonDict, UInt8Array

PERCENTILES = (5, 50, 95, 99)
CASE_SECONDS = 1800
MODULE = 'ood_perception.bench'


@dataclass(frozen=True)
class Case:
    """
    One measurement.

    bundle: folder or .zip. weights: where missing weights come from, '' = see completion.
    classes: compiled classes, () = the bundle's. batch: frames per run. runs: timed runs, after
    `warmup` untimed ones.
    """

    bundle: str
    runtime: str = 'auto'
    precision: str = 'auto'
    threads: int = 0
    batch: int = 1
    runs: int = 20
    warmup: int = 3
    head: str = ''
    classes: tuple[str, ...] = ()
    weights: str = ''


def cases(
    base: Case,
    runtimes: Sequence[str],
    precisions: Sequence[str],
    threads: Sequence[int],
    batches: Sequence[int],
) -> list[Case]:
    """Return every combination, each like `base` otherwise."""
    combinations = itertools.product(runtimes, precisions, threads, batches)
    names = ('runtime', 'precision', 'threads', 'batch')
    return [
        Case(**{**asdict(base), **dict(zip(names, values, strict=True))})
        for values in combinations
    ]


def run_case(case: Case) -> JsonDict:
    """
    Measure one case in this process.

    Returns the case, the engine's description, load_ms and compile_ms (compilation and golden
    check), per stage and 'total' the percentiles in milliseconds, frames per second, rss_mb (the
    process's peak) and the golden report. Raises an OodPerceptionError for a case that cannot be.
    """
    start = time.perf_counter()
    bundle = complete(load_bundle(case.bundle), case.weights or None)
    loaded = time.perf_counter()
    options = EngineOptions(case.runtime, case.precision, case.threads, case.head, case.classes)
    engine, report = create_checked_engine(bundle, options)
    with engine:
        compiled = time.perf_counter()
        golden = read_golden(bundle, head_of(bundle.manifest, engine))
        images = np.resize(golden.image, (case.batch, *golden.image.shape[1:]))
        times = measure(engine, images, case)
        description = engine.description
    total = times['total']
    return {
        'case': asdict(case),
        'engine': description,
        'load_ms': (loaded - start) * 1e3,
        'compile_ms': (compiled - loaded) * 1e3,
        'stages_ms': {name: percentiles(values) for name, values in times.items()},
        'frames_per_second': case.batch * total.size / (float(total.sum()) / 1e3),
        'rss_mb': peak_rss_mb(),
        'golden': report.to_json(),
    }


def measure(engine: Engine, images: UInt8Array, case: Case) -> dict[str, Float32Array]:
    """Return wall times in milliseconds (runs,) per stage and of the whole run ('total')."""
    vector = np.ones(len(engine.compiled_classes), dtype=np.float32)
    rows = []
    for _ in range(case.warmup + case.runs):
        start = time.perf_counter()
        output = engine.run(images, vector)
        rows.append({**output.stage_ms, 'total': (time.perf_counter() - start) * 1e3})
    timed = rows[case.warmup :]
    return {name: np.array([row[name] for row in timed], dtype=np.float32) for name in rows[0]}


def peak_rss_mb() -> float:
    """Return this process's peak of resident memory in MiB."""
    try:
        status = Path('/proc/self/status').read_text(encoding='ascii')
        # getrusage would count the parent's memory from before exec
        return float(status.split('VmHWM:')[1].split()[0]) / 1024
    except (OSError, IndexError):  # not Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def percentiles(values: Float32Array) -> dict[str, float]:
    """Return p5, p50, p95 and p99 of (N,) values."""
    return {f'p{p}': float(np.percentile(values, p)) for p in PERCENTILES}


def run_isolated(case: Case) -> JsonDict:
    """Measure one case in a process of its own; a case that fails becomes {'case', 'error'}."""
    done = subprocess.run(
        [sys.executable, '-m', MODULE, json.dumps(asdict(case))],
        capture_output=True,
        text=True,
        timeout=CASE_SECONDS,
        check=False,
    )
    if done.returncode == 0:
        result: JsonDict = json.loads(done.stdout.splitlines()[-1])
        return result
    lines = done.stderr.strip().splitlines() or [f'exit status {done.returncode}']
    return {'case': asdict(case), 'error': lines[-1]}


def machine() -> JsonDict:
    """Return what the figures depend on: processor, cores, memory, load, versions."""
    return {
        'processor': _processor(),
        'cores': len(os.sched_getaffinity(0)),
        'memory_gb': os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9,
        'load_average': os.getloadavg()[0],
        'system': platform.platform(),
        'python': platform.python_version(),
        'numpy': np.__version__,
    }


def _processor() -> str:
    """Return the processor's name with the features that decide the precision."""
    try:
        lines = Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
    except OSError:  # not Linux, or a sandbox: the name is a courtesy
        return platform.processor() or platform.machine()
    facts: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(':')
        facts.setdefault(key.strip(), value.strip())
    flags = (facts.get('flags') or facts.get('Features', '')).split()
    notable = [flag for flag in ('avx2', 'avx512f', 'avx512_bf16', 'amx_bf16') if flag in flags]
    name = facts.get('model name', platform.machine())
    return f'{name} ({", ".join(notable)})' if notable else name


def table(results: Sequence[JsonDict]) -> str:
    """Return the results as an aligned text table, milliseconds as p50 (p95)."""
    header = ('engine', 'precision', 'threads', 'batch', 'backbone', 'head', 'total')
    rows: list[tuple[str, ...]] = [(*header, 'frames/s', 'RSS MB', '|d| surprisal', 'distinct')]
    errors = []
    for result in results:
        case = result['case']
        shown = (case['runtime'], case['precision'], str(case['threads']), str(case['batch']))
        if 'error' in result:
            errors.append(f'{" ".join(shown)}: {result["error"]}')
            continue
        rows.append(_row(result))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ['  '.join(f'{v:>{w}}' for v, w in zip(row, widths, strict=True)) for row in rows]
    return '\n'.join([*lines, *errors])


def _row(result: JsonDict) -> tuple[str, ...]:
    engine, case, stages = result['engine'], result['case'], result['stages_ms']
    before = [name for name in stages if name not in ('head', 'total')]
    backbone = {p: sum(stages[name][p] for name in before) for p in ('p50', 'p95')}
    return (
        f'{engine["runtime"]} {engine["version"].split("-")[0]}',
        engine['precision'],
        str(case['threads'] or 'all'),
        str(case['batch']),
        *(_time(stage) for stage in (backbone, stages.get('head'), stages['total'])),
        f'{result["frames_per_second"]:.2f}',
        f'{result["rss_mb"]:.0f}',
        f'{result["golden"]["surprisal_difference"]:.2g}',
        f'{result["golden"]["distinct_share"]:.1%}',
    )


def _time(stage: dict[str, float] | None) -> str:
    return '-' if stage is None else f'{stage["p50"]:.1f} ({stage["p95"]:.1f})'


def main(argv: Sequence[str]) -> int:
    """Measure the one case that the argument describes as JSON; print the result as JSON."""
    values = json.loads(argv[0])
    try:
        print(json.dumps(run_case(Case(**{**values, 'classes': tuple(values['classes'])}))))
    except OodPerceptionError as error:
        print(str(error).replace('\n', ' '), file=sys.stderr)
        return 1
    return 0


def check(case: Case) -> None:
    """Raise EngineError for counts that cannot be measured."""
    if case.runs < 1 or case.warmup < 0 or case.batch < 1:
        raise EngineError(
            f'runs {case.runs}, warmup {case.warmup}, batch {case.batch}: give at least 1 run, '
            '0 warm-ups and a batch of 1'
        )


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
