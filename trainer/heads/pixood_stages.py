# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""PixOOD's own stages: patch classifier, etalons and densities, held-out tables."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ..artefacts import REPORT_FILE, artefact, digest, key_of, write_json
from ..classifier import Classifier, evaluate_classifier, load_classifier, save_classifier
from ..classifier_training import fit_classifier
from ..head_module import HeadFacts
from .base import HeadStages
from .pixood import GATED, MIN, PixOODModel, calibrate_pixood, fit_pixood
from .pixood_config import PixOODConfig
from .pixood_files import load_model, save_model
from .pixood_module import PixOODHead

LOG = logging.getLogger(__name__)
ONE_CLASS = (
    'the class %s is the only one: its classifier has nothing to tell apart, and its logit is '
    'noise in the score; head.kind=baseline with head.score=distance uses the etalons alone'
)


class PixOODStages(HeadStages):
    """PixOOD from cached tokens to a calibrated head."""

    sections = ('classifier', 'patches', 'condensation')

    def classifier(self) -> Classifier:
        """Train (or find) the patch classifier."""
        trainer, config = self.trainer, self.trainer.recipe.classifier
        features = trainer.train_features
        train, select = (features.subset(places) for places in trainer.split[:2])
        key = digest([train.key, select.key, trainer.class_names, asdict(config)])
        folder = trainer.folder / 'classifier'

        def make(target: Path) -> None:
            layers = [f'tokens_{layer}' for layer in trainer.recipe.backbone.layers]
            unfinished = trainer.folder / 'classifier.ckpt'
            training = fit_classifier(
                train, select, layers, trainer.class_names, config, checkpoint=unfinished
            )
            save_classifier(target / 'classifier.safetensors', training.classifier)
            report = {'best_epoch': training.best_epoch, 'history': training.history}
            report |= {'val': self._quality(training.classifier)}
            write_json(target / REPORT_FILE, report)

        artefact(folder, key, make)
        return load_classifier(folder / 'classifier.safetensors')

    def _quality(self, classifier: Classifier) -> dict[str, object]:
        """Return patch accuracy and IoU on the held-out pictures (every second pixel)."""
        quality = evaluate_classifier(classifier, self.trainer.calibration_features, step=2)
        iou = dict(zip(self.trainer.class_names, quality.iou, strict=True))
        LOG.info(
            'classifier on held-out pictures: patch accuracy %.4f, mean IoU %.4f',
            *(quality.patch_accuracy, quality.mean_iou),
        )
        return {
            'patch_accuracy': quality.patch_accuracy,
            'mean_iou': quality.mean_iou,
            'iou': {name: None if np.isnan(value) else value for name, value in iou.items()},
        }

    def fit(self) -> PixOODModel:
        """Fit (or find) classifier, etalons, densities and the paper's tables."""
        classifier, trainer = self.classifier(), self.trainer
        train, select, _ = trainer.split
        features = trainer.train_features.subset(sorted([*train, *select]))
        recipe, folder = trainer.recipe, trainer.folder / 'fit'
        parts = [features.key, key_of(trainer.folder / 'classifier')]
        key = digest([*parts, asdict(recipe.patches), asdict(recipe.condensation)])

        def make(target: Path) -> None:
            config = PixOODConfig(recipe.patches, recipe.condensation)
            unfinished = trainer.folder / 'condensation.ckpt'
            model = fit_pixood(
                *(features, classifier, trainer.class_names, config),
                checkpoint=unfinished,
                progress=trainer.progress,
            )
            save_model(model, target)

        artefact(folder, key, make)
        return load_model(folder)

    def calibrate(self) -> PixOODModel:
        """Fit (or find) the held-out table of the head that is served."""
        model, trainer = self.fit(), self.trainer
        if len(model.classes) == 1:
            LOG.warning(ONE_CLASS, model.classes[0])
        folder, features = trainer.folder / 'calibrate', trainer.calibration_features
        options = self._head_options()
        key = digest([key_of(trainer.folder / 'fit'), features.key, options])

        def make(target: Path) -> None:
            calibrated = calibrate_pixood(
                *(model, self._uncalibrated_head, features),
                selections=self._selections(),
                progress=trainer.progress,
            )
            save_model(calibrated, target)

        artefact(folder, key, make)
        return load_model(folder)

    def _selections(self) -> list[str]:
        """Return what is calibrated: the served selection, behind the tables that it gates by."""
        head = self.trainer.recipe.head
        gated = head.selection == GATED and head.gate == 'held-out'
        return [MIN, GATED] if gated else [head.selection]

    def _head_options(self) -> dict[str, Any]:
        options = asdict(self.trainer.recipe.head)
        del options['kind'], options['score']
        return options

    def _uncalibrated_head(self, model: PixOODModel, selection: str) -> PixOODHead:
        head = self.trainer.recipe.head
        options = (head.upsampling, selection, head.calibration, head.classes, head.logits)
        return PixOODHead(model, *options, half_weights=head.half_weights, gate=head.gate)

    def head(self) -> PixOODHead:
        """Return the calibrated head."""
        return self._uncalibrated_head(self.calibrate(), self.trainer.recipe.head.selection)

    def facts(self) -> HeadFacts:
        """Return what the bundle says of the fit."""
        model = self.calibrate()
        quality = json.loads((self.trainer.folder / 'classifier' / REPORT_FILE).read_text())['val']
        note: Mapping[str, Any] = model.report.get('calibration', {})
        return HeadFacts(
            modelled=tuple(model.etalons),
            calibration=dict(note),
            provenance={
                'classes': model.report.get('classes', {}),
                'classifier': {k: v for k, v in quality.items() if k != 'iou'},
            },
        )
