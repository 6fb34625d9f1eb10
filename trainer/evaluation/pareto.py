# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Frames a second against average precision, of every shipped bundle: a page, a plot, a small file.

    ood pick --json ... > pick.json
    trainer evaluate BUNDLE ... --out FOLDER        once a precision, with views and without
    trainer pareto FOLDER ... --pick pick.json

Nothing is measured here. The small file is what `ood pick` tells the average precision from.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ood_perception.bench.machine import machine
from ood_perception.bench.pick import FIGURES
from ood_perception.errors import DataError, required
from ood_perception.evaluation.results import RESULTS, read_json, write_json, write_text
from ood_perception.files import make_file
from ood_perception.reports.html import render
from ood_perception.requirements import install_command

# set: its name in the table, and the region that counts
SETS = {
    'road_obstacle_dev/report': ('RoadObstacle', 'road'),
    'road_anomaly_dev/report': ('RoadAnomaly ground', 'ground'),
}
PAGE = Path('docs/results/pareto.md')
AP = 'average_precision'


@dataclass(frozen=True)
class Row:
    """
    One way of running a bundle.

    sha256: of the bundle's manifest. ap: name of a set -> percent and its 95 % interval. hz:
    frames a second, 0 = not measured.
    """

    bundle: str
    sha256: str
    precision: str
    views: bool
    ap: Mapping[str, tuple[float, float, float]]
    hz: float = 0.0

    @property
    def quality(self) -> float:
        """The mean over the sets, in percent."""
        return sum(value for value, _, _ in self.ap.values()) / len(self.ap)


def rows_of(results: Iterable[Mapping[str, Any]], picked: Mapping[str, Any]) -> list[Row]:
    """
    Return a row for every run that has all of SETS, the fastest first.

    results: contents of results.json. picked: what `ood pick --json` printed. Raises DataError
    where no run has the sets.
    """
    times = {
        (one['bundle'], one['precision'], one['views']): one['hz'] for one in picked.get('all', [])
    }
    found = [
        row
        for content in results
        for run in content['runs']
        if (row := _row(run, times)) is not None
    ]
    if not found:
        raise DataError(
            f'no run has both sets {", ".join(SETS)}: give folders of trainer evaluate'
        )
    return sorted(found, key=lambda row: (-row.hz, -row.quality))


def _row(run: Mapping[str, Any], times: Mapping[Any, float]) -> Row | None:
    """Return a run as a row, None where it lacks a set."""
    sets = run['sets']
    if not SETS.keys() <= sets.keys():
        return None
    regions = {name: sets[key]['regions'][region] for key, (name, region) in SETS.items()}
    ap = {
        name: (100 * one[AP], *(100 * bound for bound in one['intervals'][AP]))
        for name, one in regions.items()
    }
    precision = str(run['engine']['precision']).partition(' ')[0]
    key = run['bundle'], precision, bool(run['settings']['views'])
    return Row(key[0], run['bundle_sha256'], precision, key[2], ap, times.get(key, 0.0))


def best(rows: Sequence[Row]) -> set[int]:
    """Return the places of rows that no other beats in both rate and quality."""
    return {
        i
        for i, one in enumerate(rows)
        if one.hz
        and not any(
            other.hz >= one.hz
            and other.quality >= one.quality
            and (other.hz, other.quality) != (one.hz, one.quality)
            for other in rows
        )
    }


def page(rows: Sequence[Row], facts: Mapping[str, Any]) -> str:
    """Return the page as Markdown."""
    titles = [name for name, _ in SETS.values()]
    return render('pareto.md.j2', rows=rows, front=best(rows), titles=titles, facts=facts)


def figures(rows: Sequence[Row]) -> dict[str, Any]:
    """Return what `ood pick` reads: the average precision by bundle, its version beside it."""
    found: dict[str, Any] = {}
    for row in sorted(rows, key=lambda one: (one.bundle, one.precision, one.views)):
        entry = found.setdefault(row.bundle, {'sha256': row.sha256, 'ap': []})
        sets = {name: round(value, 1) for name, (value, _, _) in row.ap.items()}
        entry['ap'].append({'precision': row.precision, 'views': row.views, 'sets': sets})
    return found


def plot(rows: Sequence[Row], path: Path) -> None:
    """Write the plot as PNG, a point a row; DependencyError without matplotlib."""
    required('matplotlib', f'the plot needs matplotlib: {install_command("train")}')
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout='constrained')
    axes = figure.subplots(1, len(SETS), sharex=True)
    for axis, (name, _) in zip(axes, SETS.values(), strict=True):
        for bundle in dict.fromkeys(row.bundle for row in rows):
            own = [row for row in rows if row.bundle == bundle and row.hz]
            axis.plot([r.hz for r in own], [r.ap[name][0] for r in own], 'o', label=bundle)
        axis.set(xscale='log', xlabel='frames a second', ylabel='AP, percent', title=name)
        axis.grid(which='both', alpha=0.3)
    axes[0].legend(fontsize='small')
    make_file(path, lambda file: figure.savefig(file, format='png', dpi=120))


def main(arguments: Sequence[str]) -> int:
    """Run `trainer pareto`; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[1])
    parser.add_argument('folder', nargs='+', type=Path, help='results of trainer evaluate')
    parser.add_argument('--pick', type=Path, required=True, help='what ood pick --json printed')
    parser.add_argument('--out', type=Path, default=PAGE, help='page; the plot beside it')
    parser.add_argument('--figures', type=Path, default=FIGURES, help='for ood pick')
    options = parser.parse_args(arguments)
    rows = rows_of((read_json(f / RESULTS) for f in options.folder), read_json(options.pick))
    plot(rows, options.out.with_suffix('.png'))
    write_text(options.out, page(rows, machine()))
    write_json(options.figures, figures(rows))
    print(f'page: {options.out}')
    return 0
