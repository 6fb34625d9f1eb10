# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""How NFlowJS is fitted: segmenter, flow, both trained together, held-out table."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ood_perception.errors import ConfigError
from ood_perception.json_files import write_json

from ...artifacts import REPORT_FILE, Artifact, digest
from ...augment.crops import Crops
from ...backbones import load_backbone
from ...backbones.base import Backbone
from ...calibration.curve import MonotoneTable
from ...nets.segmenter import Segmenter, load_segmenter, save_segmenter
from ...training.finetuning import WEIGHTS_FILE, save_tuned
from ...training.segmenter import confusion_iou
from ...training_data import TrainingData
from ..calibrated import without
from ..on_segmenter import SEGMENTER_FILE, SegmenterFit
from .config import NflowjsConfig
from .flow import FlowConfig, load_flow, save_flow
from .flow.training import fit_flow, write_patches
from .model import NflowjsHead
from .training import Selection, Start, fit_nflowjs, trained_part

FLOW_FILE, PATCHES_FILE = 'flow.safetensors', 'patches.png'


class NflowjsFit(SegmenterFit):
    """NFlowJS from pictures to a calibrated head; cut-outs only choose, or are the ablation."""

    kind = 'nflowjs'

    def __init__(
        self, data: TrainingData, sections: Mapping[str, Any], store: Path, seed: int
    ) -> None:
        """Take what SegmenterFit takes, and the sections flow and nflowjs; ConfigError."""
        super().__init__(data, sections, store, seed)
        self.nflowjs: NflowjsConfig = replace(sections['nflowjs'], seed=seed)
        self.flow_config: FlowConfig = replace(sections['flow'], seed=seed)
        self.tunes_backbone = bool(self.nflowjs.backbone_rate)
        if self.closed_set.config.head != 'linear':
            raise ConfigError(
                'NFlowJS trains a linear classifier on: set segmenter.head to linear'
            )

    @cached_property
    def flow(self) -> Artifact:
        """The flow, trained on crops of the training pictures, or found."""
        config = self.flow_config
        train, select = self.crops(0, (config.side,) * 2), self.crops(1, (config.side,) * 2)
        artifact = self.artifact('flow', train.key, select.key, asdict(config))

        def fill(target: Path) -> None:
            training = fit_flow(
                train,
                select,
                config,
                checkpoint=artifact.checkpoint,
                progress=self.data.progress,
            )
            save_flow(target / FLOW_FILE, training.flow, config)
            write_patches(target / PATCHES_FILE, training.flow)
            report = {'best_step': training.best_step, 'history': training.history}
            write_json(target / REPORT_FILE, report)

        return artifact.make(fill)

    def crops(self, part: int, size: tuple[int, int]) -> Crops:
        """Return crops of the pictures that are fitted on (0), or that choose (1)."""
        pictures = self.data.pictures.subset(self.data.split[part])
        return Crops(pictures, size, self.data.view, replace(self.views, scale=self.nflowjs.scale))

    def _training(self) -> Crops:
        """Return the crops of the joint run, for the ablation with objects pasted in."""
        crops = self.crops(0, self.nflowjs.crop)
        if self.nflowjs.negatives != 'objects':
            return crops
        return replace(crops, mix=self.training_objects())

    def fit(self) -> Artifact:
        """Train (or find) segmenter and flow, then both together."""
        config, mixes = trained_part(self.nflowjs), self.drawn_mixes('selection')
        before = [self.closed_set.fitted.key, self.flow.key]
        select = Selection(self.data.extract(mixes), mixes, self.data.view)
        train = self._training()
        inputs = (*before, train.key, select.features.key, asdict(config))
        artifact = self.artifact('fit-nflowjs', *inputs)

        def fill(target: Path) -> None:
            start = self._start()
            training = fit_nflowjs(
                start,
                train,
                select,
                config,
                checkpoint=artifact.checkpoint,
                key=digest(before),
                progress=self.data.progress,
            )
            save_segmenter(target / SEGMENTER_FILE, start.segmenter)
            save_flow(target / FLOW_FILE, start.flow, self.flow_config)
            write_patches(target / PATCHES_FILE, start.flow)
            report = {'best_step': training.best_step, 'history': training.history}
            if self.tunes_backbone:
                save_tuned(target, start.backbone)
            else:
                report['selection_mean_iou'] = self._mean_iou(start.segmenter)
            write_json(target / REPORT_FILE, report)

        return artifact.make(fill)

    def _start(self) -> Start:
        """Return what the joint run trains on; a backbone that it tunes is a copy."""
        backbone, flow = self.data.backbone, load_flow(self.flow.folder / FLOW_FILE)
        if self.tunes_backbone:
            backbone = copy.deepcopy(backbone)
        return Start(self.closed_set.load(), flow, backbone)

    def _mean_iou(self, segmenter: Segmenter) -> float:
        """Return the mean IoU on the selection pictures, as stage 1 was chosen by."""
        return float(np.nanmean(confusion_iou(segmenter, self.closed_set.chosen(), step=2)))

    @cached_property
    def served(self) -> TrainingData:
        """The data, seen by the tuned backbone where it is tuned."""
        return self.data.served_by(self._tuned()) if self.tunes_backbone else self.data

    def _tuned(self) -> Backbone:
        """Return the backbone that the joint run tuned."""
        origin, path = self.data.backbone, self.fitted.folder / WEIGHTS_FILE
        choice = replace(self.data.source, weights=str(path))
        tuned = load_backbone(choice, self.data.cache)
        tuned.licence = origin.licence
        kept = without(origin.provenance, 'path')
        tuned.provenance |= {
            'origin': {},
            'description': f'{kept.get("description", tuned.name)}, tuned together with NFlowJS',
            'finetuned': {'backbone_rate': self.nflowjs.backbone_rate, 'from': kept},
        }
        return tuned

    def build(self, table: MonotoneTable | None = None) -> NflowjsHead:
        """Return the fitted head, see OneScoreFit."""
        segmenter = load_segmenter(self.fitted.folder / SEGMENTER_FILE)
        return NflowjsHead(segmenter, self.nflowjs, self.data.class_names, table)

    def served_options(self) -> Sequence[Any]:
        """Return score and temperature."""
        return self.nflowjs.score, self.nflowjs.temperature

    def provenance(self) -> dict[str, Any]:
        """Return what the manifest says of the fit."""
        parts = {'segmenter': self.closed_set.fitted, 'flow': self.flow, 'nflowjs': self.fitted}
        return {name: without(part.report(), 'history') for name, part in parts.items()}
