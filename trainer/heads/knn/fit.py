# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""How cDNP is fitted: PixOOD's patch classifier, references, normalisers, a calibration curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ood_perception.errors import ConfigError

from ...artifacts import Artifact
from ...backbones.base import Layer, layer_name
from ...calibration.monotone_curve import CalibrationCurve
from ...features import FeatureSet
from ...nets.patch_classifier import load_classifier
from ...nets.patches import gather_tokens, select_patches
from ..calibrated import OneScoreFit, without
from ..pixood.condensation import condense
from ..pixood.fit import CLASSIFIER_FILE, PixOODFit
from ..upsampling import PatchLogits
from .config import KnnConfig
from .model import KnnHead
from .references import Float16Array, fit_knn, load_knn, save_knn


class KnnFit(OneScoreFit):
    """cDNP from cached features to a calibrated head."""

    kind = 'knn'

    def _read(self) -> None:
        self.pixood = PixOODFit(self.data, self.sections, self.store, self.seed)
        self.knn: KnnConfig = self.seeded('knn')

    def check(self) -> None:
        """Refuse a coreset of standardised tokens: the search takes them as they are."""
        if self.knn.coreset == 'condensation' and self.pixood.condensation.standardise:
            raise ConfigError(
                'condensation.standardise is true, and knn.coreset is condensation: references '
                "are searched in the tokens' own units; set condensation.standardise=false"
            )

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The classifier's blocks and the layer that is searched."""
        blocks, feature = self.data.blocks, self.knn.feature
        named = [layer_name(block) for block in blocks]
        return blocks if feature in named else (*blocks, feature)

    @cached_property
    def _known(self) -> FeatureSet:
        """The images that are fitted on, with all layers."""
        features = self.data.features(self.data.config.train, self.layers)
        fitted, count = self.data.fitted_places, self.knn.images
        if 0 < count < len(fitted):
            drawn = np.random.default_rng(self.knn.seed).permutation(len(fitted))[:count]
            fitted = [fitted[place] for place in sorted(drawn)]
        return features.subset(fitted)

    def fit(self) -> Artifact:
        """Draw (or load) references and normalisers."""
        trained, head, features = self.pixood.classifier, self.config, self._known
        # what is served of a fit does not change it
        fitted = asdict(replace(self.knn, score='combined'))

        def fill(target: Path, artifact: Artifact) -> None:
            classifier = load_classifier(trained.folder / CLASSIFIER_FILE)
            model = fit_knn(
                features,
                classifier,
                self.data.class_names,
                self.knn,
                PatchLogits(classifier, head.logits, head.upsampling, head.half_weights),
                heads=self.data.backbone.heads,
                chosen=head.classes,
                coreset=self.coreset(features, artifact),
            )
            save_knn(model, target)

        inputs = [features.key, trained.key, fitted]
        inputs += [head.upsampling, head.classes, head.logits, head.half_weights]
        return self.made('fit-knn', [*inputs, self._coreset_settings()], fill)

    def _coreset_settings(self) -> list[object]:
        if self.knn.coreset == 'random':
            return []
        return [asdict(self.pixood.patches), asdict(self.pixood.condensation)]

    def coreset(self, features: FeatureSet, artifact: Artifact) -> Float16Array | None:
        """Return the etalons of the head's classes as references, None for drawn ones."""
        if self.knn.coreset == 'random':
            return None
        names = list(self.data.class_names)
        selection = select_patches(features, names, self.pixood.patches)
        condensed = condense(
            gather_tokens(features, self.knn.feature, selection),
            self.pixood.condensation,
            artifact,
        )
        banks = [condensed.etalons[names.index(name)] for name in self.config.classes or names]
        return np.concatenate(banks).astype(np.float16)

    def build(self, curve: CalibrationCurve | None = None) -> KnnHead:
        """Return the fitted head, see OneScoreFit."""
        head = self.config
        options = (head.classes, head.upsampling, self.knn.score, head.logits)
        return KnnHead(load_knn(self.fitted.folder), *options, head.half_weights, curve)

    def served_options(self) -> Sequence[Any]:
        """Return the score."""
        return (self.knn.score,)

    def provenance(self) -> dict[str, Any]:
        """Return what the manifest says of the fit."""
        return {
            'knn': load_knn(self.fitted.folder).report,
            'classifier': without(self.pixood.quality.report(), 'iou'),
        }
