# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The table of UEM as its YAML declares it: trainings, each with all its scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..config import Recipe
from ..outlier_sources import OutlierConfig
from .seeded_table import SeededTableConfig, read_rows, read_seeded_table, tupled
from .sliding import SlidingSettings

SCORES = ('llr', 'id', 'ood', 'max_softmax', 'energy', 'entropy')
OWN_SCORES = ('llr', 'ood')
"""What the module changes; the other scores are the segmenter's alone."""


@dataclass(frozen=True)
class Training:
    """
    One training of the module, for every seed.

    segmenter: its head, 'linear' or 'gmm'. form: of the module's head.
    combine, class_norm: of a generative module, see GmmSettings.
    exclude, most: of its outliers, see OutlierConfig: of the mixes that all trainings share, those
        that hold no other object are trained on. Which checkpoint is kept is chosen on all.
    """

    name: str
    segmenter: str = 'linear'
    form: str = 'discriminative'
    combine: str = 'max'
    class_norm: bool = True
    exclude: tuple[str, ...] = ()
    most: int = 0

    def recipe(self, base: Recipe) -> Recipe:
        """Return the recipe of this training."""
        mixture = replace(base.uem.gmm, combine=self.combine, class_norm=self.class_norm)
        return replace(
            base,
            segmenter=replace(base.segmenter, head=self.segmenter),
            uem=replace(base.uem, form=self.form, gmm=mixture),
        )

    def fewer(self, base: Recipe) -> OutlierConfig | None:
        """Return which of the objects it trains with, None for all."""
        if not self.exclude and not self.most:
            return None
        return replace(base.outliers, exclude=self.exclude, most=self.most)


@dataclass(frozen=True)
class UemTableConfig(SeededTableConfig):
    """
    A table; the rest: see SeededTableConfig.

    bundles: name -> bundle shown beside, '' = the shipped one. sliding: see SlidingSettings.
    """

    bundles: Mapping[str, str] = field(default_factory=dict)
    sliding: SlidingSettings = field(default_factory=SlidingSettings)


def load_uem_table(path: Path) -> UemTableConfig:
    """
    Read a table; the recipe is relative to the file.

    Raises ConfigError naming the file and the unknown or missing key.
    """
    values = read_seeded_table(path, UemTableConfig, 'uem_table.md')
    values['trainings'] = read_rows(path, values['trainings'], Training)
    values['sliding'] = SlidingSettings(**tupled(values.get('sliding', {})))
    return UemTableConfig(**values)
