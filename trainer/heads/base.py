# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""How a kind of head is fitted and calibrated."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from ..head_module import HeadFacts, HeadModule

if TYPE_CHECKING:
    from ..config import Recipe
    from ..layers import Layer
    from ..stages import Trainer


class HeadStages(ABC):
    """
    A kind of head: how the trainer fits and calibrates it (one row of heads.HEADS).

    sections: the sections of the recipe that belong to this kind of head alone.
    Every stage makes or finds a folder of trainer.folder; `calibrate` is the one that the bundle's
    key follows from.
    """

    sections: tuple[str, ...] = ()

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer

    @classmethod
    def used_sections(cls, recipe: Recipe) -> tuple[str, ...]:
        """Return the sections that a recipe of this kind is read by."""
        return cls.sections

    @property
    def layers(self) -> tuple[Layer, ...]:
        """What the head reads of the backbone: the recipe's blocks, unless it names more."""
        return self.trainer.recipe.backbone.layers

    @abstractmethod
    def fit(self) -> Any:
        """Fit (or find) all that is learned."""

    @abstractmethod
    def calibrate(self) -> Any:
        """Fit (or find) the tables, in the folder trainer.folder / 'calibrate'."""

    @abstractmethod
    def head(self) -> HeadModule:
        """Return the calibrated head."""

    @abstractmethod
    def facts(self) -> HeadFacts:
        """Return what the bundle says of the fit."""
