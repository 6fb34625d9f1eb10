# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The held-out table of a head with one score for all classes, kept in the calibrate folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..artefacts import REPORT_FILE, artefact, write_json, write_npz
from ..calibrate import FEWEST_PIXELS, collect_scores, fit_table
from ..head_module import HeadFacts, HeadModule
from .tables import MonotoneTable

if TYPE_CHECKING:
    from ..stages import Trainer

TABLE_FILE = 'table.npz'


def calibrate_one_score(
    trainer: Trainer, key: str, uncalibrated: Callable[[], HeadModule]
) -> MonotoneTable:
    """Fit (or find) the table of the one score on the pixels of all compiled classes together."""
    features, folder = trainer.calibration_features, trainer.folder / 'calibrate'

    def make(target: Path) -> None:
        head = uncalibrated()
        scores = collect_scores(head, features, trainer.class_names, progress=trainer.progress)
        save_table(target / TABLE_FILE, fit_table(scores.pooled))
        pixels = {name: sample.count for name, sample in scores.classes.items()}
        note = {'pictures': len(features.names), 'features': features.key, 'pixels': pixels}
        write_json(target / REPORT_FILE, note)

    artefact(folder, key, make)
    return load_table(folder / TABLE_FILE)


def calibration_note(trainer: Trainer) -> dict[str, Any]:
    """Return what calibrate_one_score recorded: pictures, features, pixels of every class."""
    path = trainer.folder / 'calibrate' / REPORT_FILE
    note: dict[str, Any] = json.loads(path.read_text())
    return note


def classes_seen(note: dict[str, Any]) -> Sequence[str]:
    """Return the classes with enough held-out pixels for a table of their own."""
    return [name for name, count in note['pixels'].items() if count >= FEWEST_PIXELS]


def one_score_facts(trainer: Trainer, places: Mapping[str, Path]) -> HeadFacts:
    """Return what a bundle says of its fit; places: part -> folder of its artefact."""
    note = calibration_note(trainer)
    reports = {
        part: json.loads((place / REPORT_FILE).read_text()) for part, place in places.items()
    }
    return HeadFacts(
        modelled=tuple(classes_seen(note)),
        calibration=note,
        provenance={
            part: {k: v for k, v in report.items() if k != 'history'}
            for part, report in reports.items()
        },
    )


def save_table(path: Path, table: MonotoneTable) -> None:
    """Write a table."""
    write_npz(path, {name: np.asarray(value) for name, value in asdict(table).items()})


def load_table(path: Path) -> MonotoneTable:
    """Read what save_table wrote."""
    with np.load(path, allow_pickle=False) as values:
        numbers = {name: values[name].item() for name in values.files if name != 'knots'}
        return MonotoneTable(knots=values['knots'], **numbers)
