# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What every kind of head is fitted on: labelled images, their splits, a backbone's tokens."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ood_perception.errors import ConfigError
from ood_perception.files import cache_root, user_path
from ood_perception.image.views import ViewSpec
from ood_perception.json_files import write_json

from .artifacts import REPORT_FILE, Artifact, digest
from .backbones import load_backbone
from .backbones.base import Backbone, BackboneChoice, Layer
from .data.images import ImageList, content_sha256
from .data.splits import spaced_places, split_contiguous
from .datasets import load_images
from .features import CropView, FeatureSet, View, extract, joined
from .training.finetuning import FinetuningConfig, TuningRun, load_tuned, save_tuned

LOG = logging.getLogger(__name__)
DATA_ENV = 'OOD_DATA'


@dataclass(frozen=True)
class BackboneConfig(BackboneChoice):
    """layers: 0-based blocks; the classifier reads all of them, distances the last."""

    layers: tuple[int, ...] = (5, 8, 11)


@dataclass(frozen=True)
class DataConfig:
    """
    The labelled images.

    layout: a key of datasets.LAYOUTS, or with a taxonomy's classes, 'cityscapes@road'.
    root: folder, relative to the working directory or, where that is none, to OOD_DATA.
    train: split to fit on, but for the last calibration_fraction of every sequence, which
        calibrates together with the splits in `calibration`. Of what is fitted on, the last
        selection_fraction of every sequence only chooses the classifier's best epoch; sequences
        of one image are fitted on. calibration_fraction 0: only the splits in `calibration`.
    calibration_blocks: stretches of every sequence; both fractions are cut from the end of each,
        so that more places calibrate than the ends of the sequences.
    calibration_spacing: images of one sequence calibrate only where they are so many frames
        apart, by the numbers that end their names; 0 = all. A stretch that was labelled frame by
        frame would else outweigh the drives that were labelled once a second.
    description, licence: sentences for the model card.
    """

    layout: str
    root: str
    train: str = 'train'
    calibration: tuple[str, ...] = ('val',)
    calibration_fraction: float = 0.25
    calibration_blocks: int = 1
    calibration_spacing: int = 0
    selection_fraction: float = 0.1
    description: str = ''
    licence: str = ''

    def __post_init__(self) -> None:
        if self.calibration_blocks < 1 or self.calibration_spacing < 0:
            raise ConfigError(
                f'data calibration_blocks {self.calibration_blocks}, calibration_spacing '
                f'{self.calibration_spacing}: give at least 1 and 0'
            )
        if not self.calibration_fraction and not self.calibration:
            raise ConfigError(
                'data holds nothing to calibrate on: name splits in "calibration", or give a '
                'calibration_fraction above 0'
            )

    def folder(self) -> Path:
        """Return the data set's folder; ConfigError where there is none."""
        candidates = [user_path(self.root)]
        if os.environ.get(DATA_ENV):
            candidates.append(Path(os.environ[DATA_ENV]) / self.root)
        for candidate in candidates:
            if candidate.is_dir():
                return candidate
        raise ConfigError(
            f'data root {self.root!r} is no folder (looked at '
            f'{", ".join(str(c) for c in candidates)}); give --data, or set {DATA_ENV} to the '
            'folder that holds it'
        )


@dataclass
class TrainingData:
    """
    The images of one recipe, and what a frozen backbone gives of them.

    config, source, view, finetuning: the recipe's sections data, backbone, view, finetuning.
    store: where a tuned backbone is kept. cache: converted weights and tokens, None = the user's.
    remote: a folder of an object store that tokens are shared through, see features.extract.
    What is read or computed once is kept.
    """

    config: DataConfig
    source: BackboneConfig
    view: View
    finetuning: FinetuningConfig
    store: Path
    cache: Path | None = None
    remote: Path | None = None
    _lists: dict[str, ImageList] = field(default_factory=dict, init=False, repr=False)
    _tokens: dict[Any, FeatureSet] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def backbone(self) -> Backbone:
        """The frozen backbone, fine-tuned first where the recipe asks for it."""
        backbone = load_backbone(self.source, self.cache)
        if not self.finetuning.epochs:
            return backbone
        tuned = self._tune(backbone)
        settings = {k: v for k, v in asdict(self.finetuning).items() if k != 'seed'}
        record = {**settings, **tuned.report()}
        how = 'fine-tuned again'
        return load_tuned(tuned.folder, backbone, self.source, how, record, self.cache)

    def finetune(self) -> Artifact:
        """Fine-tune (or load) the backbone; ConfigError where the recipe does not ask for it."""
        if not self.finetuning.epochs:
            raise ConfigError('finetuning.epochs is 0: set it, such as --set finetuning.epochs=5')
        return self._tune(load_backbone(self.source, self.cache))

    def _tune(self, backbone: Backbone) -> Artifact:
        """Fine-tune (or load) a backbone on the images that the classifier trains on."""
        images, blocks = self.images.subset(self.split[0]), self.blocks
        parts = [backbone.provenance['weights_sha256'], backbone.normalisation, list(blocks)]
        parts += [content_sha256(images), len(self.class_names), backbone.name]
        parts += [asdict(self.view), asdict(self.finetuning)]
        artifact = Artifact(self.store, 'finetune', digest(parts))

        def fill(target: Path) -> None:
            run = TuningRun(backbone, images, blocks, self.view, self.finetuning)
            done = run.fit(artifact)
            save_tuned(target, backbone)
            losses = [loss for _, loss, _ in done.history]
            write_json(target / REPORT_FILE, {'steps': done.best_step, 'losses': losses})

        return artifact.make(fill)

    @property
    def blocks(self) -> tuple[Layer, ...]:
        """The backbone's blocks that heads read, unless they name more."""
        return self.source.layers

    @cached_property
    def root(self) -> Path:
        """The data set's folder."""
        return self.config.folder()

    @property
    def images(self) -> ImageList:
        """The whole training split, calibration block included."""
        return self.images_of(self.config.train)

    def images_of(self, split: str) -> ImageList:
        """Return the images of a split."""
        if split not in self._lists:
            self._lists[split] = load_images(self.config.layout, self.root, split)
        return self._lists[split]

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the known classes."""
        return self.images.classes.names

    @cached_property
    def split(self) -> tuple[list[int], list[int], list[int]]:
        """Places in the training split: classifier training, epoch selection, calibration."""
        config, images = self.config, self.images
        place = {name: index for index, name in enumerate(images.names)}
        blocks = config.calibration_blocks
        fit, held_out = split_contiguous(images, config.calibration_fraction, blocks=blocks)
        train, select = split_contiguous(fit, config.selection_fraction, True, blocks)
        first, second, third = (
            [place[n] for n in part.names] for part in (train, select, held_out)
        )
        return first, second, third

    def extract(self, images: ImageList, layers: Sequence[Layer] = ()) -> FeatureSet:
        """Extract (or load) the tokens of a list of images; layers: default `blocks`."""
        kept = (self.cache or cache_root()) / 'features'
        blocks = layers or self.blocks
        return extract(images, self.backbone, blocks, self.view, kept, remote=self.remote)

    def features(self, split: str, layers: Sequence[Layer] = ()) -> FeatureSet:
        """Extract (or load) the tokens of a whole split; layers: default `blocks`."""
        key = split, tuple(layers or self.blocks)
        if key not in self._tokens:
            images = self.images_of(split)
            LOG.info('features of %s: %d images', split, len(images))
            self._tokens[key] = self.extract(images, layers)
        return self._tokens[key]

    @property
    def train_features(self) -> FeatureSet:
        """The tokens of the whole training split."""
        return self.features(self.config.train)

    def calibration_features(self, layers: Sequence[Layer] = ()) -> FeatureSet:
        """Return what no fitting has seen, spaced as the recipe asks: what calibrates."""
        held_out, spacing = self._held_out(), self.config.calibration_spacing
        lists = [self.images_of(split).subset(places) for split, places in held_out]
        names, sequences = (
            [one for images in lists for one in getattr(images, field)]
            for field in ('names', 'sequences')
        )
        chosen = spaced_places(names, sequences, spacing)
        if isinstance(self.view, CropView):
            # Nothing else asks for the crops of a split: what calibrates alone is extracted. A
            # crop lies in an image whatever the image's place in the list, unlike the whole.
            return joined([self.extract(one, layers) for one in _parts(lists, chosen)])
        # where nothing of the training split is held out, its tokens may never be needed
        found = [self.features(split, layers) for split, _ in held_out]
        if self.split[2]:
            found[0] = found[0].subset(self.split[2])
        features = joined(found)
        return features.subset(chosen) if spacing else features

    def _held_out(self) -> list[tuple[str, Sequence[int]]]:
        """Return (split, places): the end of every training sequence, then the other splits."""
        config, place = self.config, self.split[2]
        others = [(name, range(len(self.images_of(name)))) for name in config.calibration]
        return [(config.train, place), *others] if place else [*others]

    def cropped(self, crop: ViewSpec) -> TrainingData:
        """Return the same images and the same backbone, seen in a crop of each."""
        return self._with(backbone=self.backbone, _tokens={}, view=self.view.cropped(crop))

    def on(self, config: DataConfig) -> TrainingData:
        """Return other images, seen by the same backbone in the same way."""
        other = replace(self, config=config)
        vars(other)['backbone'] = self.backbone
        return other

    def reading(self, blocks: Sequence[Layer]) -> TrainingData:
        """Return the same images and the same backbone, read at other blocks or named layers."""
        source = replace(self.source, layers=tuple(blocks))  # type: ignore[arg-type]
        return self._with(backbone=self.backbone, source=source)

    def tuned(self, folder: Path, how: str, record: Mapping[str, Any]) -> TrainingData:
        """Return the same images, seen by a backbone that was tuned, see load_tuned."""
        backbone = load_tuned(folder, self.backbone, self.source, how, record, self.cache)
        return self._with(backbone=backbone, _tokens={})

    @property
    def fitted_places(self) -> list[int]:
        """Places in the training split that are fitted on: training and epoch selection."""
        return sorted([*self.split[0], *self.split[1]])

    @property
    def fitted_features(self) -> FeatureSet:
        """The tokens of the images that are fitted on."""
        return self.train_features.subset(self.fitted_places)

    @property
    def fitted_sources(self) -> list[str]:
        """Their sources: what the names of sequences begin with, up to '/'."""
        return [self.images.sequences[i].partition('/')[0] for i in self.fitted_places]

    def _with(self, **changes: Any) -> TrainingData:
        """Return a copy with other attributes; what was loaded or tuned is not made again."""
        other = copy.copy(self)
        vars(other).update(changes)
        return other


def _parts(lists: Sequence[ImageList], chosen: Sequence[int]) -> list[ImageList]:
    """Return of lists laid end to end the images at the chosen places, list by list, no empty."""
    parts, start = [], 0
    for images in lists:
        places = [i - start for i in chosen if start <= i < start + len(images)]
        start += len(images)
        if places:
            parts.append(images.subset(places))
    return parts
