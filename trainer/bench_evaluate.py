# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
What evaluating costs beside the engine, and how its memory grows with the pictures.

    python -m trainer.bench_evaluate [--pictures 50x3 200x3 500] [--threads 2] --json evaluate.json

The demo's frames at 1280 x 720 with labelled boxes; every measurement in a process of its own.
`overhead` is the time of a whole `trainer evaluate`, report included, over that of the engine
alone on as many prepared inputs; the time to build the engine is left out of both. Processor
seconds are given, too: they hold on a machine that does other things. Quote wall times of a quiet
one.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ood_perception.bench.machine import machine
from ood_perception.bundle.completion import complete
from ood_perception.bundle.store import default_bundle_path, load_bundle
from ood_perception.demo.sources import ROAD
from ood_perception.engines import create_engine
from ood_perception.engines.base import EngineOptions
from ood_perception.evaluation.results import write_json
from ood_perception.evaluation.run import RunOptions
from ood_perception.picture_files import list_pictures, read_picture
from ood_perception.pipeline import Settings

from .evaluation.engine_choice import EngineChoice

DISTINCT = 8
HEIGHT, WIDTH = 720, 1280


def write_pictures(folder: Path, count: int) -> None:
    """Write `count` labelled pictures, the same few again and again under new names."""
    for part in ('images', 'labels'):
        (folder / part).mkdir(parents=True)
    for number in range(count):
        source = number % DISTINCT
        image, labels = folder / 'images' / f'{source}.jpg', folder / 'labels' / f'{source}.png'
        if number < DISTINCT:
            picture, truth = _picture(number)
            cv2.imwrite(str(image), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
            cv2.imwrite(str(labels), truth)
        else:
            image.with_name(f'{number}.jpg').symlink_to(image)
            labels.with_name(f'{number}.png').symlink_to(labels)


def _picture(number: int) -> tuple[Any, Any]:
    """Return a frame of the demo with a box of odd colours on it, and its labels."""
    frame = read_picture(list_pictures(ROAD / 'images')[number])
    picture = cv2.resize(frame, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[: HEIGHT // 3] = 255
    x, y, side = 300 + 80 * number, 480, 40 + 6 * number
    labels[y : y + side, x : x + side] = 1
    picture[labels == 1] = (230, 40, 220)
    return np.ascontiguousarray(picture), labels


def engine_alone(pictures: int, threads: int) -> dict[str, float]:
    """Run the engine on prepared inputs, one at a time."""
    bundle = complete(load_bundle(default_bundle_path()), None)
    size = bundle.manifest.input
    rng = np.random.default_rng(0)
    inputs = rng.integers(0, 256, (DISTINCT, 1, size.height, size.width, 3), dtype=np.uint8)
    with create_engine(bundle, EngineOptions(threads=threads)) as engine:
        chosen = engine.class_vector(bundle.manifest.in_distribution)
        engine.run(inputs[0], chosen)
        start, used = time.perf_counter(), _processor_seconds()
        for number in range(pictures):
            engine.run(inputs[number % DISTINCT], chosen)
        return _cost(time.perf_counter() - start, _processor_seconds() - used)


def whole_evaluation(folder: Path, out: Path, threads: int) -> dict[str, float]:
    """Run all of `trainer evaluate`, but for the building of the engine."""
    from .evaluation import evaluation_runs
    from .evaluation.evaluation_report import write_results

    built = [0.0, 0.0]

    def timed(*arguments: Any) -> Any:
        start, used = time.perf_counter(), _processor_seconds()
        engine = create_engine(*arguments)
        built[:] = [time.perf_counter() - start, _processor_seconds() - used]
        return engine

    evaluation_runs.create_engine = timed
    start, used = time.perf_counter(), _processor_seconds()
    results = evaluation_runs.evaluate_runs(
        [evaluation_runs.RunSpec('default', '', Settings())],
        [f'anomaly_folders={folder}'], folder, out,
        EngineChoice(threads=threads), RunOptions(),
    )  # fmt: skip
    measured = time.perf_counter() - start - built[0]
    write_results(results, out)
    wall = time.perf_counter() - start - built[0]
    cost = _cost(wall, _processor_seconds() - used - built[1])
    return cost | {'report_s': wall - measured}


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _cost(wall: float, processor: float) -> dict[str, float]:
    """Return seconds and the largest resident memory of this process in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {'wall_s': wall, 'processor_s': processor, 'peak_mib': peak}


def _child(*words: str) -> dict[str, float]:
    """Run one measurement in a process of its own."""
    done = subprocess.run(
        [sys.executable, '-m', 'trainer.bench_evaluate', '--child', *words],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f'{" ".join(words)} failed:\n{done.stderr}')
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def measure(plan: Sequence[tuple[int, int]], threads: int) -> list[dict[str, Any]]:
    """
    Return one row per (pictures, rounds): medians over the rounds of each round's overhead.

    The two forms take turns, since a machine's speed drifts.
    """
    rows = []
    for count, rounds in plan:
        pairs = []
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as place:
                folder = Path(place)
                write_pictures(folder / 'data', count)
                alone = _child('engine', str(count), str(threads))
                whole = _child('evaluate', str(folder / 'data'), str(folder / 'out'), str(threads))
            pairs.append({'engine': alone, 'evaluate': whole})
        row: dict[str, Any] = {'pictures': count, 'rounds': pairs}
        for name in ('wall_s', 'processor_s'):
            ratios = [pair['evaluate'][name] / pair['engine'][name] - 1 for pair in pairs]
            row[f'overhead_{name}'] = statistics.median(ratios)
        row['peak_mib'] = max(pair['evaluate']['peak_mib'] for pair in pairs)
        rows.append(row)
        print(
            f'{count} pictures, median of {rounds}: evaluate costs '
            f'{100 * row["overhead_wall_s"]:+.1f} % of the engine alone (processor time '
            f'{100 * row["overhead_processor_s"]:+.1f} %), {row["peak_mib"]:.0f} MiB',
            flush=True,
        )
    return rows


def _plan(text: str) -> tuple[int, int]:
    count, _, rounds = text.partition('x')
    return int(count), int(rounds or 1)


def main() -> None:
    """Run the benchmark, or one of its measurements."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--pictures', type=_plan, nargs='+', default=[(50, 3), (200, 3), (500, 1)],
        metavar='COUNTxROUNDS',
    )  # fmt: skip
    parser.add_argument('--threads', type=int, default=0, help='0: all cores')
    parser.add_argument('--json', type=Path, help='write the rows to this file')
    parser.add_argument('--child', nargs='+', default=[], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        kind, *words = options.child
        if kind == 'engine':
            result = engine_alone(*map(int, words))
        else:
            result = whole_evaluation(Path(words[0]), Path(words[1]), int(words[2]))
        print(json.dumps(result))
        return
    rows = measure(options.pictures, options.threads)
    if options.json:
        write_json(options.json, {'machine': machine(), 'threads': options.threads, 'rows': rows})


if __name__ == '__main__':
    main()
