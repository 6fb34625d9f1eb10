# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A fusion's stages: every member's own, each in its folder, then tables of the combination."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ood_perception.errors import ConfigError

from ..artefacts import REPORT_FILE, adopt, artefact, digest, key_of, write_json
from ..calibrate import HeldOutScores, collect_scores, fit_class_tables
from ..config import Recipe
from ..head_module import HeadFacts
from ..layers import Layer
from .base import HeadStages
from .fusion import FusionHead
from .one_score import calibration_note, classes_seen, load_table, save_table
from .tables import MonotoneTable

if TYPE_CHECKING:
    from ..stages import Trainer

RATES = (0.01, 0.02, 0.05)
SHARED = ('finetune', 'classifier', 'segmenter')  # what members may have in common


def member_recipes(recipe: Recipe) -> dict[str, Recipe]:
    """Return the recipe of every member of a fusion by its kind; ConfigError where none is."""
    if not recipe.fusion.members:
        raise ConfigError('fusion.members is empty: name at least two kinds of heads')
    return {
        member.kind: replace(
            recipe,
            head=replace(recipe.head, kind=member.kind),
            backbone=replace(recipe.backbone, layers=member.layers or recipe.backbone.layers),
        )
        for member in recipe.fusion.members
    }


class FusionStages(HeadStages):
    """The members that recipe.fusion names, combined."""

    @classmethod
    def used_sections(cls, recipe: Recipe) -> tuple[str, ...]:
        """Return the members' sections and the fusion's own."""
        from . import head_stages

        kinds = [head_stages(member.kind) for member in recipe.fusion.members]
        sections = [name for kind in kinds for name in kind.used_sections(recipe)]
        return (*dict.fromkeys(sections), 'fusion')

    @cached_property
    def members(self) -> dict[str, Trainer]:
        """A trainer per member, by kind."""
        recipes, folder = member_recipes(self.trainer.recipe), self.trainer.folder / 'members'
        return {
            kind: replace(self.trainer, recipe=recipe, folder=folder / kind, bundle=None)
            for kind, recipe in recipes.items()
        }

    @property
    def layers(self) -> tuple[Layer, ...]:
        """All that any member reads."""
        members = self.members.values()
        return tuple(dict.fromkeys(layer for m in members for layer in m.stages.layers))

    def fit(self) -> None:
        """Fit and calibrate (or find) every member; what they share is made once."""
        done = [self.trainer.folder]
        for kind, member in self.members.items():
            for folder in done:
                for part in SHARED:
                    adopt(folder / part, member.folder / part)
            if kind == 'pixood':  # laid there by a table whose rows share it
                adopt(self.trainer.folder / 'fit', member.folder / 'fit')
            member.calibrate()
            done.append(member.folder)

    def _head(self, tables: list[MonotoneTable] | None = None) -> FusionHead:
        heads = [member.head() for member in self.members.values()]
        return FusionHead(heads, self.trainer.recipe.fusion.combine, tables)

    def calibrate(self) -> list[MonotoneTable]:
        """Fit (or find) the tables of the combination."""
        self.fit()
        trainer, features = self.trainer, self.trainer.calibration_features
        parts = [key_of(member.folder / 'calibrate') for member in self.members.values()]
        folder = trainer.folder / 'calibrate'

        def make(target: Path) -> None:
            head = self._head()
            scores = collect_scores(head, features, trainer.class_names, progress=trainer.progress)
            fitted = fit_class_tables(scores)
            per_class = head.selection == 'min'
            names = head.compiled_classes if per_class else ('',)
            for i, name in enumerate(names):
                table = fitted.tables[name] if per_class else fitted.pooled
                save_table(target / f'table_{i}.npz', table)
            note = {'pictures': len(features.names), 'features': features.key}
            note |= {'pixels': dict(fitted.pixels), 'tables': len(names)}
            write_json(target / REPORT_FILE, {**note, 'uncalibrated': uncalibrated_rates(scores)})

        artefact(folder, digest([*parts, features.key, trainer.recipe.fusion.combine]), make)
        count = json.loads((folder / REPORT_FILE).read_text())['tables']
        return [load_table(folder / f'table_{i}.npz') for i in range(count)]

    def head(self) -> FusionHead:
        """Return the calibrated head."""
        return self._head(self.calibrate())

    def facts(self) -> HeadFacts:
        """Return what the bundle says of the fit."""
        facts = {kind: member.stages.facts() for kind, member in self.members.items()}
        modelled = [one.modelled for one in facts.values()]
        common = [name for name in modelled[0] if all(name in names for names in modelled)]
        note = calibration_note(self.trainer)
        of_members = {kind: one.calibration for kind, one in facts.items()}
        return HeadFacts(
            modelled=tuple(name for name in common if name in classes_seen(note)),
            calibration={**note, 'members': of_members},
            provenance={'members': {kind: one.provenance for kind, one in facts.items()}},
        )


def uncalibrated_rates(scores: HeldOutScores) -> Mapping[str, Mapping[str, float]]:
    """
    Return what the combined score would flag without a table of its own, per true class.

    The share of held-out pixels (as e(x), see ScoreSample) at surprisal -log10(rate), by the rate
    in text; 'pooled' is all classes together.
    """
    samples = {**scores.classes, 'pooled': scores.pooled}
    return {
        name: {f'{rate:g}': _share(*sample.curve(), -float(np.log10(rate))) for rate in RATES}
        for name, sample in samples.items()
        if sample.count
    }


def _share(x: Any, e: Any, threshold: float) -> float:
    """Return e at the first score that reaches the threshold, 0 where none does."""
    place = int(np.searchsorted(x, threshold))
    return float(e[place]) if place < len(e) else 0.0
