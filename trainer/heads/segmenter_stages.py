# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What the stages of heads on the closed-set segmenter share: views, segmenter, mixes."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..artefacts import REPORT_FILE, artefact, write_json
from ..config import digest
from ..data import PictureList
from ..features import FeatureSet, View, extract, joined
from ..mixes import MixedPictures, draw_mixes, grouped
from ..online import OnlineFeatures, OnlineMix
from ..outlier_sources import check_outliers, load_outliers
from ..outliers import Cutout
from ..segmenter import Segmenter, load_segmenter, save_segmenter
from ..segmenter_training import fit_segmenter
from ..views import draw_views
from .base import HeadStages

if TYPE_CHECKING:
    from ..stages import Trainer

SEGMENTER_FILE = 'segmenter.safetensors'


class SegmenterStages(HeadStages):
    """A head on the segmenter: bank of views, segmenter, mixes to train with and to choose by."""

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

    def check(self) -> None:
        """Check the files of objects; see HeadStages.check."""
        check_outliers(self.trainer.recipe.outliers, self.trainer.recipe.data_root())

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
        features: FeatureSet | OnlineFeatures
        if config.online:
            features = self._online(trainer.train_pictures.subset(trainer.split[0]))
        else:
            features = self._bank()
        chosen = self._chosen()
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

    def _chosen(self) -> FeatureSet:
        """Return the tokens of the pictures that choose the segmenter's state."""
        trainer, select = self.trainer, self.trainer.split[1]
        if self.segmenter_config.online:  # the tokens of all training pictures are never needed
            return self._features(trainer.train_pictures.subset(select))
        return trainer.train_features.subset(select)

    def _bank(self) -> FeatureSet:
        """Return the tokens of the training pictures and of the further views of each."""
        trainer = self.trainer
        train = trainer.split[0]
        pictures = trainer.train_features.subset(train)
        drawn = draw_views(trainer.train_pictures.subset(train), trainer.recipe.views, first=1)
        return joined([pictures, self._features(drawn)]) if len(drawn) else pictures

    def _mixes(self, part: str) -> FeatureSet:
        """Return the tokens of the mixes that are trained on, or that choose the checkpoint."""
        return self._features(self._drawn_mixes(part))

    def _drawn_mixes(self, part: str) -> MixedPictures:
        """Return the mixes themselves."""
        trainer, recipe = self.trainer, self.trainer.recipe
        train, select, _ = trainer.split
        pictures = trainer.train_pictures.subset(train if part == 'training' else select)
        mixes, view = recipe.mixes, recipe.views
        if part == 'selection':  # whole pictures, each with objects
            mixes = replace(mixes, count=len(select), probability=1.0)
            view = replace(view, scale=(1.0, 1.0), flip=0.0, seed=view.seed + 1)
        objects, place = self._cutouts(part), self._view
        return draw_mixes(pictures, objects, mixes, view, place.size, place.policy)

    def _online_mixes(self) -> OnlineFeatures:
        pictures = self.trainer.train_pictures.subset(self.trainer.split[0])
        objects = grouped(self._cutouts('training'))
        return self._online(pictures, OnlineMix(objects, self.trainer.recipe.mixes))

    def _cutouts(self, part: str) -> list[Cutout]:
        recipe = self.trainer.recipe
        return load_outliers(recipe.outliers, part, recipe.data_root())
