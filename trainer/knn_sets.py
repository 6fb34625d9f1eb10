# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The sets of anomalies of the table of cDNP, and their features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .data import PictureList
from .datasets import open_set
from .features import FeatureSet, View, extract, size_for
from .layers import Layer
from .stages import Trainer


@dataclass(frozen=True)
class DevSet:
    """A set of anomalies: its pictures, their longest side at the network, whether roads only."""

    name: str
    pictures: PictureList
    longest: int
    road: bool


def open_dev_set(name: str, root: Path, longest: int) -> DevSet:
    """Open a set by its name under `root`; longest: side of its pictures at the network."""
    data = open_set(name, root)
    return DevSet(name, data.pictures, longest, data.roi == 'road')


def set_features(trainer: Trainer, data: DevSet, layers: Sequence[Layer]) -> FeatureSet:
    """Extract (or find) the features of a set, stretched to its longest side."""
    height, width = data.pictures.read(0)[0].shape[:2]
    size = size_for((height, width), data.longest, trainer.backbone.patch)
    view = View(size, 'stretch', precision=trainer.recipe.view.precision)
    return extract(data.pictures, trainer.backbone, layers, view, trainer.features_folder)
