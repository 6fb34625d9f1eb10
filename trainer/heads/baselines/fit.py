# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""How a baseline is fitted: a closed-set network, what the score learns, a calibration curve."""

from __future__ import annotations

from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ood_perception.errors import ConfigError

from ...artifacts import Artifact, write_npz
from ...calibration.monotone_curve import CalibrationCurve
from ...features import FeatureSet
from ...nets.patch_classifier import load_classifier
from ...nets.patches import gather_tokens, select_patches
from ..calibrated import OneScoreFit, without
from ..on_segmenter import ClosedSet
from ..pixood.fit import CLASSIFIER_FILE, PixOODFit
from ..pixood.model import PixOODHead
from ..pixood.training import MIN, load_model
from ..upsampling import PatchLogits
from .config import BaselineConfig
from .model import (
    DISTANCE,
    GMM,
    MAHALANOBIS,
    ODIN,
    SCORES,
    STANDARDISED,
    Arrays,
    BaselineHead,
    EtalonDistance,
    GmmDensity,
    LogitScore,
    Mahalanobis,
    ScaledSoftmax,
    StandardisedMaxLogit,
    read_layers,
)
from .training import Columns, fit_gmm, fit_mahalanobis, logit_statistics, source_weights

STATISTICS_FILE = 'statistics.npz'


class BaselineFit(OneScoreFit):
    """One score, over the classes that the section head names, of a closed-set network."""

    kind = 'baseline'

    def _read(self) -> None:
        self.baseline: BaselineConfig = self.seeded('baseline')
        self.decoder = self.baseline.source == 'segmenter'
        self.score = self.config.score
        if self.score not in SCORES:
            raise ConfigError(f'head score {self.score!r}: choose one of {", ".join(SCORES)}')
        if self.score == DISTANCE and self.decoder:
            raise ConfigError("head score 'distance' is PixOOD's: use baseline.source=classifier")
        self.pixood = PixOODFit(self.data, self.sections, self.store, self.seed)
        self.closed_set = ClosedSet(self)

    @property
    def chosen(self) -> tuple[str, ...]:
        """The classes whose score is taken."""
        return self.config.classes or self.data.class_names

    @cached_property
    def network(self) -> Artifact:
        """The closed-set network, trained or found."""
        return self.closed_set.fitted if self.decoder else self.pixood.classifier

    @cached_property
    def logits(self) -> nn.Module:
        """The network as a module from tokens to logits on the output grid."""
        if self.decoder:
            return self.closed_set.load()
        classifier, head = load_classifier(self.network.folder / CLASSIFIER_FILE), self.config
        return PatchLogits(classifier, head.logits, head.upsampling, head.half_weights)

    def fit(self) -> Artifact:
        """Fit (or load) the network and what the score learns."""
        data, head = self.data, self.config
        features = data.fitted_features
        etalons = self.pixood.fitted.key if self.score == DISTANCE else ''
        settings = [asdict(self.baseline), asdict(self.pixood.patches)]
        served = [self.score, self.chosen, head.upsampling, head.logits, head.half_weights]

        def fill(target: Path, _: Artifact) -> None:
            write_npz(target / STATISTICS_FILE, self._statistics(features))

        inputs = (features.key, self.network.key, etalons, data.class_names, *settings, *served)
        return self.made('fit-baseline', inputs, fill)

    def _statistics(self, features: FeatureSet) -> Arrays:
        """Fit what the score needs on training images; nothing for scores of the logits alone."""
        data, config, places = self.data, self.baseline, self._places
        if self.score == STANDARDISED:
            return logit_statistics(features, self.logits, places)
        if self.score not in (MAHALANOBIS, GMM):
            return {}
        selection = select_patches(features, data.class_names, self.pixood.patches)
        layers = [gather_tokens(features, layer, selection) for layer in self._read_layers]
        places = [place for place in places if len(layers[0][place])]
        groups = [Columns([tokens[place].tokens for tokens in layers]) for place in places]
        if self.score == GMM:
            return fit_gmm(groups, config)
        starts = [layers[0][place].starts for place in places if config.balance]
        weights = [source_weights(data.fitted_sources, one) for one in starts]
        return fit_mahalanobis(groups, config.shrinkage, weights, config.standardise)

    @property
    def _places(self) -> list[int]:
        """The label ids of the classes whose score is taken."""
        return [self.data.class_names.index(name) for name in self.chosen]

    @property
    def _read_layers(self) -> tuple[str, ...]:
        """The layers whose tokens the score reads."""
        return read_layers(self.logits.layers, self.baseline)  # type: ignore[arg-type]

    def build(self, curve: CalibrationCurve | None = None) -> BaselineHead:
        """Return the fitted head, see OneScoreFit."""
        factor = int(self.logits.upsampling) if self.decoder else self.config.upsampling  # type: ignore[arg-type]
        module, read = self._module(factor), self._read_layers
        return BaselineHead(
            self.score, self.logits, module, read, self.chosen, factor, self.decoder, curve
        )

    def _distance(self) -> nn.Module:
        """Return the module of PixOOD's distances alone."""
        model, head = load_model(self.pixood.fitted.folder), self.config
        options = (head.upsampling, MIN, 'held-out', self.chosen, head.logits, head.half_weights)
        return EtalonDistance(PixOODHead(model, *options))

    def _module(self, factor: int) -> nn.Module:
        """Return the module of the score with what it learned."""
        half, places = self.config.half_weights, self._places
        with np.load(self.fitted.folder / STATISTICS_FILE, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
        if self.score == DISTANCE:
            return self._distance()
        if self.score == STANDARDISED:
            mean, deviation = (torch.from_numpy(found[name]) for name in ('mean', 'deviation'))
            return StandardisedMaxLogit(mean, deviation, places)
        if self.score == ODIN:
            return ScaledSoftmax(self.baseline.temperature, places)
        if self.score == MAHALANOBIS:
            return Mahalanobis(found, factor, half, self.baseline.rank)
        if self.score == GMM:
            return GmmDensity(found, factor, half)
        return LogitScore(self.score, places)

    def provenance(self) -> dict[str, Any]:
        """Return what the manifest says of the fit."""
        if self.decoder:
            return {'segmenter': without(self.network.report(), 'history')}
        return {'classifier': without(self.pixood.quality.report(), 'iou')}
