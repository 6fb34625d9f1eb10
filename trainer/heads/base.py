# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""How a kind of head is fitted and calibrated, and the recipe's section `head` that all read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from ood_perception.json_files import write_json

from ..artifacts import REPORT_FILE, Artifact, digest
from ..backbones.base import Layer
from ..features import FeatureSet
from ..head_module import HeadFacts, HeadModule
from ..training_data import TrainingData

Fill = Callable[[Path, Artifact], Mapping[str, Any] | None]
"""Fills a folder for an artifact; what it returns is recorded as its report, JSON values."""


@dataclass(frozen=True)
class HeadConfig:
    """
    The served head; the options but `kind` are those of heads.pixood.model.PixOODHead.

    kind: a row of heads.HEADS. score: of kind 'baseline', one of heads.baselines.SCORES.
    classes: those whose score the head holds, empty = all that have a model.
    """

    kind: str = 'pixood'
    score: str = 'max_logit'
    upsampling: int = 7
    selection: str = 'min'
    calibration: str = 'held-out'
    classes: tuple[str, ...] = ()
    logits: str = 'patch'
    half_weights: bool = True
    gate: str = 'paper'


class HeadFit(ABC):
    """
    A kind of head, fitted to data (one row of heads.HEADS).

    kind: the row's name. tunes_backbone: the fit changes the backbone's weights.
    """

    kind: ClassVar[str]
    tunes_backbone: bool = False

    def __init__(
        self, data: TrainingData, sections: Mapping[str, Any], store: Path, seed: int
    ) -> None:
        """
        Take what is fitted on, and how.

        sections: of the recipe, by name: those of the kind's row, and `head`. store: the folder of
        all artifacts. seed: of the trainings; views and mixes keep their sections'.
        """
        self.data, self.sections, self.store, self.seed = data, sections, store, seed
        self.config: HeadConfig = sections['head']
        self._read()

    def _read(self) -> None:
        """Take up the kind's own sections; ConfigError for what cannot be."""
        return

    def seeded(self, section: str) -> Any:
        """Return a section of the recipe with the fit's seed."""
        return replace(self.sections[section], seed=self.seed)

    def made(
        self, kind: str, inputs: Sequence[Any], fill: Fill, together: bool = False
    ) -> Artifact:
        """
        Make (or load) what is kept; inputs: all that it depends on, JSON values.

        together: several processes share the work of `fill`; else the first that comes does it,
        and the others wait.
        """
        artifact = Artifact(self.store, kind, digest(inputs))

        def whole(target: Path) -> None:
            report = fill(target, artifact)
            if report is not None:
                write_json(target / REPORT_FILE, report)

        return artifact.make_together(whole) if together else artifact.make(whole)

    def check(self) -> None:
        """Raise OodPerceptionError for files beside the data set that cannot be used, early."""
        return

    @property
    def layers(self) -> tuple[Layer, ...]:
        """What the head reads of the backbone: the recipe's blocks, unless it names more."""
        return self.data.blocks

    @property
    def served(self) -> TrainingData:
        """The data as the served graph sees them: by another backbone where the fit tunes it."""
        return self.data

    @cached_property
    def calibration_features(self) -> FeatureSet:
        """What no fitting has seen, as the served head reads it."""
        return self.served.calibration_features(self.layers)

    @cached_property
    def calibration_views(self) -> tuple[FeatureSet, ...]:
        """The same images in each further view of the bundle."""
        data = self.served
        return tuple(data.cropped(v).calibration_features(self.layers) for v in data.view.views)

    @cached_property
    def fitted(self) -> Artifact:
        """What fit() gave, asked once."""
        return self.fit()

    @cached_property
    def calibrated(self) -> Artifact:
        """What calibrate() gave, asked once."""
        return self.calibrate()

    @abstractmethod
    def fit(self) -> Artifact:
        """Fit (or load) all that is learned."""

    @abstractmethod
    def calibrate(self) -> Artifact:
        """Fit (or load) the tables; the key holds all that the served head depends on."""

    @abstractmethod
    def head(self) -> HeadModule:
        """Return the calibrated head."""

    @abstractmethod
    def facts(self) -> HeadFacts:
        """Return what the bundle says of the fit."""
