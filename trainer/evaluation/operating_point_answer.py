# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The answer of `trainer operating-point`: which parameters keep the wanted rate, in words."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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
    scale = frames_per(wanted.unit, fps)
    basis = (
        f'{rates.frames} clean frames ({_duration(rates.frames / fps)} at {fps:g} a second, '
        f'{rates.blocks} blocks of up to {rates.block})'
    )
    if choice is None:
        text = _cannot(rates, wanted, per_frame, scale, fps, basis)
        return Answer(wanted, fps, (), None, text, '')
    parameters = _parameters(choice, persistence, hysteresis_rate)
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
        f'{choice.area:g}: {two_digits(choice.mean * scale)} false obstacles per {wanted.unit} '
        f'seen, at most {two_digits(choice.upper * scale)} (95 %) on {basis}.',
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
        f'The least that can: {two_digits(best * scale)} per {wanted.unit} (95 %), at '
        f'false_alarm_rate {rates.rates[row]:g} with minimum_area {rates.areas[column]:g}, where '
        f'{two_digits(float(rates.mean[row, column]) * scale)} were seen.',
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


def _parameters(choice: Choice, persistence: Persistence | None, hysteresis_rate: float) -> str:
    lines = [
        '/**:',
        '  ros__parameters:',
        f'    false_alarm_rate: {choice.rate:.10f}'.rstrip('0'),
        f'    minimum_area: {choice.area:.1f}',
    ]
    if hysteresis_rate:  # at a rate that is as strict there is no such test, and the node wants 0
        kept = hysteresis_rate if hysteresis_rate < choice.rate else 0.0
        lines.append(f'    hysteresis_rate: {kept:.10f}'.rstrip('0') + ('0' if not kept else ''))
    if persistence is not None:
        lines += [
            '    persistence:',
            f'      window: {persistence.window}',
            f'      required: {persistence.required}',
        ]
    return '\n'.join(lines) + '\n'


def two_digits(value: float) -> str:
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
