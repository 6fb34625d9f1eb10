# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
From counted false obstacles to what may be stated: rates with bounds, and the pairs to choose.

Frames that follow each other look alike, so blocks of consecutive frames are drawn again, not
frames. The upper bound is never below the exact Poisson one over the blocks with an alarm
(F. Garwood, "Fiducial limits for the Poisson distribution", Biometrika 28, 1936), which for no
alarm at all is the rule of three: 3 / n.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError, required
from ..requirements import install_command
from .bootstrap import RESAMPLES, resample_weights
from .false_obstacles import AlarmCounts

LEVEL = 0.95
SECONDS = {'second': 1.0, 'minute': 60.0, 'hour': 3600.0, 'day': 86400.0}
Grid = npt.NDArray[np.float64]


@dataclass(frozen=True)
class AlarmRates:
    """
    False obstacles per frame over the grid, float64 (R, A) each.

    mean: observed. low, high: two-sided 95 % interval of the block bootstrap. upper: one-sided
    95 % upper bound, at least the exact one. frames, blocks: what it rests on; block: frames a
    block. distinct: see AlarmCounts.
    """

    rates: tuple[float, ...]
    areas: tuple[float, ...]
    mean: Grid
    low: Grid
    high: Grid
    upper: Grid
    frames: int
    blocks: int
    block: int
    distinct: bool


@dataclass(frozen=True)
class Wanted:
    """
    How many false obstacles are acceptable: `count` a `unit`, as in '1/hour' or '0.01/frame'.

    Raises ConfigError for a count that is not above 0 or an unknown unit.
    """

    count: float
    unit: str

    def __post_init__(self) -> None:
        known = {'frame', *SECONDS}
        if not 0 < self.count < math.inf or self.unit not in known:
            raise ConfigError(
                f'wanted {self.count:g}/{self.unit}: give a number above 0 and one of '
                f'{", ".join(sorted(known))}, such as 1/hour'
            )

    @classmethod
    def parse(cls, text: str) -> Wanted:
        """Read '1/hour'; ConfigError for anything else."""
        number, _, unit = text.partition('/')
        try:
            return cls(float(number), unit.strip().removesuffix('s'))
        except ValueError as error:
            raise ConfigError(
                f'wanted {text!r}: write a number and a unit, such as 1/hour, 2/minute, 0.01/frame'
            ) from error

    def per_frame(self, fps: float) -> float:
        """Return the false obstacles a frame that this means at `fps` frames a second."""
        return self.count / frames_per(self.unit, fps)


def frames_per(unit: str, fps: float) -> float:
    """Return how many frames a unit holds."""
    return 1.0 if unit == 'frame' else SECONDS[unit] * fps


@dataclass(frozen=True)
class Choice:
    """A pair of parameters with its observed rate and upper bound, both per frame."""

    rate: float
    area: float
    mean: float
    upper: float


def alarm_rates(
    counts: AlarmCounts, block: int, resamples: int = RESAMPLES, seed: int = 0
) -> AlarmRates:
    """Return rates and bounds; block: frames of a group that are one draw, >= 1 (ConfigError)."""
    if block < 1:
        raise ConfigError(f'block of {block} frames: give 1 or more')
    owners = _blocks(counts.groups, block)
    frames = np.bincount(owners).astype(np.float64)
    sums = np.zeros((len(frames), *counts.counts.shape[1:]))
    np.add.at(sums, owners, counts.counts)
    weights = resample_weights(len(frames), resamples, seed)
    drawn = np.tensordot(weights, sums, axes=1) / (weights @ frames)[:, None, None]
    low, high, one_sided = np.quantile(drawn, [0.025, 0.975, LEVEL], axis=0)
    number = len(counts.groups)
    upper = np.maximum(one_sided, _exact_bounds(sums, counts.distinct, block) / number)
    if not counts.distinct:
        upper = _inherited(upper, sums)
    return AlarmRates(
        counts.rates,
        counts.areas,
        sums.sum(axis=0) / number,
        low,
        high,
        upper,
        number,
        len(frames),
        block,
        counts.distinct,
    )


def _blocks(groups: tuple[str, ...], block: int) -> npt.NDArray[np.intp]:
    """Return the block of each frame, intp (n,): `block` frames of one group in their order."""
    numbers: dict[tuple[str, int], int] = {}
    seen: dict[str, int] = {}
    owners = []
    for group in groups:  # cameras may alternate
        place = seen.get(group, 0)
        seen[group] = place + 1
        owners.append(numbers.setdefault((group, place // block), len(numbers)))
    return np.array(owners, dtype=np.intp)


def _exact_bounds(sums: Grid, distinct: bool, block: int) -> Grid:
    """
    Return upper bounds on the expected number of false obstacles, (R, A).

    sums: (B, R, A) per block. Blocks with an alarm are counted as independent events, each worth
    what the alarmed blocks hold on average. Where none was alarmed, an event is worth one distinct
    obstacle, or one obstacle in each frame of its block.
    """
    alarmed = np.count_nonzero(sums, axis=0)
    worth = np.where(alarmed > 0, sums.sum(axis=0) / np.maximum(alarmed, 1), 1.0)
    if not distinct:
        worth = np.where(alarmed > 0, worth, float(block))
    table = {int(k): poisson_upper(int(k)) for k in np.unique(alarmed)}
    events: Grid = np.vectorize(table.__getitem__, otypes=[np.float64])(alarmed)
    return np.asarray(events * worth, dtype=np.float64)


def _inherited(upper: Grid, sums: Grid) -> Grid:
    """
    Return bounds (R, A) that are no worse than those of less strict pairs.

    Larger obstacles are some of the smaller ones, so what bounds these bounds those. A stricter
    mask lies inside the looser one, but its components may be more: one blob breaks into several.
    So only pairs at which nothing was seen take over the bound of the next larger rate.
    """
    upper = np.minimum.accumulate(upper, axis=1)
    nothing = np.count_nonzero(sums, axis=0) == 0
    for row in range(1, len(upper)):
        better = nothing[row] & (upper[row - 1] < upper[row])
        upper[row, better] = upper[row - 1, better]
    return upper


def poisson_upper(count: int, level: float = LEVEL) -> float:
    """Return the mean of a Poisson variable that is <= count with probability 1 - level."""
    stats = required('scipy.stats', f'these bounds need scipy: {install_command("train")}')
    return float(stats.chi2.ppf(level, 2 * (count + 1)) / 2)


def frontier(rates: AlarmRates, wanted: float) -> list[Choice]:
    """
    Return the pairs whose upper bound stays at or below `wanted` false obstacles a frame.

    For every rate the smallest minimum area from which on all larger areas and all stricter rates
    keep it, too: at loose rates blobs grow together, so few obstacles there need not be good. A
    pair that another one beats in both is left out. The largest rate comes first.
    """
    within = (rates.upper <= wanted)[::-1, ::-1]
    kept = np.logical_and.accumulate(np.logical_and.accumulate(within, axis=0), axis=1)
    kept = kept[::-1, ::-1]
    choices: list[Choice] = []
    for row, rate in enumerate(rates.rates):
        if not kept[row].any():
            continue
        column = int(np.argmax(kept[row]))
        area = rates.areas[column]
        if not choices or area < choices[-1].area:
            mean, upper = float(rates.mean[row, column]), float(rates.upper[row, column])
            choices.append(Choice(rate, area, mean, upper))
    return choices


def recommended(choices: list[Choice], patch_area: float) -> Choice | None:
    """
    Return the pair that costs least recall: the largest rate at a minimum area of one patch.

    Objects smaller than a patch are seldom found anyway, so an area up to patch_area (camera
    pixels) costs little; above it each step loses objects that are found. Where no pair is that
    small, the one with the smallest area.
    """
    small = [choice for choice in choices if choice.area <= patch_area]
    return small[0] if small else (choices[-1] if choices else None)


def frames_needed(wanted: float, block: int, distinct: bool) -> int:
    """Return how many clean frames without a false obstacle allow `wanted` a frame."""
    return math.ceil(poisson_upper(0) * (1 if distinct else block) / wanted)
