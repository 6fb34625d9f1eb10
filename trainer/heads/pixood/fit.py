# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""How PixOOD is fitted: patch classifier, etalons and densities, held-out tables."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ...artifacts import Artifact
from ...head_module import HeadFacts
from ...nets.patch_classifier import (
    ClassifierConfig,
    evaluate_classifier,
    load_classifier,
    save_classifier,
)
from ...nets.patches import PatchSettings
from ...training.patch_classifier import ClassifierRun
from ..base import HeadFit
from ..calibrated import without
from .config import CondensationSettings
from .model import PixOODHead
from .training import GATED, MIN, PixOODModel, calibrate_pixood, fit_pixood, load_model, save_model

LOG = logging.getLogger(__name__)
CLASSIFIER_FILE = 'classifier.safetensors'
ONE_CLASS = (
    'the class %s is the only one: its classifier has nothing to tell apart, and its logit is '
    'noise in the score; head.kind=baseline with head.score=distance uses the etalons alone'
)


class PixOODFit(HeadFit):
    """PixOOD from cached tokens to a calibrated head."""

    kind = 'pixood'

    def _read(self) -> None:
        self.classifier_config: ClassifierConfig = self.seeded('classifier')
        self.patches: PatchSettings = self.sections['patches']
        self.condensation: CondensationSettings = self.seeded('condensation')

    @cached_property
    def classifier(self) -> Artifact:
        """The patch classifier, trained or found."""
        data, config = self.data, self.classifier_config
        train, select = (data.train_features.subset(places) for places in data.split[:2])

        def fill(target: Path, artifact: Artifact) -> Mapping[str, Any]:
            layers = [f'tokens_{block}' for block in data.blocks]
            run = ClassifierRun(train, select, layers, len(data.class_names), config)
            done = run.fit(artifact)
            save_classifier(target / CLASSIFIER_FILE, done.model)
            return done.report()

        inputs = (train.key, select.key, data.class_names, asdict(config))
        return self.made('classifier', inputs, fill, together=True)

    @cached_property
    def quality(self) -> Artifact:
        """How good the classifier is on the held-out images (every second pixel)."""
        classifier, names = self.classifier, self.data.class_names
        features = self.data.calibration_features()

        def fill(target: Path, _: Artifact) -> Mapping[str, Any]:
            network = load_classifier(classifier.folder / CLASSIFIER_FILE)
            quality = evaluate_classifier(network, features, step=2)
            LOG.info(
                'classifier on held-out images: patch accuracy %.4f, mean IoU %.4f',
                quality.patch_accuracy,
                quality.mean_iou,
            )
            iou = dict(zip(names, quality.iou, strict=True))
            return {
                'patch_accuracy': quality.patch_accuracy,
                'mean_iou': quality.mean_iou,
                'iou': {name: None if np.isnan(value) else value for name, value in iou.items()},
            }

        return self.made('quality', (classifier.key, features.key), fill)

    def fit(self) -> Artifact:
        """Fit (or load) classifier, etalons, densities and the paper's tables."""
        classifier, data = self.classifier, self.data
        features = data.fitted_features
        config = {'patches': self.patches, 'condensation': self.condensation}

        def fill(target: Path, artifact: Artifact) -> None:
            network = load_classifier(classifier.folder / CLASSIFIER_FILE)
            model = fit_pixood(features, network, data.class_names, **config, artifact=artifact)
            save_model(model, target)

        settings = {name: asdict(section) for name, section in config.items()}
        inputs = (features.key, classifier.key, settings)
        return self.made('fit-pixood', inputs, fill, together=True)

    def calibrate(self) -> Artifact:
        """Fit (or load) the calibration curve of the head that is served."""
        fitted, features = self.fitted, self.calibration_features
        model = load_model(fitted.folder)
        if len(model.classes) == 1:
            LOG.warning(ONE_CLASS, model.classes[0])

        def fill(target: Path, _: Artifact) -> None:
            calibrated = calibrate_pixood(
                model,
                self.uncalibrated,
                features,
                selections=self._selections(),
            )
            save_model(calibrated, target)

        served = {k: v for k, v in asdict(self.config).items() if k not in ('kind', 'score')}
        inputs = (fitted.key, features.key, served)
        return self.made('calibrate-pixood', inputs, fill)

    def _selections(self) -> list[str]:
        """Return what is calibrated: the served selection, behind the tables that it gates by."""
        head = self.config
        gated = head.selection == GATED and head.gate == 'held-out'
        return [MIN, GATED] if gated else [head.selection]

    def uncalibrated(self, model: PixOODModel, selection: str) -> PixOODHead:
        """Return the head of a model as it will be served, with the tables that the model has."""
        head = self.config
        options = (head.upsampling, selection, head.calibration, head.classes, head.logits)
        return PixOODHead(model, *options, half_weights=head.half_weights, gate=head.gate)

    def head(self) -> PixOODHead:
        """Return the calibrated head."""
        return self.uncalibrated(load_model(self.calibrated.folder), self.config.selection)

    def facts(self) -> HeadFacts:
        """Return what the bundle says of the fit."""
        model = load_model(self.calibrated.folder)
        note: Mapping[str, Any] = model.report.get('calibration', {})
        return HeadFacts(
            modelled=tuple(model.etalons),
            calibration=dict(note),
            provenance={
                'classes': model.report.get('classes', {}),
                'classifier': without(self.quality.report(), 'iou'),
            },
        )
