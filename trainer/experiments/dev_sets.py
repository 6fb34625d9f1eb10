# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The sets of anomalies of a table: pictures, labels, features at the network's size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..data import PictureList
from ..datasets import open_set
from ..features import FeatureSet, View, extract, size_for
from ..layers import Layer
from ..stages import Trainer


@dataclass(frozen=True)
class DevSet:
    """A set of anomalies; longest: side at the network; road: scored there alone by its labels."""

    name: str
    pictures: PictureList
    longest: int
    road: bool

    @cached_property
    def labels(self) -> list[npt.NDArray[np.uint8]]:
        """The labels of all pictures, uint8 (H, W) each."""
        return [self.pictures.read(index)[1] for index in range(len(self.pictures))]


def open_dev_set(name: str, root: Path, longest: int, limit: int = 0) -> DevSet:
    """Open a set by its name under `root`; limit: its first pictures, 0 = all."""
    data = open_set(name, root)
    if limit:
        data = data.subset(range(min(limit, len(data))))
    return DevSet(name, data.pictures, longest, data.roi == 'road')


def set_features(trainer: Trainer, data: DevSet, layers: Sequence[Layer]) -> FeatureSet:
    """Extract (or find) the features of a set, stretched to its longest side."""
    height, width = data.pictures.read(0)[0].shape[:2]
    size = size_for((height, width), data.longest, trainer.backbone.patch)
    view = View(size, 'stretch', precision=trainer.recipe.view.precision)
    return extract(data.pictures, trainer.backbone, layers, view, trainer.features_folder)
