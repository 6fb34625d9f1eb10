# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The table of UEM as its YAML declares it: trainings, each with all its scores."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ood_perception.errors import ConfigError

from .config import Recipe, load_recipe
from .outlier_sources import OutlierConfig
from .sliding import SlidingSettings
from .workbench import read_yaml

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
class ScoreRow:
    """
    One result: a score of a trained module or segmenter, or a bundle's ('surprisal').

    source: hash of what the score comes from. seed: of the training. view: 'whole' or 'sliding',
    with its window and stride.
    """

    name: str
    score: str
    source: str
    seed: int = 0
    view: str = 'whole'

    def key(self) -> str:
        """Return a hash of everything but the name."""
        values = {k: v for k, v in asdict(self).items() if k != 'name'}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class UemTableConfig:
    """
    A table.

    recipe: data, backbone, view and schedules of every training, read with `changes` such as
        'uem.steps=250'. folder: everything that is made.
    report: the Markdown file. sets: anomaly set -> longest side of its pictures at the network.
    seeds: of the trainings. pixel_step: every s-th row and column of the labels is measured.
    bundles: name -> bundle shown beside, '' = the shipped one.
    """

    recipe: Recipe
    folder: Path
    report: Path
    sets: Mapping[str, int]
    trainings: tuple[Training, ...]
    seeds: tuple[int, ...] = (42,)
    bundles: Mapping[str, str] = field(default_factory=dict)
    sliding: SlidingSettings = field(default_factory=SlidingSettings)
    resamples: int = 1000
    pixel_step: int = 1


def load_uem_table(path: Path) -> UemTableConfig:
    """
    Read a table; the recipe is relative to the file.

    Raises ConfigError naming the file and the unknown or missing key.
    """
    values = read_yaml(path)
    known = {item.name for item in fields(UemTableConfig)} | {'changes'}
    wrong = sorted(set(values) - known)
    missing = sorted({'recipe', 'folder', 'sets', 'trainings'} - set(values))
    if wrong or missing:
        raise ConfigError(f'{path}: unknown {wrong}, missing {missing}; known are {sorted(known)}')
    folder = Path(values['folder'])
    trainings = tuple(_training(entry, path) for entry in values['trainings'])
    names = [training.name for training in trainings]
    if len(set(names)) != len(names) or not names:
        raise ConfigError(f'{path}: trainings need names of their own, has {names}')
    sliding = {k: tuple(v) for k, v in values.get('sliding', {}).items()}
    return UemTableConfig(
        recipe=load_recipe(path.parent / values['recipe'], values.get('changes', [])),
        folder=folder,
        report=Path(values.get('report', folder / 'uem_table.md')),
        sets=dict(values['sets']),
        trainings=trainings,
        seeds=tuple(values.get('seeds', (42,))),
        bundles=dict(values.get('bundles', {})),
        sliding=SlidingSettings(**sliding),
        resamples=int(values.get('resamples', 1000)),
        pixel_step=int(values.get('pixel_step', 1)),
    )


def _training(entry: Any, path: Path) -> Training:
    known = {item.name for item in fields(Training)}
    if not isinstance(entry, dict) or 'name' not in entry or set(entry) - known:
        raise ConfigError(f'{path}: training {entry!r}: known keys are {sorted(known)}')
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()}
    return Training(**values)
