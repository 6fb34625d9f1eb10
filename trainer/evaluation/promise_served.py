# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The promise of any head on pictures that nothing was fitted on, by the maps that it serves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ood_perception.calibration import HeldOutSample
from ood_perception.evaluation.reports import markdown_table, promise_record
from ood_perception.evaluation.results import write_json
from ood_perception.metrics.false_alarm_rate import PictureAlarms, PromiseRow, count_alarms

from ..datasets import load_pictures
from ..features import FeatureSet
from ..heads.base import HeadModule
from ..set_calibration import surprisal_maps
from ..stages import Trainer
from .promise_rows import NO_CLASS, rate_cell, readings_rows

SERVED, EVERY = 'served', 'every class'


def count_served(
    head: HeadModule,
    features: FeatureSet,
    in_distribution: Sequence[str],
    groups: Sequence[str],
    classes: Sequence[str],
    sample: HeldOutSample,
) -> dict[str, list[PictureAlarms]]:
    """
    Count flagged pixels per picture, as served for a set and as served for every class.

    head: calibrated. groups: one name a picture. classes: names by label id; pixels of classes
    that the head does not hold are left out. sample: for the tables of the two sets.
    """
    names = head.compiled_classes
    ids = np.full(256, NO_CLASS, np.uint8)
    ids[[classes.index(name) for name in names]] = np.arange(len(names))
    sets = {SERVED: tuple(in_distribution), EVERY: names}
    tables = {reading: sample.table(chosen) for reading, chosen in sets.items()}
    counts: dict[str, list[PictureAlarms]] = {reading: [] for reading in sets}
    maps = surprisal_maps(head, features, progress=True)
    for (own, labels), group in zip(maps, groups, strict=True):
        for reading, chosen in sets.items():
            held = [names.index(name) for name in chosen] if len(own) > 1 else [0]
            served = tables[reading](own[held].min(0))
            counts[reading].append(count_alarms(served, ids[labels], len(names), group=group))
    return counts


def served_table(rows: Mapping[str, Sequence[PromiseRow]], chosen: Sequence[str]) -> str:
    """Return one line per group, class and rate, in per cent; bold within a factor of two."""
    found = {(row.group, row.class_name, row.promised): row for row in rows[SERVED]}
    lines = []
    for row in rows[EVERY]:
        mine = found.get((row.group, row.class_name, row.promised))
        cells = [rate_cell(mine), rate_cell(row), f'{row.pixels:,}', str(row.pictures)]
        lines.append([row.group, row.class_name, f'{100 * row.promised:g}', *cells])
    header = ['sequence', 'true class', 'promised, %', f'served for {", ".join(chosen)}']
    return markdown_table([*header, 'served for every class', 'pixels', 'pictures'], lines)


def write_served(trainer: Trainer, split: str, report: Path | None, record: Path | None) -> None:
    """Hold a trained recipe's head to its promise on a split; print and write the table."""
    recipe, head = trainer.recipe, trainer.head()
    pictures = load_pictures(recipe.data.layout, recipe.data_root(), split)
    chosen = recipe.bundle.in_distribution or head.compiled_classes
    counts = count_served(
        *(head, trainer.features(split, trainer.stages.layers), chosen),
        *(pictures.sequences, trainer.class_names, trainer.held_out_sample()),
    )
    rows = readings_rows(counts, head.compiled_classes, chosen)
    table = served_table(rows, chosen)
    print(table)
    if report:
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(table, encoding='utf-8')
    if record:
        write_json(record, {reading: promise_record(list(r)) for reading, r in rows.items()})
