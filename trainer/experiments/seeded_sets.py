# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What rows on segmenters share of a table's sets: tokens, F, regions, measured pixels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt
import torch

from ood_perception.geometry import to_camera_nearest
from ood_perception.metrics.pixel import ScoredPicture, scored_picture
from ood_perception.roi import class_table, ground_hull

from ..artefacts import key_of
from ..features import FeatureSet
from ..heads.uem_stages import UemStages
from .dev_sets import DevSet, open_dev_set, set_features
from .scoring import Region, read_mask, stretched
from .uem_scores import known_grids

if TYPE_CHECKING:
    from .seeded_table import SeededTableConfig

GROUND = ('Road', 'Pavement')


class DevSets:
    """
    The sets of a table, with what all rows share: tokens, F of each segmenter, regions.

    limit: first pictures of each set, 0 = all. reference: the stages whose segmenter gives the
    predicted ground of all rows.
    """

    def __init__(self, config: SeededTableConfig, limit: int, reference: UemStages) -> None:
        self.config, self.limit, self.reference = config, limit, reference
        self._known: dict[tuple[str, str], list[torch.Tensor]] = {}

    @cached_property
    def sets(self) -> list[DevSet]:
        """The sets."""
        root = self.config.recipe.data_root().parent
        sets = self.config.sets.items()
        return [open_dev_set(name, root, longest, self.limit) for name, longest in sets]

    def features(self, data: DevSet) -> FeatureSet:
        """Extract (or find) the tokens of a set, stretched to its longest side."""
        trainer = self.reference.trainer
        return set_features(trainer, data, trainer.recipe.backbone.layers)

    def regions(self, data: DevSet) -> dict[str, Region]:
        """
        Return region -> place of a picture -> bool (H, W), None = all.

        The ground is the hull of the reference's road.
        """
        if data.road:
            return {'road': lambda _: None}
        mark = f'{data.name}-{key_of(self.reference.segmenter_folder)[:16]}'
        folder = self.config.folder / 'ground' / mark
        self._write_ground(data, folder)
        names = data.pictures.names
        return {
            'image': lambda _: None,
            'ground': lambda index: read_mask(folder / f'{names[index]}.png'),
        }

    def _write_ground(self, data: DevSet, folder: Path) -> None:
        missing = [n for n in data.pictures.names if not (folder / f'{n}.png').is_file()]
        if not missing:
            return
        folder.mkdir(parents=True, exist_ok=True)
        features, known = self.features(data), self.known(data, self.reference)
        names = self.reference.trainer.class_names
        table = class_table([names.index(name) for name in GROUND])
        for name, logits, labels in zip(data.pictures.names, known, data.labels, strict=True):
            hull = ground_hull(table[logits[0].argmax(-1).numpy()])
            geometry = stretched(labels, features)
            mask = to_camera_nearest(hull, geometry).astype(np.uint8) * 255
            cv2.imwrite(str(folder / f'{name}.png'), mask)

    def known(self, data: DevSet, stages: UemStages) -> list[torch.Tensor]:
        """Return F of a set's pictures, computed once for all modules on one segmenter."""
        place = (key_of(stages.segmenter_folder), data.name)
        if place not in self._known:
            self._known[place] = known_grids(stages.segmenter(), self.features(data))
        return self._known[place]

    def scored(
        self, data: DevSet, pixels: Sequence[npt.NDArray[np.float32]], region: Region
    ) -> list[ScoredPicture]:
        """Split the maps of all pictures by the labels, every pixel_step-th row and column."""
        thin = (slice(None, None, self.config.pixel_step),) * 2
        scored = []
        for index, (values, labels) in enumerate(zip(pixels, data.labels, strict=True)):
            inside = region(index)
            part = None if inside is None else inside[thin]
            scored.append(scored_picture(values[thin], labels[thin], part))
        return scored
