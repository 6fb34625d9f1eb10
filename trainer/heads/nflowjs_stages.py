# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""NFlowJS's own stages: segmenter, flow, both trained together, held-out table."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ood_perception.errors import ConfigError

from ..artefacts import REPORT_FILE, artefact, key_of, write_json
from ..backbones import BackboneChoice, load_backbone
from ..config import digest
from ..crops import Crops
from ..finetuning import WEIGHTS_FILE, save_tuned
from ..flow_training import fit_flow, write_patches
from ..flows import Flow, load_flow, save_flow
from ..mixes import grouped
from ..nflowjs_training import Selection, Start, fit_nflowjs, trained_part
from ..online import OnlineMix
from ..segmenter import Segmenter, load_segmenter, save_segmenter
from ..segmenter_training import confusion_iou
from .base import HeadFacts
from .nflowjs import NflowjsHead
from .one_score import calibrate_one_score, one_score_facts
from .segmenter_stages import SEGMENTER_FILE, SegmenterStages
from .tables import MonotoneTable

if TYPE_CHECKING:
    from ..stages import Trainer

FLOW_FILE, PATCHES_FILE = 'flow.safetensors', 'patches.png'


class NflowjsStages(SegmenterStages):
    """NFlowJS from pictures to a calibrated head; cut-outs only choose, or are the ablation."""

    sections = ('views', 'segmenter', 'outliers', 'mixes', 'flow', 'nflowjs', 'online')

    def __init__(
        self, trainer: Trainer, segmenter_folder: Path | None = None, seed: int | None = None
    ) -> None:
        """Take what SegmenterStages takes; ConfigError for a recipe that cannot be."""
        super().__init__(trainer, segmenter_folder, seed)
        recipe = trainer.recipe
        self.config = replace(recipe.nflowjs, seed=self.seed)
        self.flow_config = replace(recipe.flow, seed=self.seed)
        if recipe.segmenter.head != 'linear':
            raise ConfigError(
                'NFlowJS trains a linear classifier on: set segmenter.head to linear'
            )
        if self.config.backbone_rate and not recipe.bundle.ship_weights:
            raise ConfigError(
                'nflowjs.backbone_rate tunes the backbone, whose weights can then be had nowhere '
                'else: set bundle.ship_weights to true'
            )
        self._tuned = False

    def flow(self) -> Flow:
        """Pre-train (or find) the flow on crops of the training pictures."""
        config, folder = self.flow_config, self.trainer.folder / 'flow'
        train, select = self._crops(0, (config.side,) * 2), self._crops(1, (config.side,) * 2)

        def make(target: Path) -> None:
            training = fit_flow(
                *(train, select, config),
                checkpoint=self.trainer.folder / 'flow.ckpt',
                progress=self.trainer.progress,
            )
            save_flow(target / FLOW_FILE, training.flow, config)
            write_patches(target / PATCHES_FILE, training.flow)
            report = {'best_step': training.best_step, 'history': training.history}
            write_json(target / REPORT_FILE, report)

        artefact(folder, digest([train.key, select.key, asdict(config)]), make)
        return load_flow(folder / FLOW_FILE)

    def _crops(self, part: int, size: tuple[int, int]) -> Crops:
        """Return crops of the pictures that are fitted on (0), or that choose (1)."""
        trainer = self.trainer
        views = replace(trainer.recipe.views, scale=self.config.scale)
        pictures = trainer.train_pictures.subset(trainer.split[part])
        return Crops(pictures, size, self._view, views)

    def _training(self) -> Crops:
        """Return the crops of the joint run, for the ablation with objects pasted in."""
        crops = self._crops(0, self.config.crop)
        if self.config.negatives != 'objects':
            return crops
        objects = grouped(self._cutouts('training'))
        return replace(crops, mix=OnlineMix(objects, self.trainer.recipe.mixes))

    def fit(self) -> Segmenter:
        """Train (or find) segmenter and flow, then both together; return the segmenter."""
        trainer, config = self.trainer, trained_part(self.config)
        folder = trainer.folder / 'fit'
        if self._tuned:  # nothing before the joint run may read a tuned backbone
            return load_segmenter(folder / SEGMENTER_FILE)
        segmenter, flow = self.segmenter(), self.flow()
        mixes = self._drawn_mixes('selection')
        select, train = Selection(self._features(mixes), mixes, self._view), self._training()
        keys = [key_of(self.segmenter_folder), key_of(trainer.folder / 'flow')]
        key = digest([*keys, train.key, select.features.key, asdict(config)])

        def make(target: Path) -> None:
            start = Start(segmenter, flow, trainer.backbone)
            training = fit_nflowjs(
                *(start, train, select, config),
                checkpoint=trainer.folder / 'nflowjs.ckpt',
                key=digest(keys),
                progress=trainer.progress,
            )
            save_segmenter(target / SEGMENTER_FILE, segmenter)
            save_flow(target / FLOW_FILE, flow, self.flow_config)
            write_patches(target / PATCHES_FILE, flow)
            report = {'best_step': training.best_step, 'history': training.history}
            if config.backbone_rate:
                save_tuned(target, trainer.backbone)
            else:
                report['selection_mean_iou'] = self._mean_iou(segmenter)
            write_json(target / REPORT_FILE, report)

        artefact(folder, key, make)
        if config.backbone_rate:
            self._take_tuned(folder)
        return load_segmenter(folder / SEGMENTER_FILE)

    def _mean_iou(self, segmenter: Segmenter) -> float:
        """Return the mean IoU on the selection pictures, as stage 1 was chosen by."""
        return float(np.nanmean(confusion_iou(segmenter, self._chosen(), step=2)))

    def _take_tuned(self, folder: Path) -> None:
        """Put the tuned backbone in the place of the trainer's, for all that comes after."""
        trainer, config = self.trainer, self.trainer.recipe.backbone
        origin, path = trainer.backbone, str(folder / WEIGHTS_FILE)
        choice = BackboneChoice(path, config.mean, config.std)  # type: ignore[arg-type]
        tuned = load_backbone(choice, trainer.cache)
        tuned.licence = origin.licence
        kept = {k: v for k, v in origin.provenance.items() if k != 'path'}
        tuned.provenance |= {
            'origin': {},
            'description': f'{kept.get("description", tuned.name)}, tuned together with NFlowJS',
            'finetuned': {'backbone_rate': self.config.backbone_rate, 'from': kept},
        }
        trainer.backbone, self._tuned = tuned, True

    def calibrate(self) -> MonotoneTable:
        """Fit (or find) the held-out table of the one score, all classes together."""
        segmenter, trainer, config = self.fit(), self.trainer, self.config
        features = trainer.calibration_features
        key = digest(
            [key_of(trainer.folder / 'fit'), features.key, config.score, config.temperature]
        )
        return calibrate_one_score(
            trainer, key, lambda: NflowjsHead(segmenter, config, trainer.class_names)
        )

    def head(self) -> NflowjsHead:
        """Return the calibrated head."""
        table = self.calibrate()
        segmenter = load_segmenter(self.trainer.folder / 'fit' / SEGMENTER_FILE)
        return NflowjsHead(segmenter, self.config, self.trainer.class_names, table)

    def facts(self) -> HeadFacts:
        """Return what the bundle says of the fit."""
        folder = self.trainer.folder
        places = {'segmenter': self.segmenter_folder, 'flow': folder / 'flow'}
        return one_score_facts(self.trainer, places | {'nflowjs': folder / 'fit'})
