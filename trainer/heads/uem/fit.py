# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""How UEM is fitted: bank of views, segmenter, mixes, module, calibration curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...artifacts import Artifact
from ...calibration.monotone_curve import CalibrationCurve
from ...features import FeatureSet, joined
from ...nets.segmenter import Segmenter
from ..on_segmenter import SegmenterFit
from .config import UemConfig
from .model import Uem, UemHead, load_uem, save_uem
from .training import Known, UemRun, known_scores

UEM_FILE = 'uem.safetensors'
KNOWN_FILE = 'known.npy'


class UemFit(SegmenterFit):
    """UEM from images and cut-outs to a calibrated head."""

    kind = 'uem'

    def _read(self) -> None:
        super()._read()
        self.uem: UemConfig = self.seeded('uem')

    def fit(self) -> Artifact:
        """Train (or load) segmenter and module."""
        segmenter, config = self.closed_set.load(), self.uem
        select = self.mixed('selection')
        on_the_fly = config.on_the_fly
        data = (self.fresh_mixes(), segmenter) if on_the_fly else self.training_set(segmenter)
        # what is served of a module does not change how it is trained
        trained = asdict(replace(config, score='llr'))

        def fill(target: Path, artifact: Artifact) -> Mapping[str, Any]:
            judged, layer = (select, self._known(segmenter, select)), self.closed_set.layers[-1]
            done = UemRun(data, judged, layer, config).fit(artifact)
            save_uem(target / UEM_FILE, done.model)
            return done.report()

        inputs = (data[0].key, select.key, self.closed_set.fitted.key, trained)
        return self.made('fit-uem', inputs, fill, together=True)

    def training_set(self, segmenter: Segmenter) -> tuple[FeatureSet, Known]:
        """Return mixes, views where they join them, and max_k F_k of all."""
        features = self.mixed('training')
        known = self._known(segmenter, features)
        if not self.uem.with_views:
            return features, known
        bank = self.closed_set.bank()
        return joined([features, bank]), np.concatenate([known, self._known(segmenter, bank)])

    def _known(self, segmenter: Segmenter, features: FeatureSet) -> Known:
        """Compute (or load) max_k F_k of every mix: one file a segmenter and set of mixes."""

        def fill(target: Path, _: Artifact) -> None:
            np.save(target / KNOWN_FILE, known_scores(segmenter, features))

        artifact = self.made('known', (self.closed_set.fitted.key, features.key), fill)
        return np.load(artifact.folder / KNOWN_FILE)

    def module(self) -> Uem:
        """Return the fitted module with the score that is served."""
        module = load_uem(self.fitted.folder / UEM_FILE)
        module.config = replace(module.config, score=self.uem.score)
        return module

    def build(self, curve: CalibrationCurve | None = None) -> UemHead:
        """Return the fitted head, see OneScoreFit."""
        return UemHead(self.closed_set.load(), self.module(), self.data.class_names, curve)

    def served_options(self) -> Sequence[Any]:
        """Return the score."""
        return (self.uem.score,)
