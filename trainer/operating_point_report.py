# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The answer of `trainer operating-point` in words, as JSON, Markdown and a plot."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ood_perception.bundle.cache import make_file
from ood_perception.errors import DependencyError
from ood_perception.evaluation.alarm_rates import (
    SECONDS,
    AlarmRates,
    Choice,
    Wanted,
    frames_needed,
    frames_per,
    frontier,
    recommended,
)
from ood_perception.evaluation.reports import markdown_table
from ood_perception.tracking import Persistence

from .results import write_json

NAME = 'operating_point'


@dataclass(frozen=True)
class Answer:
    """
    What can be promised.

    wanted: as asked. fps: frames a second. choices: the least strict pairs that keep it, the
    largest rate first. choice: the recommended one, None when none keeps it. text: all of it in
    words. parameters: lines for the node's YAML, '' without a choice.
    """

    wanted: Wanted
    fps: float
    choices: tuple[Choice, ...]
    choice: Choice | None
    text: str
    parameters: str


def answer(
    rates: AlarmRates, wanted: Wanted, fps: float, patch: float, persistence: Persistence | None
) -> Answer:
    """Choose parameters; patch: camera pixels of one patch of the backbone."""
    per_frame = wanted.per_frame(fps)
    choices = frontier(rates, per_frame)
    choice = recommended(choices, patch)
    scale = frames_per(wanted.unit, fps)
    basis = (
        f'{rates.frames} clean frames ({_duration(rates.frames / fps)} at {fps:g} a second, '
        f'{rates.blocks} blocks of up to {rates.block})'
    )
    if choice is None:
        text = _cannot(rates, wanted, per_frame, scale, fps, basis)
        return Answer(wanted, fps, (), None, text, '')
    parameters = _parameters(choice, persistence)
    return Answer(
        wanted,
        fps,
        tuple(choices),
        choice,
        _can(choices, choice, wanted, scale, basis, patch) + '\n' + parameters,
        parameters,
    )


def _can(
    choices: list[Choice], choice: Choice, wanted: Wanted, scale: float, basis: str, patch: float
) -> str:
    """Say what is recommended and what the alternatives trade."""
    lines = [
        f'{wanted.count:g}/{wanted.unit}: false_alarm_rate {choice.rate:g} with minimum_area '
        f'{choice.area:g}: {_number(choice.mean * scale)} false obstacles per {wanted.unit} seen, '
        f'at most {_number(choice.upper * scale)} (95 %) on {basis}.',
    ]
    if choice.area > patch:
        lines.append(
            f'An area of {choice.area / patch:.1f} patches removes objects that the head finds: '
            'the recorded frames allow no smaller one.'
        )
    others = [c for c in choices if c != choice]
    if others:
        pairs = '; '.join(f'{c.rate:g} with {c.area:g}' for c in others)
        lines.append(
            f'As good for false alarms: {pairs}. A larger rate finds fainter objects, a smaller '
            'area finds smaller ones.'
        )
    lines.append('Each bound is of its pair alone; check the chosen one on other clean frames.')
    return '\n'.join(lines)


def _cannot(
    rates: AlarmRates, wanted: Wanted, per_frame: float, scale: float, fps: float, basis: str
) -> str:
    """Say that the frames do not suffice, what they do promise, and how many are needed."""
    row, column = np.unravel_index(np.argmin(rates.upper), rates.upper.shape)
    best = float(rates.upper[row, column])
    needed = frames_needed(per_frame, rates.block, rates.distinct)
    lines = [
        f'{wanted.count:g}/{wanted.unit} cannot be promised from {basis}.',
        f'The least that can: {_number(best * scale)} per {wanted.unit} (95 %), at '
        f'false_alarm_rate {rates.rates[row]:g} with minimum_area {rates.areas[column]:g}, where '
        f'{_number(float(rates.mean[row, column]) * scale)} were seen.',
        f'Even without a single false obstacle {needed} clean frames are needed '
        f'({_duration(needed / fps)}).',
    ]
    if not rates.distinct:
        lines.append(
            f'Here every frame counts anew and up to {rates.block} neighbours may be one draw; '
            'with consecutive frames and --persistence an obstacle counts once, and '
            f'{frames_needed(per_frame, rates.block, True)} frames do.'
        )
    return '\n'.join(lines)


def _parameters(choice: Choice, persistence: Persistence | None) -> str:
    lines = [
        '/**:',
        '  ros__parameters:',
        f'    false_alarm_rate: {choice.rate:.10f}'.rstrip('0'),
        f'    minimum_area: {choice.area:.1f}',
    ]
    if persistence is not None:
        lines += [
            '    persistence:',
            f'      window: {persistence.window}',
            f'      required: {persistence.required}',
        ]
    return '\n'.join(lines) + '\n'


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
    make_file(folder / f'{NAME}.md', lambda path: _write_text(path, text))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding='utf-8')


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
        '\n'.join(f'* {key}: {value}' for key, value in facts.items()),
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
                f'{_number(mean * scale)} ({_number(upper * scale)})'
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
        rows.append(
            [
                f'{choice.rate:g}',
                f'{choice.area:g}',
                f'{_number(choice.mean)} ({_number(choice.upper)})',
                f'{_number(float(observed.mean[place]))} '
                f'[{_number(float(observed.low[place]))}, {_number(float(observed.high[place]))}]',
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


def _number(value: float) -> str:
    """Write a rate with two digits."""
    if value == 0:
        return '0'
    return f'{value:.0f}' if value >= 99.5 else f'{value:.2g}'


def _duration(seconds: float) -> str:
    """Write a time in the unit that suits it."""
    for unit in ('hour', 'minute'):
        if seconds >= 2 * SECONDS[unit]:
            return f'{seconds / SECONDS[unit]:.1f} {unit}s'
    return f'{seconds:.1f} s'
