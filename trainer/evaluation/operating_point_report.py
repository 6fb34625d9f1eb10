# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The report of `trainer operating-point`: JSON, Markdown and a plot."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ood_perception.errors import DependencyError
from ood_perception.evaluation.results import write_json, write_text
from ood_perception.files import make_file
from ood_perception.metrics.operating_point import AlarmRates, frames_per
from ood_perception.reports.markdown import markdown_table

from .operating_point_answer import Answer, two_digits

NAME = 'operating_point'


def write_report(
    folder: Path,
    facts: dict[str, Any],
    rates: AlarmRates,
    result: Answer,
    checked: tuple[str, AlarmRates] | None,
) -> None:
    """Write operating_point.json, .md and, where matplotlib is installed, .png."""
    folder.mkdir(parents=True, exist_ok=True)
    record = {
        **facts,
        'wanted': asdict(result.wanted),
        'choices': [asdict(choice) for choice in result.choices],
        'recommended': asdict(result.choice) if result.choice else None,
        'answer': result.text,
        'rates': _record(rates),
        'check': {'source': checked[0], **_record(checked[1])} if checked else None,
    }
    write_json(folder / f'{NAME}.json', record)
    pictured = True
    try:
        make_file(folder / f'{NAME}.png', lambda path: _plot(path, rates, result))
    except DependencyError as error:
        pictured = False
        print(f'no plot: {error}')
    text = _markdown(facts, rates, result, checked, pictured)
    write_text(folder / f'{NAME}.md', text)


def _record(rates: AlarmRates) -> dict[str, Any]:
    """Return rates as JSON values."""
    return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in asdict(rates).items()}


def _markdown(
    facts: dict[str, Any],
    rates: AlarmRates,
    result: Answer,
    checked: tuple[str, AlarmRates] | None,
    pictured: bool,
) -> str:
    unit = result.wanted.unit
    counted = 'each obstacle once' if rates.distinct else 'each frame anew'
    told = [
        '# Operating point\n',
        '\n'.join(f'* {key}: {value}' for key, value in facts.items() if value is not None),
        f'\n```\n{result.text}```\n' if result.choice else f'\n{result.text}\n',
        *([f'![false obstacles against the rate]({NAME}.png)\n'] if pictured else []),
        f'False obstacles per frame, {counted}: seen (95 % upper bound).\n',
        _table(rates, 1.0),
    ]
    if unit != 'frame':
        told += [f'The same per {unit}.\n', _table(rates, frames_per(unit, result.fps))]
    if checked:
        told += [
            f'## On held-out frames: {checked[0]}\n',
            check_table(rates, *checked[1:], result),
        ]
    return '\n'.join(told)


def _table(rates: AlarmRates, scale: float) -> str:
    """Return the grid as Markdown, in false obstacles per `scale` frames."""
    header = ['rate \\ minimum area', *(f'{area:g}' for area in rates.areas)]
    rows = [
        [
            f'{rate:g}',
            *(
                f'{two_digits(mean * scale)} ({two_digits(upper * scale)})'
                for mean, upper in zip(rates.mean[row], rates.upper[row], strict=True)
            ),
        ]
        for row, rate in enumerate(rates.rates)
    ]
    return markdown_table(header, rows)


def check_table(rates: AlarmRates, observed: AlarmRates, result: Answer) -> str:
    """Return predicted against observed false obstacles per frame, chosen pairs and the grid."""
    kept = float(np.mean(observed.mean <= rates.upper))
    rows = []
    for choice in result.choices:
        place = rates.rates.index(choice.rate), rates.areas.index(choice.area)
        mean, low, high = (
            two_digits(float(values[place]))
            for values in (observed.mean, observed.low, observed.high)
        )
        rows.append(
            [
                f'{choice.rate:g}',
                f'{choice.area:g}',
                f'{two_digits(choice.mean)} ({two_digits(choice.upper)})',
                f'{mean} [{low}, {high}]',
                'yes' if observed.mean[place] <= choice.upper else 'no',
            ]
        )
    header = ['rate', 'area', 'predicted per frame (upper)', 'observed [95 %]', 'kept']
    text = markdown_table(header, rows) if rows else ''
    return text + (
        f'\nOver the whole grid the observed rate of {observed.frames} frames is at or below the '
        f'predicted upper bound at {100 * kept:.0f} % of the pairs.\n'
    )


def _plot(path: Path, rates: AlarmRates, result: Answer) -> None:
    """Draw the upper bounds against the rate, one line an area."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DependencyError("install matplotlib: pip install 'ood_perception[train]'") from error
    figure = Figure(figsize=(7, 4.5), layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    unit = result.wanted.unit
    scale = frames_per(unit, result.fps)
    for column, area in enumerate(rates.areas):
        (line,) = axes.plot(
            rates.rates, rates.upper[:, column] * scale, '-o', ms=3, label=f'{area:g} pixels'
        )
        seen = np.where(rates.mean[:, column] > 0, rates.mean[:, column], np.nan)
        axes.plot(rates.rates, seen * scale, ':', color=line.get_color())
    axes.axhline(result.wanted.count, color='black', lw=0.8)
    axes.set_xscale('log')
    axes.set_yscale('log')
    axes.set_xlabel('false_alarm_rate')
    axes.set_ylabel(f'false obstacles per {unit}\n95 % upper bound (dotted: seen)')
    axes.legend(title='minimum area', fontsize='small')
    axes.set_title(f'wanted: {result.wanted.count:g} per {unit}')
    figure.savefig(path, format='png', dpi=120)
