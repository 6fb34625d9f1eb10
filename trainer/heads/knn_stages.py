# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""cDNP's stages: PixOOD's patch classifier, references and normalisers, a held-out table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path

import numpy as np

from ..artefacts import REPORT_FILE, artefact, digest, key_of
from ..classifier import Classifier
from ..condensation import condense
from ..features import FeatureSet
from ..head_module import HeadFacts
from ..layers import Layer, layer_name
from ..patches import gather_tokens, select_patches
from .base import HeadStages
from .knn import KnnHead, KnnModel
from .knn_fit import Float16Array, fit_knn, load_knn, save_knn
from .one_score import calibrate_one_score, calibration_note, classes_seen
from .patch_logits import PatchLogits
from .pixood_stages import PixOODStages
from .tables import MonotoneTable


class KnnStages(HeadStages):
    """cDNP from cached features to a calibrated head."""

    sections = ('classifier', 'patches', 'condensation', 'knn')

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The classifier's blocks and the layer that is searched."""
        blocks = self.trainer.recipe.backbone.layers
        feature = self.trainer.recipe.knn.feature
        named = [layer_name(block) for block in blocks]
        return blocks if feature in named else (*blocks, feature)

    def classifier(self) -> Classifier:
        """Train (or find) the patch classifier, as PixOOD does."""
        return PixOODStages(self.trainer).classifier()

    @cached_property
    def _known(self) -> FeatureSet:
        """The pictures that are fitted on, with all layers."""
        trainer = self.trainer
        train, select, _ = trainer.split
        features = trainer.features(trainer.recipe.data.train, self.layers)
        fitted, count = sorted([*train, *select]), trainer.recipe.knn.pictures
        if 0 < count < len(fitted):
            drawn = np.random.default_rng(trainer.recipe.knn.seed).permutation(len(fitted))[:count]
            fitted = [fitted[place] for place in sorted(drawn)]
        return features.subset(fitted)

    def fit(self) -> KnnModel:
        """Draw (or find) references and normalisers."""
        classifier, trainer = self.classifier(), self.trainer
        recipe, folder, features = trainer.recipe, trainer.folder / 'fit', self._known
        head, served = recipe.head, asdict(recipe.head)
        parts = [features.key, key_of(trainer.folder / 'classifier')]
        parts += [{**recipe.portable()['knn'], 'score': 'combined'}, self._coreset_settings()]
        parts += [served[name] for name in ('upsampling', 'classes', 'logits', 'half_weights')]

        def make(target: Path) -> None:
            model = fit_knn(
                *(features, classifier, trainer.class_names, recipe.knn),
                PatchLogits(classifier, head.logits, head.upsampling, head.half_weights),
                heads=trainer.backbone.architecture.heads,
                chosen=recipe.head.classes,
                coreset=self.coreset(features, recipe.head.classes),
                progress=trainer.progress,
            )
            save_knn(model, target)

        artefact(folder, digest(parts), make)
        return load_knn(folder)

    def _coreset_settings(self) -> list[object]:
        recipe = self.trainer.recipe
        if recipe.knn.coreset == 'random':
            return []
        return [asdict(recipe.patches), asdict(recipe.condensation)]

    def coreset(self, features: FeatureSet, classes: Sequence[str]) -> Float16Array | None:
        """Return the etalons of classes (() = all) as references, None for drawn ones."""
        trainer = self.trainer
        recipe = trainer.recipe
        if recipe.knn.coreset == 'random':
            return None
        names = list(trainer.class_names)
        selection = select_patches(features, names, recipe.patches)
        condensed = condense(
            gather_tokens(features, recipe.knn.feature, selection),
            recipe.condensation,
            checkpoint=trainer.folder / 'condensation.ckpt',
            key=features.key,
            progress=trainer.progress,
        )
        banks = [condensed.etalons[names.index(name)] for name in classes or names]
        return np.concatenate(banks).astype(np.float16)

    def _head(self, model: KnnModel, table: MonotoneTable | None = None) -> KnnHead:
        recipe = self.trainer.recipe
        head = recipe.head
        options = (head.classes, head.upsampling, recipe.knn.score, head.logits)
        return KnnHead(model, *options, head.half_weights, table)

    def calibrate(self) -> MonotoneTable:
        """Fit (or find) the held-out table of the one score, all classes together."""
        model, trainer = self.fit(), self.trainer
        parts = [key_of(trainer.folder / 'fit'), trainer.calibration_features.key]
        key = digest([*parts, trainer.recipe.knn.score])
        return calibrate_one_score(trainer, key, lambda: self._head(model))

    def head(self) -> KnnHead:
        """Return the calibrated head."""
        return self._head(self.fit(), self.calibrate())

    def facts(self) -> HeadFacts:
        """Return what the bundle says of the fit."""
        note = calibration_note(self.trainer)
        path = self.trainer.folder / 'classifier' / REPORT_FILE
        quality = json.loads(path.read_text())['val']
        return HeadFacts(
            modelled=tuple(classes_seen(note)),
            calibration=note,
            provenance={
                'knn': self.fit().report,
                'classifier': {k: v for k, v in quality.items() if k != 'iou'},
            },
        )
