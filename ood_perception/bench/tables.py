# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The benchmark's figures as text for the terminal, and latency against resolution as a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ood_perception.errors import required
from ood_perception.files import make_file
from ood_perception.types import JsonDict

Row = tuple[str, ...]
Points = Mapping[str, Sequence[tuple[int, float]]]
HEADER: Row = (
    'bundle', 'input', 'engine', 'precision', 'threads', 'cameras', 'preprocess', 'backbone',
    'head', 'postprocess', 'total', 'frames/s', 'RSS MB', 'J/run', 'share of peak',
    'torch / backbone', 'naive / head', '|d| surprisal',
)  # fmt: skip


def bundle_rows(results: Sequence[JsonDict]) -> list[Row]:
    """Return a row per measured case, milliseconds as p50 (p95), ratios as median (least)."""
    return [_row(result) for result in results if 'error' not in result]


def _row(result: JsonDict) -> Row:
    engine, case, stages = result['engine'], result['case'], result['stages_ms']
    bundle, shares, found = result['bundle'], result['share_of_peak'], result['ratios']
    joules = result['joules_per_run']
    first = next(iter(shares), '')
    return (
        bundle['name'],
        f'{bundle["height"]}x{bundle["width"]}',
        f'{engine["runtime"]} {engine["version"].split("-")[0]}',
        ', '.join(engine[name] for name in ('precision', 'rounding') if name in engine),
        str(case['threads'] or 'all'),
        f'{case["batch"]}{_views_suffix(result)}{mode_suffix(case)}',
        *(_time(stages.get(name)) for name in ('preprocess', 'backbone')),
        _head_time(stages),
        *(_time(stages.get(name)) for name in ('postprocess', 'total')),
        f'{result["frames_per_second"]:.2f}',
        f'{result["rss_mb"]:.0f}',
        f'{joules:.2f}' if isinstance(joules, float) else '-',
        f'{shares[first]:.0%}' if first else '-',
        *(_ratio(found.get(name)) for name in ('torch_backbone', 'naive_distances')),
        f'{result["golden"]["surprisal_difference"]:.2g}',
    )


def mode_suffix(case: JsonDict) -> str:
    """Return '' for the usual mode of a case, ', throughput' for the other."""
    mode = case.get('mode', 'latency')
    return '' if mode == 'latency' else f', {mode}'


def _views_suffix(result: JsonDict) -> str:
    """Return '' where a frame is one image, else how many images a run holds, or of which view."""
    case = result['case']
    if case.get('views', 'all') != 'all':
        return f', {case["views"]} alone'
    images = result.get('images', case['batch'])
    return f', {images} images' if images > case['batch'] else ''


def _time(stage: dict[str, float] | None) -> str:
    return '-' if stage is None else f'{stage["p50"]:.1f} ({stage["p95"]:.1f})'


def _head_time(stages: JsonDict) -> str:
    """Return the head's time, behind that of the searches that an index makes for it."""
    searches = sorted(name for name in stages if name.startswith('search'))
    return ' + '.join(_time(stages.get(name)) for name in (*searches, 'head'))


def _ratio(found: dict[str, float] | None) -> str:
    return '-' if found is None else f'{found["median"]:.1f} ({found["least"]:.1f})'


def bundle_text(report: JsonDict) -> str:
    """Return machine, peaks, an aligned table and the cases that failed."""
    lines = [f'{key}: {value}' for key, value in report['machine'].items()]
    lines.append(f'energy: {report["energy"]}')
    for threads, rates in report['peak_gflops'].items():
        shown = ', '.join(f'{kind} {rate:.0f}' for kind, rate in rates.items())
        lines.append(f'peak of {threads} threads: {shown} GFLOP/s')
    rows = [HEADER, *bundle_rows(report['results'])]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADER))]
    lines += ['  '.join(f'{v:>{w}}' for v, w in zip(row, widths, strict=True)) for row in rows]
    for result in report['results']:
        if 'error' in result:
            case = result['case']
            shown = ' '.join(str(case[k]) for k in ('bundle', 'runtime', 'precision', 'threads'))
            lines.append(f'{shown}: {result["error"]}')
    return '\n'.join(lines)


def plot_latency(lines: Points, path: Path) -> None:
    """
    Write a PNG or SVG of milliseconds against network pixels, both axes logarithmic.

    lines: label -> (pixels, milliseconds), sorted. DependencyError without matplotlib.
    """
    required('matplotlib', 'the plot needs matplotlib: pip install matplotlib')
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout='constrained')
    axes = figure.add_subplot()
    for label, points in lines.items():
        axes.plot(*zip(*points, strict=True), marker='o', label=label)
    axes.set(xscale='log', yscale='log', xlabel='network input, pixels', ylabel='milliseconds')
    axes.grid(which='both', alpha=0.3)
    axes.legend(fontsize='small')
    kind = path.suffix.removeprefix('.') or 'png'
    make_file(path, lambda file: figure.savefig(file, format=kind, dpi=120))


def points_of_bundles(results: Sequence[JsonDict]) -> dict[str, list[tuple[int, float]]]:
    """Return a line per engine, precision, threads and cameras over the bundles' input sizes."""
    lines: dict[str, list[tuple[int, float]]] = {}
    for result in results:
        if 'error' in result:
            continue
        case, engine, bundle = result['case'], result['engine'], result['bundle']
        label = (
            f'{engine["runtime"]} {engine["precision"]}, {case["threads"] or "all"} threads, '
            f'{case["batch"]} cameras{_views_suffix(result)}{mode_suffix(case)}'
        )
        point = (bundle['height'] * bundle['width'], result['stages_ms']['total']['p50'])
        lines.setdefault(label, []).append(point)
    return {label: sorted(points) for label, points in lines.items()}
