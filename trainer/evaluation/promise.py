# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Hold every class's table to its promise on pictures that nothing was fitted or calibrated on.

Four readings of one pass over a split: each pixel judged by its own class's held-out table, by
its own class's Neyman-Pearson table of the paper, by the map that is served for the recipe's
in-distribution classes, and by the map that is served when every class counts as normal (least
surprisal over the set, then the table of the set).

A head with one score for all classes has one held-out table in the place of each class's own; a
gated head (the score of the most likely class) shows in the second column what its gate alone
would flag, without the final map's table. All this is of PixOOD; other kinds of heads show the two
served maps (promise_served.py).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ood_perception.calibration import HeldOutSample
from ood_perception.evaluation.reports import markdown_table, promise_record
from ood_perception.evaluation.results import write_json
from ood_perception.metrics.false_alarm_rate import (
    EVERY_GROUP,
    PictureAlarms,
    PromiseRow,
    count_alarms,
)

from ..calibrate import score_maps
from ..config import load_recipe
from ..datasets import load_pictures
from ..features import FeatureSet
from ..heads.pixood import GATED, MIN, UNIFIED, PixOODModel
from ..heads.pixood_files import load_model
from ..heads.pixood_module import PixOODHead
from ..heads.tables import MonotoneTable
from ..stages import Trainer
from .promise_rows import NO_CLASS, rate_cell, readings_rows
from .promise_served import write_served

READINGS = ('held-out', 'paper', 'served', 'every class')
COLUMNS = {
    MIN: ('own table', "own class's paper table"),
    GATED: ("the final map's table", 'the gate alone'),
    UNIFIED: ('the one table', "the paper's table"),
}
Maps = npt.NDArray[np.float32]


def count_readings(
    head: PixOODHead,
    model: PixOODModel,
    features: FeatureSet,
    in_distribution: Sequence[str],
    groups: Sequence[str],
    classes: Sequence[str],
    sample: HeldOutSample,
) -> dict[str, list[PictureAlarms]]:
    """
    Count flagged pixels per picture for every reading.

    head: of all classes with etalons. groups: one name a picture.
    classes: names by label id. Pixels of classes without etalons are left out.
    sample: held-out pixels, for the tables of the two sets.
    """
    names = head.compiled_classes
    counts: dict[str, list[PictureAlarms]] = {reading: [] for reading in READINGS}
    ids = np.full(256, NO_CLASS, np.uint8)
    ids[[classes.index(name) for name in names]] = np.arange(len(names))
    sets = {'served': tuple(in_distribution), 'every class': names}
    tables = {reading: sample.table(chosen) for reading, chosen in sets.items()}
    for (scores, labels), group in zip(
        score_maps(head, features, progress=True), groups, strict=True
    ):
        places = ids[labels]
        held_out, paper = _surprisal(head, model, scores)
        maps = {'held-out': _own(held_out, places), 'paper': _own(paper, places)}
        for reading, chosen in sets.items():
            own = [names.index(name) for name in chosen] if len(held_out) > 1 else [0]
            maps[reading] = tables[reading](held_out[own].min(0))
        for reading, surprisal in maps.items():
            counts[reading].append(count_alarms(surprisal, places, len(names), group=group))
    return counts


def _surprisal(head: PixOODHead, model: PixOODModel, scores: Maps) -> tuple[Maps, Maps]:
    """Return a head's raw scores (S, gh, gw) by its held-out and by the paper's tables."""
    names = head.compiled_classes if head.selection == MIN else (head.selection,)
    held_out = _apply(scores, [model.held_out_tables[name] for name in names])
    if head.selection == GATED:  # a gated score is a surprisal already
        return held_out, scores
    return held_out, _apply(scores, [model.paper_tables[name] for name in names])


def _apply(scores: Maps, tables: Sequence[MonotoneTable]) -> Maps:
    """Map raw scores (S, gh, gw) to surprisal, each by its own table."""
    pairs = zip(scores, tables, strict=True)
    return np.stack([table.surprisal(x) for x, table in pairs]).astype(np.float32)


def _own(surprisal: Maps, places: npt.NDArray[np.uint8]) -> Maps:
    """Pick for every pixel the surprisal of its own class, or the only one; 0 without a class."""
    known = places != NO_CLASS
    index = np.minimum(places, len(surprisal) - 1)[None].astype(np.int64)
    return np.where(known, np.take_along_axis(surprisal, index, 0)[0], 0)


def readings_table(
    rows: Mapping[str, Sequence[PromiseRow]], columns: tuple[str, str] = COLUMNS[MIN]
) -> str:
    """
    Return one line per group, class and rate, the readings side by side.

    columns: what the first two readings are called.
    """
    found = {
        reading: {(row.group, row.class_name, row.promised): row for row in members}
        for reading, members in rows.items()
    }
    lines = []
    for key, row in found['held-out'].items():
        cells = [rate_cell(found[reading].get(key)) for reading in READINGS]
        pixels = [f'{row.pixels:,}', str(row.pictures)]
        lines.append([row.group, row.class_name, f'{100 * row.promised:g}', *cells, *pixels])
    header = ['sequence', 'true class', 'promised, %', *columns]
    served = ['served for the default set', 'served for every class']
    return markdown_table([*header, *served, 'pixels', 'pictures'], lines)


def main(arguments: Sequence[str]) -> None:
    """Run `trainer promise`."""
    parser = argparse.ArgumentParser('trainer promise', description=__doc__)
    parser.add_argument('recipe', type=Path, help='YAML file that was trained')
    parser.add_argument('--out', type=Path, help='its artefacts (default: out/train/<name>)')
    parser.add_argument('--split', default='test', help='of the same data set')
    parser.add_argument('--cache', type=Path, help='weights and tokens (default: user cache)')
    parser.add_argument('--set', action='append', default=[], metavar='SECTION.KEY=VALUE')
    parser.add_argument('--report', type=Path, help='Markdown file to write')
    parser.add_argument('--json', type=Path, help='JSON file to write')
    parser.add_argument(
        '--left-out', action='store_true', help='no split: each held-out drive by the others'
    )
    options = parser.parse_args(arguments)
    recipe = load_recipe(options.recipe, options.set)
    folder = options.out or Path('out') / 'train' / recipe.name
    trainer = Trainer(recipe, folder, None, options.cache)
    if options.left_out:
        from .promise_left_out import write_left_out

        write_left_out(trainer, options.report, options.json)
        return
    if recipe.head.kind != 'pixood':
        write_served(trainer, options.split, options.report, options.json)
        return
    model = load_model(folder / 'calibrate')
    served = recipe.head
    head = PixOODHead(
        *(model, served.upsampling, served.selection),
        half_weights=served.half_weights,
        gate=served.gate,
    ).eval()
    pictures = load_pictures(recipe.data.layout, recipe.data_root(), options.split)
    chosen = recipe.bundle.in_distribution
    counts = count_readings(
        *(head, model, trainer.features(options.split), chosen),
        *(pictures.sequences, trainer.class_names, trainer.held_out_sample()),
    )
    rows = readings_rows(counts, head.compiled_classes, chosen)
    _write(rows, COLUMNS[served.selection], options.report, options.json)


def _write(
    rows: Mapping[str, Sequence[PromiseRow]],
    columns: tuple[str, str],
    report: Path | None,
    record: Path | None,
) -> None:
    table = readings_table(rows, columns)
    overall = sum(row.kept for row in rows['held-out'] if row.group == EVERY_GROUP)
    print(f'{table}\n{columns[0]} within a factor of two, all sequences: {overall} lines')
    if report:
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(table, encoding='utf-8')
    if record:
        write_json(record, {reading: promise_record(list(r)) for reading, r in rows.items()})
