# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Heads with one score for all classes: fitted in their own ways, calibrated alike."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ood_perception.json_files import write_json

from ..artifacts import REPORT_FILE, Artifact, write_npz
from ..calibration.curve import MonotoneTable
from ..calibration.held_out import FEWEST_PIXELS, collect_scores, fit_table
from ..head_module import HeadFacts, HeadModule
from .base import HeadFit

TABLE_FILE = 'table.npz'


class OneScoreFit(HeadFit):
    """A head whose one score has one table, of the pixels of all compiled classes together."""

    @abstractmethod
    def build(self, table: MonotoneTable | None = None) -> HeadModule:
        """Return the fitted head; table: None before calibration."""

    def served_options(self) -> Sequence[Any]:
        """Return the options that change what is served of a fit, and not the fit: JSON values."""
        return ()

    @abstractmethod
    def provenance(self) -> dict[str, Any]:
        """Return what the manifest says of the fit."""

    def calibrate(self) -> Artifact:
        """Fit (or find) the table of the one score."""
        fitted, names, bar = self.fitted, self.data.class_names, self.data.progress
        features = self.calibration_features
        inputs = (fitted.key, features.key, names, *self.served_options())
        artifact = self.artifact(f'calibrate-{self.kind}', *inputs)

        def fill(target: Path) -> None:
            scores = collect_scores(self.build(), features, names, progress=bar)
            save_table(target / TABLE_FILE, fit_table(scores.pooled))
            pixels = {name: sample.count for name, sample in scores.classes.items()}
            note = {'pictures': len(features.names), 'features': features.key, 'pixels': pixels}
            write_json(target / REPORT_FILE, note)

        return artifact.make(fill)

    def head(self) -> HeadModule:
        """Return the calibrated head."""
        return self.build(load_table(self.calibrated.folder / TABLE_FILE))

    def facts(self) -> HeadFacts:
        """Return what the bundle says of the fit."""
        note = self.calibrated.report()
        return HeadFacts(tuple(classes_seen(note)), note, self.provenance())


def classes_seen(note: Mapping[str, Any]) -> Sequence[str]:
    """Return the classes with enough held-out pixels for a table of their own."""
    return [name for name, count in note['pixels'].items() if count >= FEWEST_PIXELS]


def without(report: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a report but for one entry that is too long for a manifest."""
    return {key: value for key, value in report.items() if key != name}


def save_table(path: Path, table: MonotoneTable) -> None:
    """Write a table."""
    write_npz(path, {name: np.asarray(value) for name, value in asdict(table).items()})


def load_table(path: Path) -> MonotoneTable:
    """Read what save_table wrote."""
    with np.load(path, allow_pickle=False) as values:
        numbers = {name: values[name].item() for name in values.files if name != 'knots'}
        return MonotoneTable(knots=values['knots'], **numbers)
