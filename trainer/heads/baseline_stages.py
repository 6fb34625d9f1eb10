# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A baseline's stages: PixOOD's classifier and etalons, then a held-out table of one score."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..artefacts import artefact, key_of
from ..calibrate import collect_scores, fit_table
from ..config import digest
from .baselines import BaselineHead
from .pixood import UNIFIED, PixOODModel
from .pixood_files import load_model, save_model
from .pixood_module import PixOODHead
from .pixood_stages import PixOODStages


class BaselineStages(PixOODStages):
    """One score of a PixOOD model: recipe.head.score over recipe.head.classes."""

    def calibrate(self) -> PixOODModel:
        """Fit (or find) the table of the one score; it is kept under 'unified'."""
        model, trainer = self.fit(), self.trainer
        folder, features = trainer.folder / 'calibrate', trainer.calibration_features
        options = {**self._head_options(), 'score': trainer.recipe.head.score}
        key = digest([key_of(trainer.folder / 'fit'), features.key, options])

        def make(target: Path) -> None:
            head = self._baseline(model)
            scores = collect_scores(head, features, model.classes, progress=trainer.progress)
            pixels = {name: sample.count for name, sample in scores.classes.items()}
            note = {head.name: {'pictures': len(features.names), 'pixels': pixels}}
            tables = {UNIFIED: fit_table(scores.pooled)}
            report = {**model.report, 'calibration': note}
            save_model(replace(model, held_out_tables=tables, report=report), target)

        artefact(folder, key, make)
        return load_model(folder)

    def _baseline(self, model: PixOODModel) -> BaselineHead:
        recipe = self.trainer.recipe.head
        options = (recipe.upsampling, 'min', 'held-out', recipe.classes, recipe.logits)
        source = PixOODHead(model, *options, half_weights=recipe.half_weights)
        return BaselineHead(source, recipe.score, model.held_out_tables.get(UNIFIED))

    def head(self) -> BaselineHead:  # type: ignore[override]
        """Return the calibrated head."""
        return self._baseline(self.calibrate())
