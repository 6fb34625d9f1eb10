# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
CPU engines and precisions at three sizes: time, share of the machine's peak, AP and FPR95.

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
from collections.abc import Sequence
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
from ood_perception.engines.quantize_facts import INT8
from ood_perception.errors import OodPerceptionError
from ood_perception.evaluation.metrics import pixel_metrics, pool, scored_picture
from ood_perception.evaluation.reports import markdown_table
from ood_perception.geometry import to_camera, to_camera_nearest
from ood_perception.pipeline import Pipeline
from ood_perception.types import Frame

from .datasets.anomaly import load_anomaly_set
from .precision_bundles import bundle_of_size
from .results import write_json

SIZES = ('280x560', '392x784', '518x1036')
ENGINES = (
    ('openvino', 'f32'),
    ('openvino', 'bf16'),
    ('openvino', 'int8'),
    ('onnxruntime', 'f32'),
    ('onnxruntime', 'int8'),
)
SET = 'road_anomaly_dev'
DEFAULT = Path('docs/benchmarks/cpu_precisions.json')


def measure_speed(bundle: Bundle, options: argparse.Namespace) -> dict[str, Any]:
    """Return the benchmark of all engines in turns with torch and the peak."""
    classes = bundle.manifest.in_distribution
    cases = tuple(
        Case(
            bundle=str(bundle.root),
            runtime=runtime,
            precision=precision,
            threads=options.threads,
            runs=options.repeats,
            warmup=1,
            classes=classes,
        )
        for runtime, precision in _engines(bundle)
    )
    report = run(Plan(cases, sides=(512, 1024, 2048)), _tell)
    rates = next(iter(report['peak_gflops'].values()), {})
    report['ideal_ms'] = ideal_times(bundle, rates)
    return report


def ideal_times(bundle: Bundle, rates: dict[str, float]) -> dict[str, float]:
    """
    Return precision -> milliseconds of the backbone's products at the machine's best rates.

    int8 is a mix: the products with weights at the int8 rate, attention at the bf16 rate.
    rates: GFLOP/s of f32, bf16 and i8, as matmul_peak measures them.
    """
    model = read_model(bundle.stage_path(bundle.manifest.stages[0]))
    whole = count_flops(model.SerializeToString())
    linear = products_with_weights(model)
    ideal = {name: whole / rates[name] / 1e6 for name in ('f32', 'bf16') if name in rates}
    if {'i8', 'f32'} <= set(rates):
        other = rates.get('bf16', rates['f32'])
        ideal[INT8] = (linear / rates['i8'] + (whole - linear) / other) / 1e6
    return ideal


def products_with_weights(model: Any) -> float:
    """Return the operations of a ViT's products with constant matrices, for one picture."""
    size = [side.dim_value for side in model.graph.input[0].type.tensor_type.shape.dim]
    stored = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    convolution = next(node for node in model.graph.node if node.op_type == 'Conv')
    patch = stored[convolution.input[1]][2]
    tokens = size[1] // patch * (size[2] // patch) + stored.get('prefix', [1, 0])[1]
    shapes = [stored[node.input[1]] for node in linear_nodes(model)]
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


def table(report: dict[str, Any]) -> str:
    """Return the Markdown table of a report."""
    header = ['size', 'engine', 'precision', 'backbone, ms', 'torch / own']
    header += ['share of peak, median', 'fastest runs']
    header += ['image: AP', 'image: FPR95', 'ground: AP', 'ground: FPR95']
    rows = []
    for size in report['sizes']:
        speed = report['speed'].get(size, {})
        for runtime, precision in ENGINES:
            timed = _timed(speed, runtime, precision)
            accuracy = report['accuracy'].get(size, {}).get(f'{runtime} {precision}')
            if timed is None and accuracy is None:
                continue
            cells = [size, runtime, precision, *(timed or ['-'] * 4)]
            for region in ('image', 'ground'):
                values = (accuracy or {}).get(region, {})
                cells += [
                    f'{values[name]:.2f}' if values else '-'
                    for name in ('average_precision', 'fpr95')
                ]
            rows.append(cells)
    return markdown_table(header, rows)


def _timed(speed: dict[str, Any], runtime: str, precision: str) -> list[str] | None:
    """
    Return median time, ratio to torch, and the share of the peak of the median and of the 5 %.

    The peak is the best of its runs; on a machine that others share, the like of it is the best
    runs of the backbone.
    """
    for result in speed.get('results', []):
        case = result['case']
        if (case['runtime'], case['precision']) == (runtime, precision):
            if 'error' in result:
                return ['failed', '-', '-', '-']
            median = result['stages_ms']['backbone']['p50']
            ratio = result['ratios'].get('torch_backbone', {})
            ideal = speed.get('ideal_ms', {}).get(precision)
            told = f'{ratio["median"]:.2f}' if ratio else '-'
            times = [median, result['stages_ms']['backbone']['p5']]
            shares = [f'{100 * ideal / time:.0f} %' if ideal else '-' for time in times]
            return [f'{median:.0f}', told, *shares]
    return None


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
