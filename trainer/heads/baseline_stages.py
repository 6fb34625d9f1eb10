# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A baseline's stages: a closed-set network, what the score learns, a held-out table."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import cached_property
from typing import Any

import numpy as np
from torch import nn

from ood_perception.errors import ConfigError

from ..artefacts import REPORT_FILE, artefact, digest, key_of, write_npz
from ..features import FeatureSet
from ..head_module import HeadFacts
from .base import HeadStages
from .baseline_fit import fit_statistics, score_module
from .baselines import DISTANCE, SCORES, BaselineHead, EtalonDistance
from .one_score import calibrate_one_score, calibration_note, classes_seen
from .patch_logits import PatchLogits
from .pixood_module import PixOODHead
from .pixood_stages import PixOODStages
from .tables import MonotoneTable
from .uem_stages import UemStages

STATISTICS_FILE = 'statistics.npz'


class BaselineStages(HeadStages):
    """recipe.head.score over recipe.head.classes, of the network that recipe.baseline names."""

    sections = ('classifier', 'patches', 'condensation', 'views', 'segmenter', 'baseline')

    @property
    def _score(self) -> str:
        score = self.trainer.recipe.head.score
        if score not in SCORES:
            raise ConfigError(f'head score {score!r}: choose one of {", ".join(SCORES)}')
        if score == DISTANCE and self._decoder:
            raise ConfigError("head score 'distance' is PixOOD's: use baseline.source=classifier")
        return score

    @property
    def _decoder(self) -> bool:
        return self.trainer.recipe.baseline.source == 'segmenter'

    @property
    def _chosen(self) -> tuple[str, ...]:
        return self.trainer.recipe.head.classes or self.trainer.class_names

    @property
    def _network(self) -> str:
        return 'segmenter' if self._decoder else 'classifier'

    @cached_property
    def _logits(self) -> nn.Module:
        """The closed-set network as a module from tokens to logits on the output grid."""
        head = self.trainer.recipe.head
        if self._decoder:
            return UemStages(self.trainer).segmenter()
        classifier = PixOODStages(self.trainer).classifier()
        return PatchLogits(classifier, head.logits, head.upsampling, head.half_weights)

    def _features(self) -> FeatureSet:
        train, select, _ = self.trainer.split
        return self.trainer.train_features.subset(sorted([*train, *select]))

    def fit(self) -> dict[str, Any]:
        """Fit (or find) the network and what the score learns; the latter as arrays."""
        score, trainer = self._score, self.trainer
        recipe, folder, features = trainer.recipe, trainer.folder / 'statistics', self._features()
        if score == DISTANCE:
            PixOODStages(trainer).fit()
        logits = self._logits
        settings = [asdict(recipe.baseline), asdict(recipe.patches), asdict(recipe.head)]
        parts = [features.key, key_of(trainer.folder / self._network), *settings]

        def make(target: Any) -> None:
            arrays = fit_statistics(
                *(score, features, logits, trainer.class_names, self._chosen),
                *(recipe.baseline, recipe.patches, trainer.progress),
            )
            write_npz(target / STATISTICS_FILE, arrays)

        artefact(folder, digest(parts), make)
        with np.load(folder / STATISTICS_FILE, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}

    def _head(self, arrays: dict[str, Any], table: MonotoneTable | None = None) -> BaselineHead:
        trainer, score, logits = self.trainer, self._score, self._logits
        head, config = trainer.recipe.head, trainer.recipe.baseline
        factor = int(logits.upsampling) if self._decoder else head.upsampling  # type: ignore[arg-type]
        places = [trainer.class_names.index(name) for name in self._chosen]
        if score == DISTANCE:
            options = (factor, 'min', 'held-out', self._chosen, head.logits, head.half_weights)
            module: nn.Module = EtalonDistance(PixOODHead(PixOODStages(trainer).fit(), *options))
        else:
            module = score_module(score, arrays, places, config, factor, head.half_weights)
        return BaselineHead(score, logits, module, self._chosen, factor, self._decoder, table)

    def calibrate(self) -> MonotoneTable:
        """Fit (or find) the held-out table of the one score."""
        arrays, trainer = self.fit(), self.trainer
        parts = [key_of(trainer.folder / name) for name in ('statistics', 'fit')]
        key = digest([*parts, trainer.calibration_features.key])
        return calibrate_one_score(trainer, key, lambda: self._head(arrays))

    def head(self) -> BaselineHead:
        """Return the calibrated head."""
        return self._head(self.fit(), self.calibrate())

    def facts(self) -> HeadFacts:
        """Return what the bundle says of the fit."""
        note = calibration_note(self.trainer)
        report = json.loads((self.trainer.folder / self._network / REPORT_FILE).read_text())
        quality = report.get('val', {k: v for k, v in report.items() if k != 'history'})
        return HeadFacts(
            modelled=tuple(classes_seen(note)),
            calibration=note,
            provenance={self._network: {k: v for k, v in quality.items() if k != 'iou'}},
        )
