# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Latency against resolution, as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ood_perception.bench.tables import mode_suffix
from ood_perception.errors import DependencyError
from ood_perception.files import make_file
from ood_perception.types import JsonDict

Points = Mapping[str, Sequence[tuple[int, float]]]


def plot_latency(lines: Points, path: Path) -> None:
    """
    Write a PNG or SVG of milliseconds against network pixels, both axes logarithmic.

    lines: label -> (pixels, milliseconds), sorted. DependencyError without matplotlib.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DependencyError('the plot needs matplotlib: pip install matplotlib') from error
    figure = Figure(figsize=(7, 4.5), layout='constrained')
    FigureCanvasAgg(figure)
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
            f'{case["batch"]} cameras{mode_suffix(case)}'
        )
        point = (bundle['height'] * bundle['width'], result['stages_ms']['total']['p50'])
        lines.setdefault(label, []).append(point)
    return {label: sorted(points) for label, points in lines.items()}
