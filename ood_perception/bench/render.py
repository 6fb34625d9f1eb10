# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Put the benchmark's tables and its plot into a folder's README, from the JSON files beside it.

    python -m ood_perception.bench.render docs/benchmarks

Every table stands between <!-- NAME --> and <!-- /NAME -->, NAME being bundle, share, forms or
node; no figure is typed by hand.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from ood_perception.bench.plot import plot_latency
from ood_perception.bench.tables import SECTIONS
from ood_perception.bundle.cache import make_file
from ood_perception.errors import ConfigError, OodPerceptionError


def render(folder: Path) -> None:
    """Rewrite folder/README.md; ConfigError for a section without its file or of other form."""
    page = folder / 'README.md'
    text = page.read_text(encoding='utf-8')
    for name, (file, table) in SECTIONS.items():
        if f'<!-- {name} -->' not in text:
            continue
        try:
            shown = table(json.loads((folder / file).read_text(encoding='utf-8')))
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f'{folder / file}: no table {name} can be made of it ({type(error).__name__}: '
                f'{error}); run the benchmark again'
            ) from error
        text = replaced(text, name, shown)
    make_file(page, lambda new: _write(new, text))


def replaced(text: str, name: str, table: str) -> str:
    """Return text with what stands between the marks of a section replaced."""
    start, end = f'<!-- {name} -->', f'<!-- /{name} -->'
    pattern = re.compile(f'{re.escape(start)}.*?{re.escape(end)}', re.DOTALL)
    if not pattern.search(text):
        raise ConfigError(f'section {start} has no end: write {end} behind it')
    return pattern.sub(lambda _: f'{start}\n{table}\n{end}', text)


def _write(file: Path, text: str) -> None:
    file.write_text(text, encoding='utf-8')


def main(argv: Sequence[str] | None = None) -> int:
    """Render; exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').strip().splitlines()[0])
    parser.add_argument('folder', type=Path, nargs='?', default=Path('docs/benchmarks'))
    parser.add_argument('--plot', action='store_true', help='latency.png from the head.json, too')
    arguments = parser.parse_args(argv)
    try:
        render(arguments.folder)
        if arguments.plot:
            values = json.loads((arguments.folder / 'head.json').read_text(encoding='utf-8'))
            plot_latency(points_of_head(values), arguments.folder / 'latency.png')
    except (OodPerceptionError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    return 0


def points_of_head(
    report: dict[str, list[dict[str, object]]],
) -> dict[str, list[tuple[int, float]]]:
    """Return per line of the plot (network pixels, milliseconds), from head.json's shares."""
    lines: dict[str, dict[int, float]] = {}
    for row in report['shares']:
        grid = row['grid']
        assert isinstance(grid, list)
        pixels = int(grid[0]) * int(grid[1]) * 14 * 14
        head = f'head {row["classes"]} x {row["etalons"]}'
        for label, key in ((str(row['backbone']), 'backbone_ms'), (head, 'head_ms')):
            lines.setdefault(label, {})[pixels] = float(str(row[key]))
    return {label: sorted(points.items()) for label, points in lines.items()}


if __name__ == '__main__':
    sys.exit(main())
