# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""UEM's own stages: bank of views, segmenter, mixes, module, held-out table."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..artefacts import REPORT_FILE, artefact, key_of, write_json
from ..calibrate import FEWEST_PIXELS, HeldOutScores, collect_scores, fit_table
from ..config import digest
from ..data import PictureList
from ..features import FeatureSet, View, extract, joined
from ..mixes import draw_mixes, grouped
from ..online import OnlineFeatures, OnlineMix
from ..outlier_sources import load_outliers
from ..outliers import Cutout
from ..segmenter import Segmenter, load_segmenter, save_segmenter
from ..segmenter_training import fit_segmenter
from ..uem_training import Known, OnlineOutliers, fit_uem, known_scores
from ..views import draw_views
from .base import HeadFacts, HeadStages
from .tables import MonotoneTable
from .uem import Uem, UemHead, load_uem, save_uem

if TYPE_CHECKING:
    from ..stages import Trainer

SEGMENTER_FILE, UEM_FILE, TABLE_FILE = 'segmenter.safetensors', 'uem.safetensors', 'table.npz'
KNOWN_FILE = 'known.npy'


class UemStages(HeadStages):
    """UEM from pictures and cut-outs to a calibrated head."""

    sections = ('views', 'segmenter', 'outliers', 'mixes', 'uem', 'online')

    def __init__(
        self, trainer: Trainer, segmenter_folder: Path | None = None, seed: int | None = None
    ) -> None:
        """
        Take a trainer.

        segmenter_folder: shared with other modules (default: the trainer's own).
        seed: of both trainings; views and mixes keep the recipe's, so that their tokens do.
        """
        super().__init__(trainer)
        self.segmenter_folder = segmenter_folder or trainer.folder / 'segmenter'
        recipe = trainer.recipe
        self.seed = recipe.seed if seed is None else seed
        self.segmenter_config = replace(recipe.segmenter, seed=self.seed)
        self.uem_config = replace(recipe.uem, seed=self.seed)

    @property
    def _layers(self) -> list[str]:
        return [f'tokens_{layer}' for layer in sorted(self.trainer.recipe.backbone.layers)]

    @property
    def _view(self) -> View:
        view = self.trainer.recipe.view
        return View((view.height, view.width), view.policy, view.anchors, view.precision)

    def _features(self, pictures: PictureList) -> FeatureSet:
        """Extract (or find) the tokens of a list of pictures."""
        trainer = self.trainer
        layers, folder = trainer.recipe.backbone.layers, trainer.features_folder
        bar = trainer.progress
        return extract(pictures, trainer.backbone, layers, self._view, folder, progress=bar)

    def _online(self, pictures: PictureList, mix: OnlineMix | None = None) -> OnlineFeatures:
        """Return fresh views of pictures; mix: with objects pasted in."""
        trainer, recipe = self.trainer, self.trainer.recipe
        layers = tuple(sorted(recipe.backbone.layers))
        return OnlineFeatures(
            *(pictures, trainer.backbone, layers, self._view, recipe.views, recipe.online, mix)
        )

    def segmenter(self) -> Segmenter:
        """Train (or find) the closed-set segmenter on the bank of views, or on fresh ones."""
        trainer, config = self.trainer, self.segmenter_config
        train, select, _ = trainer.split
        features: FeatureSet | OnlineFeatures
        if config.online:
            features = self._online(trainer.train_pictures.subset(train))
            chosen = self._features(trainer.train_pictures.subset(select))
        else:
            features, chosen = self._bank(), trainer.train_features.subset(select)
        key = digest([features.key, chosen.key, self._layers, asdict(config)])
        folder = self.segmenter_folder

        def make(target: Path) -> None:
            training = fit_segmenter(
                *(features, chosen, self._layers, len(trainer.class_names), config),
                checkpoint=folder.with_suffix('.ckpt'),
                progress=trainer.progress,
            )
            save_segmenter(target / SEGMENTER_FILE, training.segmenter)
            best = max(look[2] for look in training.history)
            report = {'best_step': training.best_step, 'history': training.history}
            report |= {'selection_mean_iou': best}
            write_json(target / REPORT_FILE, report)

        artefact(folder, key, make)
        return load_segmenter(folder / SEGMENTER_FILE)

    def _bank(self) -> FeatureSet:
        """Return the tokens of the training pictures and of the further views of each."""
        trainer = self.trainer
        train = trainer.split[0]
        pictures = trainer.train_features.subset(train)
        drawn = draw_views(trainer.train_pictures.subset(train), trainer.recipe.views, first=1)
        return joined([pictures, self._features(drawn)]) if len(drawn) else pictures

    def fit(self) -> Uem:
        """Train (or find) segmenter and module."""
        segmenter, trainer, config = self.segmenter(), self.trainer, self.uem_config
        train = self._online_mixes() if config.online else self._mixes('training')
        select = self._mixes('selection')
        folder = trainer.folder / 'fit'
        parts = [train.key, select.key, key_of(self.segmenter_folder)]
        # what is served of a module does not change how it is trained
        trained = asdict(replace(config, score='llr'))

        def make(target: Path) -> None:
            data = (
                OnlineOutliers(train, segmenter)
                if isinstance(train, OnlineFeatures)
                else (train, self._known(segmenter, train))
            )
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

    def _known(self, segmenter: Segmenter, features: FeatureSet) -> Known:
        """Compute (or find) max_k F_k of every mix: one file a segmenter and set of mixes."""
        place = self.segmenter_folder.with_name(f'{self.segmenter_folder.name}-known')
        folder = place / features.key[:16]

        def make(target: Path) -> None:
            np.save(target / KNOWN_FILE, known_scores(segmenter, features, self.trainer.progress))

        artefact(folder, digest([key_of(self.segmenter_folder), features.key]), make)
        known: Known = np.load(folder / KNOWN_FILE)
        return known

    def _mixes(self, part: str) -> FeatureSet:
        """Return the tokens of the mixes that are trained on, or that choose the checkpoint."""
        trainer, recipe = self.trainer, self.trainer.recipe
        train, select, _ = trainer.split
        pictures = trainer.train_pictures.subset(train if part == 'training' else select)
        mixes, view = recipe.mixes, recipe.views
        if part == 'selection':  # whole pictures, each with objects
            mixes = replace(mixes, count=len(select), probability=1.0)
            view = replace(view, scale=(1.0, 1.0), flip=0.0, seed=view.seed + 1)
        objects, place = self._cutouts(part), self._view
        drawn = draw_mixes(pictures, objects, mixes, view, place.size, place.policy)
        return self._features(drawn)

    def _online_mixes(self) -> OnlineFeatures:
        pictures = self.trainer.train_pictures.subset(self.trainer.split[0])
        objects = grouped(self._cutouts('training'))
        return self._online(pictures, OnlineMix(objects, self.trainer.recipe.mixes))

    def _cutouts(self, part: str) -> list[Cutout]:
        recipe = self.trainer.recipe
        return load_outliers(recipe.outliers, part, recipe.data_root())

    @cached_property
    def _folder(self) -> Path:
        return self.trainer.folder / 'calibrate'

    def calibrate(self) -> MonotoneTable:
        """Fit (or find) the held-out table of the one score, all classes together."""
        module, trainer = self.fit(), self.trainer
        features = trainer.calibration_features
        parts = [key_of(trainer.folder / 'fit'), features.key, module.config.score]

        def make(target: Path) -> None:
            head = UemHead(self.segmenter(), module, trainer.class_names)
            scores = collect_scores(head, features, trainer.class_names, progress=trainer.progress)
            table = fit_table(scores.pooled)
            np.savez(target / TABLE_FILE, **asdict(table))
            write_json(target / REPORT_FILE, _note(features, scores))

        artefact(self._folder, digest(parts), make)
        with np.load(self._folder / TABLE_FILE, allow_pickle=False) as values:
            numbers = [float(values[name]) for name in ('low_slope', 'high_slope')]
            start, step = float(values['start']), float(values['step'])
            return MonotoneTable(start, step, values['knots'], *numbers)

    def head(self) -> UemHead:
        """Return the calibrated head."""
        table = self.calibrate()
        return UemHead(self.segmenter(), self.fit(), self.trainer.class_names, table)

    def facts(self) -> HeadFacts:
        """Return what the bundle says of the fit."""
        note = json.loads((self._folder / REPORT_FILE).read_text())
        folder = self.trainer.folder
        reports = {
            part: json.loads((place / REPORT_FILE).read_text())
            for part, place in (('segmenter', self.segmenter_folder), ('fit', folder / 'fit'))
        }
        seen = [name for name, count in note['pixels'].items() if count >= FEWEST_PIXELS]
        return HeadFacts(
            modelled=tuple(seen),
            calibration=note,
            provenance={
                'segmenter': {k: v for k, v in reports['segmenter'].items() if k != 'history'},
                'uem': {k: v for k, v in reports['fit'].items() if k != 'history'},
            },
        )


def _note(features: FeatureSet, scores: HeldOutScores) -> dict[str, Any]:
    return {
        'pictures': len(features.names),
        'features': features.key,
        'pixels': {name: sample.count for name, sample in scores.classes.items()},
    }
