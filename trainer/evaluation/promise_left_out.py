# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Choose how held-out pictures calibrate without test pictures: each drive judged by the others.

For every sequence of the held-out pictures, the threshold of a promised rate is taken from the
other sequences by some rule, and the share of the left-out sequence's normal pixels above it is
what a new drive would see. The rule with the least mean |log2(observed / promised)| is the best.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ood_perception.evaluation.reports import markdown_table
from ood_perception.evaluation.results import write_json
from ood_perception.metrics.false_alarm_rate import RATES

from ..set_calibration import surprisal_maps
from ..spacing import spaced_places
from ..stages import Trainer

SPACING = 30
_LEAST_RATE = 1e-5
Values = Sequence[npt.NDArray[np.floating[Any]]]


@dataclass(frozen=True)
class Rule:
    """spacing: as data.calibration_spacing. alike: every sequence weighs the same."""

    name: str
    spacing: int = 0
    alike: bool = False


def rules(spacing: int) -> tuple[Rule, ...]:
    """Return the rules that are compared; spacing: in frames."""
    return (
        Rule('all pictures'),
        Rule(f'{spacing} frames apart', spacing),
        Rule('all pictures, drives alike', 0, True),
        Rule(f'{spacing} frames apart, drives alike', spacing, True),
    )


def left_out_rates(
    values: Values,
    names: Sequence[str],
    sequences: Sequence[str],
    rule: Rule,
    spacing: int = SPACING,
    rates: Sequence[float] = RATES,
) -> dict[str, list[float]]:
    """
    Return left-out sequence -> share of its pixels above the threshold of each rate.

    values: the scores of every picture's normal pixels, float (n,), higher = stranger. The
    left-out sequence is always observed at pictures that are `spacing` frames apart.
    """
    found = {}
    for sequence in dict.fromkeys(sequences):
        others = [i for i, s in enumerate(sequences) if s != sequence]
        mine = [i for i, s in enumerate(sequences) if s == sequence]
        chosen = _spaced(others, names, sequences, rule.spacing)
        seen = np.concatenate([values[i] for i in _spaced(mine, names, sequences, spacing)])
        limits = thresholds(values, chosen, sequences, rule.alike, rates)
        found[sequence] = [float(np.mean(seen >= limit)) for limit in limits]
    return found


def thresholds(
    values: Values,
    chosen: Sequence[int],
    sequences: Sequence[str],
    alike: bool,
    rates: Sequence[float],
) -> list[float]:
    """Return the score that a share `rate` of the chosen pictures' pixels reaches, per rate."""
    scores = np.concatenate([values[i] for i in chosen])
    owner = np.concatenate([np.full(len(values[i]), sequences[i]) for i in chosen])
    weights = np.ones(len(scores))
    if alike:
        for sequence in set(owner.tolist()):
            weights[owner == sequence] /= np.count_nonzero(owner == sequence)
    order = np.argsort(-scores, kind='stable')
    share = np.cumsum(weights[order]) / weights.sum()
    places = np.minimum(np.searchsorted(share, rates), len(scores) - 1)
    return [float(scores[order][place]) for place in places]


def distance(observed: Mapping[str, Sequence[float]], rates: Sequence[float] = RATES) -> float:
    """Return the mean |log2(observed / promised)|; 1 = a factor of two."""
    ratios = [np.maximum(shares, _LEAST_RATE) / np.asarray(rates) for shares in observed.values()]
    return float(np.mean(np.abs(np.log2(ratios))))


def _spaced(
    places: Sequence[int], names: Sequence[str], sequences: Sequence[str], spacing: int
) -> list[int]:
    kept = spaced_places([names[i] for i in places], [sequences[i] for i in places], spacing)
    return [places[i] for i in kept]


def write_left_out(trainer: Trainer, report: Path | None, record: Path | None) -> None:
    """Compare the rules on the held-out pictures of a trained recipe; print and write a table."""
    head, (features, sequences) = trainer.head(), trainer.held_out()
    chosen = trainer.recipe.bundle.in_distribution or head.compiled_classes
    ids = [trainer.class_names.index(name) for name in chosen]
    own = [head.compiled_classes.index(name) for name in chosen]
    values = []
    for maps, labels in surprisal_maps(head, features, trainer.progress):
        least = maps[own].min(0) if len(maps) > 1 else maps[0]
        values.append(least[np.isin(labels, ids)])
    spacing = trainer.recipe.data.calibration_spacing or SPACING
    lines, found = [], {}
    for rule in rules(spacing):
        observed = left_out_rates(values, features.names, sequences, rule, spacing)
        found[rule.name] = {'observed': observed, 'distance': distance(observed)}
        cells = [' / '.join(f'{100 * rate:.2f}' for rate in row) for row in observed.values()]
        lines.append([rule.name, *cells, f'{distance(observed):.2f}'])
    promised = ' / '.join(f'{100 * rate:g}' for rate in RATES)
    header = [f'calibrated with, promised {promised} %', *dict.fromkeys(sequences), 'distance']
    table = markdown_table(header, lines)
    print(table)
    if report:
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(table, encoding='utf-8')
    if record:
        write_json(record, found)
