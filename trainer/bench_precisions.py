# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
CPU engines and precisions at three sizes: time, share of the machine's peak, AP and FPR95.

OpenVINO in both of its modes: all threads on one picture, and one thread for each of as many.

    python -m trainer.bench_precisions --fit FOLDER --speed      on a quiet machine, minutes
    python -m trainer.bench_precisions --fit FOLDER --accuracy   may run beside other work

FOLDER: the calibrate folder of the default bundle's fit. Both parts go on where they were
stopped; each writes the whole table (JSON, and Markdown beside it) from what there is.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ood_perception.bench.cases import Case
from ood_perception.bench.flops import count_flops
from ood_perception.bench.machine import machine
from ood_perception.bench.program import Plan, run
from ood_perception.bundle.completion import complete
from ood_perception.bundle.store import Bundle, default_bundle_path, load_bundle
from ood_perception.bundle.typed_graph import read_model
from ood_perception.engines import create_checked_engine
from ood_perception.engines.base import EngineOptions
from ood_perception.engines.quantize import linear_nodes
from ood_perception.engines.quantize_facts import INT8, quantization_path, read_quantization
from ood_perception.errors import OodPerceptionError
from ood_perception.evaluation.results import write_json
from ood_perception.geometry import to_camera, to_camera_nearest
from ood_perception.metrics.pixel import pixel_metrics, pool, scored_picture
from ood_perception.pipeline import Pipeline
from ood_perception.types import Frame

from .datasets.anomaly import load_anomaly_set
from .precision_bundles import bundle_of_size
from .precision_table import ENGINES, THROUGHPUT, table

SIZES = ('280x560', '392x784', '518x1036')
SET = 'road_anomaly_dev'
DEFAULT = Path('docs/benchmarks/cpu_precisions.json')


def measure_speed(bundle: Bundle, options: argparse.Namespace) -> dict[str, Any]:
    """Return the benchmark of all engines in turns with torch and the peak."""
    classes = bundle.manifest.in_distribution
    base = Case(
        bundle=str(bundle.root),
        threads=options.threads,
        runs=options.repeats,
        warmup=1,
        classes=classes,
    )
    cases = [
        replace(base, runtime=runtime, precision=precision)
        for runtime, precision in _engines(bundle)
    ]
    cases += [
        replace(case, mode=THROUGHPUT, batch=case.cores)
        for case in cases
        if case.runtime == 'openvino'
    ]
    report = run(Plan(tuple(cases), sides=(512, 1024, 2048)), _tell)
    rates = next(iter(report['peak_gflops'].values()), {})
    report['ideal_ms'] = ideal_times(bundle, rates)
    return report


def ideal_times(bundle: Bundle, rates: dict[str, float]) -> dict[str, float]:
    """
    Return precision -> milliseconds of the backbone's products at the machine's best rates.

    int8 is a mix: the quantised products at the int8 rate, those that its facts keep and
    attention at the bf16 rate.
    rates: GFLOP/s of f32, bf16 and i8, as matmul_peak measures them.
    """
    model = read_model(bundle.stage_path(bundle.manifest.stages[0]))
    whole = count_flops(model.SerializeToString())
    kept: tuple[str, ...] = ()
    if INT8 in bundle.manifest.precisions:
        kept = read_quantization(quantization_path(bundle)).kept
    linear = products_with_weights(model, kept)
    ideal = {name: whole / rates[name] / 1e6 for name in ('f32', 'bf16') if name in rates}
    if {'i8', 'f32'} <= set(rates):
        other = rates.get('bf16', rates['f32'])
        ideal[INT8] = (linear / rates['i8'] + (whole - linear) / other) / 1e6
    return ideal


def products_with_weights(model: Any, kept: Collection[str] = ()) -> float:
    """
    Return the operations of a ViT's products with constant matrices, for one picture.

    kept: names of products that do not count.
    """
    size = [side.dim_value for side in model.graph.input[0].type.tensor_type.shape.dim]
    stored = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    convolution = next(node for node in model.graph.node if node.op_type == 'Conv')
    patch = stored[convolution.input[1]][2]
    tokens = size[1] // patch * (size[2] // patch) + stored.get('prefix', [1, 0])[1]
    shapes = [stored[node.input[1]] for node in linear_nodes(model) if node.name not in kept]
    return float(sum(2 * tokens * rows * columns for rows, columns in shapes))


def measure_accuracy(bundle: Bundle, key: tuple[str, str], options: Any) -> dict[str, Any]:
    """Return AP and FPR95 in percent on the dev set, whole image and predicted ground."""
    from tqdm import tqdm

    pictures = load_anomaly_set(SET, options.root / SET)
    choice = EngineOptions(*key, options.threads, compiled_classes=())
    parts: dict[str, list[Any]] = {'image': [], 'ground': []}
    engine, golden = create_checked_engine(bundle, choice)
    with engine:
        pipeline = Pipeline(bundle, engine)
        count = min(len(pictures), options.pictures or len(pictures))
        for index in tqdm(range(count), f'{bundle.manifest.name} {" ".join(key)}', leave=False):
            image, labels = pictures.read(index)
            found = pipeline.run([Frame(image, 'dev', frame_id=pictures.names[index])])[0]
            scores = to_camera(found.surprisal, found.geometry)
            ground = to_camera_nearest(found.scored, found.geometry)
            parts['image'].append(scored_picture(scores, labels))
            parts['ground'].append(scored_picture(scores, labels, ground))
    result: dict[str, Any] = {'pictures': count, 'golden': golden.to_json()}
    for region, scored in parts.items():
        metrics = pixel_metrics(pool(scored))
        result[region] = {
            'average_precision': 100 * metrics.average_precision,
            'fpr95': 100 * metrics.fpr95,
        }
    return result


def _engines(bundle: Bundle) -> list[tuple[str, str]]:
    known = bundle.manifest.precisions
    return [key for key in ENGINES if key[1] != INT8 or INT8 in known]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what was asked for and write the table."""
    options = _options(arguments)
    source = complete(load_bundle(options.bundle or default_bundle_path()))
    report = _read(options.out)
    report['sizes'] = options.sizes
    jobs = []
    for text in options.sizes:
        rows, _, columns = text.partition('x')
        size = (int(rows), int(columns))
        bundle = bundle_of_size(options.folder / text, size, source, options.fit)
        if options.speed:
            jobs.append((text, bundle, None))
        if options.accuracy:
            jobs += [(text, bundle, key) for key in _engines(bundle)]
    for number, (text, bundle, key) in enumerate(jobs, 1):
        name = 'speed' if key is None else ' '.join(key)
        kept = report['speed'] if key is None else report['accuracy'].setdefault(text, {})
        place = text if key is None else name
        mark = {'bundle': bundle.sha256, 'repeats': options.repeats if key is None else 0}
        mark['pictures'] = 0 if key is None else options.pictures
        if kept.get(place, {}).get('of') == mark:
            continue
        _tell(f'[{number}/{len(jobs)}] {text} {name}')
        made = (
            measure_speed(bundle, options)
            if key is None
            else measure_accuracy(bundle, key, options)
        )
        kept[place] = {**made, 'of': mark}
        _write(options.out, report)
    _write(options.out, report)
    print(table(report))
    return 0


def _read(path: Path) -> dict[str, Any]:
    empty: dict[str, Any] = {'machine': machine(), 'sizes': [], 'speed': {}, 'accuracy': {}}
    return {**empty, **json.loads(path.read_text('utf-8'))} if path.is_file() else empty


def _write(path: Path, report: dict[str, Any]) -> None:
    write_json(path, report)
    path.with_suffix('.md').write_text(table(report), encoding='utf-8')


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser('trainer.bench_precisions', description=__doc__)
    parser.add_argument('--fit', type=Path, required=True, help='calibrate folder of the fit')
    parser.add_argument('--bundle', default='', help='with int8 facts; default: the shipped one')
    parser.add_argument('--sizes', nargs='+', default=list(SIZES), help='HxW')
    parser.add_argument('--speed', action='store_true', help='measure times')
    parser.add_argument('--accuracy', action='store_true', help=f'measure AP on {SET}')
    parser.add_argument('--repeats', type=int, default=7)
    parser.add_argument('--pictures', type=int, default=0, help='0: all')
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--root', type=Path, default=Path(os.environ.get('OOD_DATA', '.')))
    parser.add_argument('--folder', type=Path, default=Path('out/bench_precisions'))
    parser.add_argument('--out', type=Path, default=DEFAULT)
    return parser.parse_args(arguments)


if __name__ == '__main__':
    try:
        sys.exit(main())
    except OodPerceptionError as error:
        print(f'bench_precisions: {error}', file=sys.stderr)
        sys.exit(2)
