# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""How RPL is fitted: segmenter, mixes and everyday images, block, calibration curve."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ood_perception.errors import ConfigError

from ...artifacts import Artifact
from ...augment.on_the_fly import OnTheFlyFeatures
from ...augment.outlier_sources import load_context
from ...calibration.monotone_curve import CalibrationCurve
from ...features import FeatureSet
from ..on_segmenter import SegmenterFit
from .block import DeepLabClosedSet, deeplab_block, deeplab_layers, load_block, save_block
from .config import RplConfig
from .model import RplHead
from .training import Frozen, RplRun, frozen_features

BLOCK_FILE, FEATURE_FILE = 'rpl.safetensors', 'feature.npy'


class RplFit(SegmenterFit):
    """RPL from images, cut-outs and everyday images to a calibrated head."""

    kind = 'rpl'

    def _read(self) -> None:
        self.rpl: RplConfig = self.seeded('rpl')
        if self.rpl.network == 'deeplab':
            self.network = DeepLabClosedSet
            self.data = self.data.reading(deeplab_layers(self.data.backbone))
        super()._read()

    def fit(self) -> Artifact:
        """Train (or load) host and block."""
        fitted, host, config = self.closed_set.fitted, self.closed_set.load(), self.rpl
        train = self.fresh_mixes() if config.on_the_fly else self.mixed('training')
        select, context = self.mixed('selection'), self.everyday()
        keys = [train.key, select.key, context.key if context is not None else '']

        def fill(target: Path, artifact: Artifact) -> Mapping[str, Any]:
            block = deeplab_block(host) if config.network == 'deeplab' else None
            frozen: tuple[Frozen | None, Frozen | None] = (None, None)
            if not config.on_the_fly:
                frozen = self._frozen(train), self._frozen(select)
            done = RplRun(host, (train, context), select, config, block, frozen).fit(artifact)
            save_block(target / BLOCK_FILE, done.model)
            return done.report()

        inputs = (*keys, fitted.key, asdict(config))
        return self.made('fit-rpl', inputs, fill, together=True)

    def _frozen(self, features: FeatureSet) -> Frozen:
        """Compute (or load) the host's feature of every mix: one file a host and set of mixes."""

        def fill(target: Path, _: Artifact) -> None:
            frozen_features(self.closed_set.load(), features, target / FEATURE_FILE)

        artifact = self.made('frozen', (self.closed_set.fitted.key, features.key), fill)
        return np.load(artifact.folder / FEATURE_FILE, mmap_mode='r')

    def everyday(self) -> FeatureSet | OnTheFlyFeatures | None:
        """Return whole everyday images, those that the training's objects come from."""
        config, outliers = self.rpl, self.outliers
        if not (config.contrast and config.context):
            return None
        if outliers.source != 'coco':
            raise ConfigError(
                f'rpl.context shows whole everyday images, which outliers.source '
                f'{outliers.source!r} has not: set rpl.context to false, or use coco'
            )
        folder, classes = outliers.folder_at(self.data.root), self.data.images.classes
        images = load_context(folder, 'training', classes, outliers.exclude)
        return self.closed_set.fresh(images) if config.on_the_fly else self.data.extract(images)

    def build(self, curve: CalibrationCurve | None = None) -> RplHead:
        """Return the fitted head, see OneScoreFit."""
        block = load_block(self.fitted.folder / BLOCK_FILE)
        return RplHead(self.closed_set.load(), block, self.data.class_names, curve)
