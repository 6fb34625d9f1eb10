# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The closed-set segmenter, and what the fits of heads on it share: tokens of views and mixes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from ..artifacts import Artifact
from ..augment.cutouts import Cutout
from ..augment.mixes import AnomalyMix, MixedImages, draw_mixes, grouped
from ..augment.on_the_fly import OnTheFlyFeatures, OnTheFlySettings
from ..augment.outlier_sources import OutlierConfig, check_outliers, load_outliers
from ..augment.pasting import MixSettings
from ..augment.views import ViewSettings, draw_views
from ..backbones.base import layer_name, parse_layer
from ..data.images import ImageList
from ..features import FeatureSet, joined
from ..nets.segmenter import SegmenterConfig, load_segmenter, save_segmenter
from ..training.segmenter import SegmenterRun
from .base import HeadFit
from .calibrated import OneScoreFit, reports

SEGMENTER_FILE = 'segmenter.safetensors'


class ClosedSet:
    """The closed-set segmenter of a fit: of its sections views, segmenter and on_the_fly."""

    def __init__(self, fit: HeadFit) -> None:
        self.fit, self.data = fit, fit.data
        self.views: ViewSettings = fit.sections['views']
        self.on_the_fly: OnTheFlySettings = fit.sections['on_the_fly']
        self.config: SegmenterConfig = fit.seeded('segmenter')

    @property
    def layers(self) -> list[str]:
        """The names of the tokens that the segmenter reads."""
        return [layer_name(block) for block in sorted(self.data.blocks, key=parse_layer)]

    @cached_property
    def fitted(self) -> Artifact:
        """The segmenter, trained on the bank of views or on fresh ones, or found."""
        data, config = self.data, self.config
        features: FeatureSet | OnTheFlyFeatures
        if config.on_the_fly:
            features = self.fresh(data.images.subset(data.split[0]))
        else:
            features = self.bank()
        chosen, classes = self.chosen(), len(data.class_names)

        def fill(target: Path, artifact: Artifact) -> Mapping[str, Any]:
            run = SegmenterRun(features, chosen, self.layers, classes, config, self.new())
            done = run.fit(artifact)
            self.save(target / SEGMENTER_FILE, done.model)
            best = max(look[2] for look in done.history)
            return {**done.report(), 'selection_mean_iou': best}

        inputs = (features.key, chosen.key, self.layers, classes, asdict(config))
        return self.fit.made('segmenter', inputs, fill, together=True)

    def load(self) -> nn.Module:
        """Train (or load) the segmenter and return it."""
        return self.read(self.fitted.folder / SEGMENTER_FILE)

    def new(self) -> nn.Module | None:
        """Return a network to train, None = a new segmenter."""
        return None

    def save(self, path: Path, network: nn.Module) -> None:
        """Write a trained network."""
        save_segmenter(path, network)

    def read(self, path: Path) -> nn.Module:
        """Read what save wrote."""
        return load_segmenter(path)

    def chosen(self) -> FeatureSet:
        """Return the tokens of the images that choose the segmenter's state."""
        data, select = self.data, self.data.split[1]
        if self.config.on_the_fly:  # the tokens of all training images are never needed
            return data.extract(data.images.subset(select))
        return data.train_features.subset(select)

    def bank(self) -> FeatureSet:
        """Return the tokens of the training images and of the further views of each."""
        data, train = self.data, self.data.split[0]
        images = data.train_features.subset(train)
        drawn = draw_views(data.images.subset(train), self.views, first=1)
        return joined([images, data.extract(drawn)]) if len(drawn) else images

    def fresh(self, images: ImageList, mix: AnomalyMix | None = None) -> OnTheFlyFeatures:
        """Return fresh views of images; mix: with objects pasted in."""
        data, blocks = self.data, tuple(sorted(self.data.blocks, key=parse_layer))
        return OnTheFlyFeatures(
            images, data.backbone, blocks, data.view, self.views, self.on_the_fly, mix
        )


class SegmenterFit(OneScoreFit):
    """
    A head on the segmenter: the segmenter, mixes to train with and to choose by.

    network: the class of closed-set networks.
    """

    network: type[ClosedSet] = ClosedSet

    def _read(self) -> None:
        self.views: ViewSettings = self.sections['views']
        self.mixes: MixSettings = self.sections['mixes']
        self.outliers: OutlierConfig = self.sections['outliers']
        self.closed_set = self.network(self)

    def check(self) -> None:
        """Check the files of objects; see HeadFit.check."""
        check_outliers(self.outliers, self.data.root)

    def provenance(self) -> dict[str, Any]:
        """Return what was recorded of segmenter and fit."""
        return reports(**{'segmenter': self.closed_set.fitted, self.kind: self.fitted})

    def mixed(self, part: str) -> FeatureSet:
        """Return the tokens of the mixes that are trained on, or that choose the checkpoint."""
        return self.data.extract(self.drawn_mixes(part))

    def drawn_mixes(self, part: str) -> MixedImages:
        """Return the mixes themselves; part: 'training' or 'selection'."""
        train, select, _ = self.data.split
        images = self.data.images.subset(train if part == 'training' else select)
        mixes, views = self.mixes, self.views
        if part == 'selection':  # whole images, each with objects
            mixes = replace(mixes, count=len(select), probability=1.0)
            views = replace(views, scale=(1.0, 1.0), flip=0.0, seed=views.seed + 1)
        size, policy = self.data.view.size, self.data.view.policy
        return draw_mixes(images, self.cutouts(part), mixes, views, size, policy)

    def fresh_mixes(self) -> OnTheFlyFeatures:
        """Return mixes that are drawn in every step."""
        images = self.data.images.subset(self.data.split[0])
        return self.closed_set.fresh(images, self.training_objects())

    def training_objects(self) -> AnomalyMix:
        """Return the objects to paste into images that are drawn fresh."""
        return AnomalyMix(grouped(self.cutouts('training')), self.mixes)

    def cutouts(self, part: str) -> list[Cutout]:
        """Return the objects of a part."""
        return load_outliers(self.outliers, part, self.data.root)
