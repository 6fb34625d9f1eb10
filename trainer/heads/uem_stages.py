# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""UEM's own stages: bank of views, segmenter, mixes, module, held-out table."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..artefacts import REPORT_FILE, artefact, digest, key_of, write_json
from ..features import FeatureSet, joined
from ..head_module import HeadFacts
from ..outlier_sources import OutlierConfig, whole_pictures
from ..segmenter import Segmenter
from ..uem_training import Known, OnlineOutliers, fit_uem, known_scores
from .one_score import calibrate_one_score, one_score_facts
from .segmenter_stages import SegmenterStages
from .tables import MonotoneTable
from .uem import Uem, UemHead, load_uem, save_uem

if TYPE_CHECKING:
    from ..stages import Trainer

UEM_FILE = 'uem.safetensors'
KNOWN_FILE = 'known.npy'


class UemStages(SegmenterStages):
    """UEM from pictures and cut-outs to a calibrated head."""

    sections = ('views', 'segmenter', 'outliers', 'mixes', 'uem', 'online')

    def __init__(
        self,
        trainer: Trainer,
        segmenter_folder: Path | None = None,
        seed: int | None = None,
        outliers: OutlierConfig | None = None,
    ) -> None:
        """
        Take what SegmenterStages takes.

        outliers: train on those of the recipe's mixes alone that hold no other object.
        """
        super().__init__(trainer, segmenter_folder, seed)
        self.outliers = outliers
        self.uem_config = replace(trainer.recipe.uem, seed=self.seed)

    def fit(self) -> Uem:
        """Train (or find) segmenter and module."""
        segmenter, trainer, config = self.segmenter(), self.trainer, self.uem_config
        select = self._mixes('selection')
        data = (
            OnlineOutliers(self._online_mixes(), segmenter)
            if config.online
            else self._training_set(segmenter)
        )
        train = data.features if isinstance(data, OnlineOutliers) else data[0]
        folder = trainer.folder / 'fit'
        parts = [train.key, select.key, key_of(self.segmenter_folder)]
        # what is served of a module does not change how it is trained
        trained = asdict(replace(config, score='llr'))

        def make(target: Path) -> None:
            training = fit_uem(
                *(data, (select, self._known(segmenter, select)), self._layers[-1], config),
                checkpoint=trainer.folder / 'uem.ckpt',
                progress=trainer.progress,
            )
            save_uem(target / UEM_FILE, training.module)
            report = {'best_step': training.best_step, 'history': training.history}
            write_json(target / REPORT_FILE, report)

        artefact(folder, digest([*parts, trained]), make)
        module = load_uem(folder / UEM_FILE)
        module.config = replace(module.config, score=config.score)
        return module

    def _training_set(self, segmenter: Segmenter) -> tuple[FeatureSet, Known]:
        """Return mixes with allowed objects, views where they join them, and max_k F_k of all."""
        features = self._mixes('training')
        known = self._known(segmenter, features)
        if self.outliers is not None:
            drawn = self._drawn_mixes('training')
            allowed = whole_pictures(self._cutouts('training'), self.outliers) | {''}
            places = [i for i in range(len(drawn)) if drawn.source(i) in allowed]
            features, known = features.subset(places), known[places]
        if not self.uem_config.with_views:
            return features, known
        bank = self._bank()
        return joined([features, bank]), np.concatenate([known, self._known(segmenter, bank)])

    def _known(self, segmenter: Segmenter, features: FeatureSet) -> Known:
        """Compute (or find) max_k F_k of every mix: one file a segmenter and set of mixes."""
        place = self.segmenter_folder.with_name(f'{self.segmenter_folder.name}-known')
        folder = place / features.key[:16]

        def make(target: Path) -> None:
            np.save(target / KNOWN_FILE, known_scores(segmenter, features, self.trainer.progress))

        artefact(folder, digest([key_of(self.segmenter_folder), features.key]), make)
        known: Known = np.load(folder / KNOWN_FILE)
        return known

    def calibrate(self) -> MonotoneTable:
        """Fit (or find) the held-out table of the one score, all classes together."""
        module, trainer = self.fit(), self.trainer
        parts = [key_of(trainer.folder / 'fit'), trainer.calibration_features.key]
        return calibrate_one_score(
            trainer,
            digest([*parts, module.config.score]),
            lambda: UemHead(self.segmenter(), module, trainer.class_names),
        )

    def head(self) -> UemHead:
        """Return the calibrated head."""
        table = self.calibrate()
        return UemHead(self.segmenter(), self.fit(), self.trainer.class_names, table)

    def facts(self) -> HeadFacts:
        """Return what the bundle says of the fit."""
        places = {'segmenter': self.segmenter_folder, 'uem': self.trainer.folder / 'fit'}
        return one_score_facts(self.trainer, places)
