# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""How NFlowJS is fitted: segmenter, flow, both trained together, calibration curve."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ood_perception.errors import ConfigError

from ...artifacts import Artifact
from ...augment.on_the_fly import Crops
from ...calibration.monotone_curve import CalibrationCurve
from ...nets.segmenter import load_segmenter, save_segmenter
from ...training.finetuning import save_tuned
from ...training.segmenter import mean_iou
from ...training_data import TrainingData
from ..calibrated import reports
from ..on_segmenter import SEGMENTER_FILE, SegmenterFit
from .config import NflowjsConfig
from .flow import Flow, FlowConfig, load_flow, save_flow
from .flow.training import FlowRun, write_patches
from .model import NflowjsHead
from .training import JointRun, Selection, Start, trained_part

FLOW_FILE, PATCHES_FILE = 'flow.safetensors', 'patches.png'


class NflowjsFit(SegmenterFit):
    """NFlowJS from images to a calibrated head; cut-outs only choose, or are the ablation."""

    kind = 'nflowjs'

    def _read(self) -> None:
        super()._read()
        self.nflowjs: NflowjsConfig = self.seeded('nflowjs')
        self.flow_config: FlowConfig = self.seeded('flow')
        self.tunes_backbone = bool(self.nflowjs.backbone_rate)
        if self.closed_set.config.head != 'linear':
            raise ConfigError(
                'NFlowJS trains a linear classifier on: set segmenter.head to linear'
            )

    @cached_property
    def flow(self) -> Artifact:
        """The flow, trained on crops of the training images, or found."""
        config = self.flow_config
        train, select = self.crops(0, (config.side,) * 2), self.crops(1, (config.side,) * 2)

        def fill(target: Path, artifact: Artifact) -> Mapping[str, Any]:
            done = FlowRun(train, select, config).fit(artifact)
            self._save_flow(target, done.model)
            return done.report()

        return self.made('flow', (train.key, select.key, asdict(config)), fill)

    def _save_flow(self, target: Path, flow: Flow) -> None:
        """Write a flow, and an image of what it makes."""
        save_flow(target / FLOW_FILE, flow, self.flow_config)
        write_patches(target / PATCHES_FILE, flow)

    def crops(self, part: int, size: tuple[int, int]) -> Crops:
        """Return crops of the images that are fitted on (0), or that choose (1)."""
        images = self.data.images.subset(self.data.split[part])
        return Crops(images, size, self.data.view, replace(self.views, scale=self.nflowjs.scale))

    def _training(self) -> Crops:
        """Return the crops of the joint run, for the ablation with objects pasted in."""
        crops = self.crops(0, self.nflowjs.crop)
        if self.nflowjs.negatives != 'objects':
            return crops
        return replace(crops, mix=self.training_objects())

    def fit(self) -> Artifact:
        """Train (or load) segmenter and flow, then both together."""
        config, mixes = trained_part(self.nflowjs), self.drawn_mixes('selection')
        select = Selection(self.data.extract(mixes), mixes, self.data.view)
        train = self._training()

        def fill(target: Path, artifact: Artifact) -> Mapping[str, Any]:
            start = self._start()
            done = JointRun(start, train, select, config).fit(artifact)
            save_segmenter(target / SEGMENTER_FILE, start.segmenter)
            self._save_flow(target, start.flow)
            if self.tunes_backbone:
                save_tuned(target, start.backbone)
                return done.report()
            # as the closed-set segmenter was chosen by
            quality = mean_iou(start.segmenter, self.closed_set.chosen())
            return {**done.report(), 'selection_mean_iou': quality}

        inputs = [self.closed_set.fitted.key, self.flow.key, train.key, select.features.key]
        return self.made('fit-nflowjs', [*inputs, asdict(config)], fill)

    def _start(self) -> Start:
        """Return what the joint run trains on; a backbone that it tunes is a copy."""
        backbone, flow = self.data.backbone, load_flow(self.flow.folder / FLOW_FILE)
        if self.tunes_backbone:
            backbone = copy.deepcopy(backbone)
        return Start(self.closed_set.load(), flow, backbone)

    @cached_property
    def served(self) -> TrainingData:
        """The data, seen by the tuned backbone where it is tuned."""
        if not self.tunes_backbone:
            return self.data
        rate = {'backbone_rate': self.nflowjs.backbone_rate}
        return self.data.tuned(self.fitted.folder, 'tuned together with NFlowJS', rate)

    def build(self, curve: CalibrationCurve | None = None) -> NflowjsHead:
        """Return the fitted head, see OneScoreFit."""
        segmenter = load_segmenter(self.fitted.folder / SEGMENTER_FILE)
        return NflowjsHead(segmenter, self.nflowjs, self.data.class_names, curve)

    def served_options(self) -> Sequence[Any]:
        """Return score and temperature."""
        return self.nflowjs.score, self.nflowjs.temperature

    def provenance(self) -> dict[str, Any]:
        """Return what the manifest says of the fit."""
        parts = {'segmenter': self.closed_set.fitted, 'flow': self.flow}
        return reports(**parts, nflowjs=self.fitted)
