# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""RPL's own stages: segmenter, mixes and everyday pictures, block, held-out table."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from ood_perception.errors import ConfigError

from ..artefacts import REPORT_FILE, artefact, digest, key_of, write_json
from ..context_pictures import load_context
from ..features import FeatureSet
from ..head_module import HeadFacts
from ..online import OnlineFeatures
from ..rpl_training import Frozen, fit_rpl, frozen_features
from .one_score import calibrate_one_score, one_score_facts
from .rpl import RplHead
from .rpl_block import ResidualBlock, load_block, save_block
from .segmenter_stages import SegmenterStages
from .tables import MonotoneTable

if TYPE_CHECKING:
    from ..stages import Trainer

BLOCK_FILE, FEATURE_FILE = 'rpl.safetensors', 'feature.npy'


class RplStages(SegmenterStages):
    """RPL from pictures, cut-outs and everyday pictures to a calibrated head."""

    sections = ('views', 'segmenter', 'outliers', 'mixes', 'rpl', 'online')

    def __init__(
        self, trainer: Trainer, segmenter_folder: Path | None = None, seed: int | None = None
    ) -> None:
        """Take what SegmenterStages takes."""
        super().__init__(trainer, segmenter_folder, seed)
        self.config = replace(trainer.recipe.rpl, seed=self.seed)

    def host(self) -> nn.Module:
        """Train (or find) the frozen network that the block sits on."""
        return self.segmenter()

    def fit(self) -> ResidualBlock:
        """Train (or find) host and block."""
        host, trainer, config = self.host(), self.trainer, self.config
        train = self._online_mixes() if config.online else self._mixes('training')
        select, context = self._mixes('selection'), self._everyday()
        folder = trainer.folder / 'fit'
        keys = [train.key, select.key, context.key if context is not None else '']

        def make(target: Path) -> None:
            training = fit_rpl(
                *(host, (train, context), select, config),
                checkpoint=trainer.folder / 'rpl.ckpt',
                progress=trainer.progress,
                block=self._start(),
                frozen=None if config.online else (self._frozen(train), self._frozen(select)),
            )
            save_block(target / BLOCK_FILE, training.block)
            report = {'best_step': training.best_step, 'history': training.history}
            write_json(target / REPORT_FILE, report)

        artefact(folder, digest([*keys, key_of(self.segmenter_folder), asdict(config)]), make)
        return load_block(folder / BLOCK_FILE)

    def _frozen(self, features: FeatureSet) -> Frozen:
        """Compute (or find) the host's feature of every mix: one file a host and set of mixes."""
        place = self.segmenter_folder.with_name(f'{self.segmenter_folder.name}-features')
        folder = place / features.key[:16]
        host, bar = self.host(), self.trainer.progress
        key = digest([key_of(self.segmenter_folder), features.key])
        artefact(folder, key, lambda at: frozen_features(host, features, at / FEATURE_FILE, bar))
        kept: Frozen = np.load(folder / FEATURE_FILE, mmap_mode='r')
        return kept

    def _start(self) -> ResidualBlock | None:
        """Return the block to start from; None = a new one, for a host without an ASPP."""
        return None

    def _everyday(self) -> FeatureSet | OnlineFeatures | None:
        """Return whole everyday pictures, those that the training's objects come from."""
        recipe, config = self.trainer.recipe, self.config
        if not (config.contrast and config.context):
            return None
        if recipe.outliers.source != 'coco':
            raise ConfigError(
                f'rpl.context shows whole everyday pictures, which outliers.source '
                f'{recipe.outliers.source!r} has not: set rpl.context to false, or use coco'
            )
        folder = recipe.outliers.folder_at(recipe.data_root())
        classes = self.trainer.train_pictures.classes
        pictures = load_context(folder, 'training', classes, recipe.outliers.exclude)
        return self._online(pictures) if config.online else self._features(pictures)

    def _head(self, table: MonotoneTable | None = None) -> RplHead:
        return RplHead(self.host(), self.fit(), self.trainer.class_names, table)

    def calibrate(self) -> MonotoneTable:
        """Fit (or find) the held-out table of the one score, all classes together."""
        self.fit()
        trainer = self.trainer
        key = digest([key_of(trainer.folder / 'fit'), trainer.calibration_features.key])
        return calibrate_one_score(trainer, key, self._head)

    def head(self) -> RplHead:
        """Return the calibrated head."""
        return self._head(self.calibrate())

    def facts(self) -> HeadFacts:
        """Return what the bundle says of the fit."""
        places = {'segmenter': self.segmenter_folder, 'rpl': self.trainer.folder / 'fit'}
        return one_score_facts(self.trainer, places)
