# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The answer of `trainer operating-point`, and its report: JSON, Markdown and a plot."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ood_perception.errors import DependencyError, required
from ood_perception.evaluation.results import write_json, write_text
from ood_perception.files import make_file
from ood_perception.metrics.operating_point import (
    SECONDS,
    AlarmRates,
    Choice,
    Wanted,
    frames_needed,
    frames_per,
    frontier,
    recommended,
)
from ood_perception.postprocess.tracking import Persistence
from ood_perception.reports.html import render
from ood_perception.requirements import install_command

NAME = 'operating_point'


@dataclass(frozen=True)
class Answer:
    """
    What can be stated.

    wanted: as asked. fps: frames a second. choices: the least strict pairs that keep it, the
    largest rate first. choice: the recommended one, None when none keeps it. text: all of it in
    words, with lines for the node's YAML where there is a choice.
    """

    wanted: Wanted
    fps: float
    choices: tuple[Choice, ...]
    choice: Choice | None
    text: str


def answer(
    rates: AlarmRates,
    wanted: Wanted,
    fps: float,
    patch: float,
    persistence: Persistence | None,
    hysteresis_rate: float = 0.0,
) -> Answer:
    """
    Choose parameters.

    patch: camera pixels of one patch of the backbone. persistence, hysteresis_rate: what the
    counts were made with.
    """
    per_frame = wanted.per_frame(fps)
    choices = frontier(rates, per_frame)
    choice = recommended(choices, patch)
    row, column = np.unravel_index(np.argmin(rates.upper), rates.upper.shape)
    text = render(
        f'{NAME}_answer.txt.j2',
        rates=rates,
        wanted=wanted,
        fps=fps,
        scale=frames_per(wanted.unit, fps),
        patch=patch,
        choices=choices,
        choice=choice,
        least=_pair(rates, int(row), int(column)),
        needed=frames_needed(per_frame, rates.block, rates.distinct),
        needed_once=frames_needed(per_frame, rates.block, True),
        persistence=persistence,
        hysteresis_rate=hysteresis_rate,
        two_digits=two_digits,
        decimal=_decimal,
        duration=_duration,
    )
    return Answer(wanted, fps, tuple(choices), choice, text if choice else text.rstrip())


def _pair(rates: AlarmRates, row: int, column: int) -> Choice:
    mean, upper = (float(values[row, column]) for values in (rates.mean, rates.upper))
    return Choice(rates.rates[row], rates.areas[column], mean, upper)


def write_report(
    folder: Path,
    facts: dict[str, Any],
    rates: AlarmRates,
    result: Answer,
    checked: tuple[str, AlarmRates] | None,
) -> None:
    """
    Write operating_point.json, .md and, where matplotlib is installed, .png.

    checked: held-out frames, their source and what was observed on them.
    """
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
    plot = f'{NAME}.png'
    try:
        make_file(folder / plot, lambda path: _plot(path, rates, result))
    except DependencyError as error:
        plot = ''
        print(f'no plot: {error}')
    unit = result.wanted.unit
    scales = [1.0] if unit == 'frame' else [1.0, frames_per(unit, result.fps)]
    source, observed = checked or ('', None)
    kept = float(np.mean(observed.mean <= rates.upper)) if observed else None
    values = {'facts': facts, 'result': result, 'plot': plot, 'rates': rates, 'scales': scales}
    values |= {'source': source, 'observed': observed, 'kept': kept}
    text = render(f'{NAME}.md.j2', **values, two_digits=two_digits)
    write_text(folder / f'{NAME}.md', text)


def _record(rates: AlarmRates) -> dict[str, Any]:
    """Return rates as JSON values."""
    return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in asdict(rates).items()}


def _plot(path: Path, rates: AlarmRates, result: Answer) -> None:
    """Draw the upper bounds against the rate, one line an area."""
    matplotlib = required('matplotlib.figure', f'install matplotlib: {install_command("train")}')
    figure = matplotlib.Figure(figsize=(7, 4.5), layout='constrained')
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


def two_digits(value: float) -> str:
    """Write a rate with two digits."""
    if value == 0:
        return '0'
    return f'{value:.0f}' if value >= 99.5 else f'{value:.2g}'


def _decimal(value: float) -> str:
    """Write a rate without an exponent, as ROS takes it for a double."""
    text = f'{value:.10f}'.rstrip('0')
    return f'{text}0' if text.endswith('.') else text


def _duration(seconds: float) -> str:
    """Write a time in the unit that suits it."""
    for unit in ('hour', 'minute'):
        if seconds >= 2 * SECONDS[unit]:
            return f'{seconds / SECONDS[unit]:.1f} {unit}s'
    return f'{seconds:.1f} s'
