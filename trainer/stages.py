# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The stages from pictures to a bundle; each leaves a folder with the key of what it came from."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ood_perception import __version__
from ood_perception.bundle.cache import cache_root, sha256_of
from ood_perception.bundle.manifest import MANIFEST_NAME, ClassSpec, Manifest
from ood_perception.bundle.reading import read_manifest
from ood_perception.calibration import HeldOutSample, arrays_of, sample_of
from ood_perception.errors import ConfigError
from ood_perception.geometry import geometry_for, to_network

from .artefacts import REPORT_FILE, artefact, key_of, write_json
from .backbones import Backbone, BackboneChoice, load_backbone
from .config import Recipe, digest
from .data import PictureList, content_sha256, split_contiguous
from .datasets import load_pictures
from .export import export_stages
from .features import FeatureSet, View, extract, joined
from .finetuning import finetune, load_tuned, save_tuned
from .golden import DEMO_PICTURES, demo_pictures, write_npz
from .heads import head_stages
from .heads.base import HeadModule, HeadStages
from .layers import Layer
from .pack import SET_CALIBRATION, BundleText, git_revision, pack_bundle
from .set_calibration import sample_held_out
from .spacing import spaced_places

LOG = logging.getLogger(__name__)


@dataclass
class Trainer:
    """
    One recipe at work. Every stage calls the ones that it needs.

    folder: where artefacts go. bundle: where the bundle goes (default folder/bundle).
    cache: converted weights and tokens. progress: show bars.
    """

    recipe: Recipe
    folder: Path
    bundle: Path | None = None
    cache: Path | None = None
    progress: bool = True

    @cached_property
    def backbone(self) -> Backbone:
        """The frozen backbone, fine-tuned first where the recipe asks for it."""
        config = self.recipe.backbone
        choice = BackboneChoice(config.weights, config.mean, config.std)  # type: ignore[arg-type]
        backbone = load_backbone(choice, self.cache)
        return self._tuned(backbone, choice) if self.recipe.finetuning.epochs else backbone

    def _tuned(self, backbone: Backbone, choice: BackboneChoice) -> Backbone:
        """Fine-tune (or find) the backbone on the pictures that the classifier trains on."""
        recipe, folder = self.recipe, self.folder / 'finetune'
        pictures = self.train_pictures.subset(self.split[0])
        parts = [backbone.provenance['weights_sha256'], content_sha256(pictures)]
        settings = [list(recipe.backbone.layers), asdict(recipe.view), asdict(recipe.finetuning)]
        key = digest([*parts, *settings])

        def make(target: Path) -> None:
            done = finetune(
                *(backbone, pictures, recipe.backbone.layers, self.view, recipe.finetuning),
                checkpoint=self.folder / 'finetune.ckpt',
                key=key,
                progress=self.progress,
            )
            save_tuned(target, backbone)
            write_json(target / REPORT_FILE, asdict(done))

        artefact(folder, key, make)
        return load_tuned(folder, backbone, choice, recipe.finetuning, self.cache)

    def finetune(self) -> Backbone:
        """Fine-tune (or find) the backbone; ConfigError where the recipe does not ask for it."""
        if not self.recipe.finetuning.epochs:
            raise ConfigError('finetuning.epochs is 0: set it, such as --set finetuning.epochs=5')
        return self.backbone

    @cached_property
    def train_pictures(self) -> PictureList:
        """The whole training split, calibration block included."""
        data = self.recipe.data
        return load_pictures(data.layout, self.recipe.data_root(), data.train)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the known classes."""
        return self.train_pictures.classes.names

    @cached_property
    def split(self) -> tuple[list[int], list[int], list[int]]:
        """Places in the training split: classifier training, epoch selection, calibration."""
        data, pictures = self.recipe.data, self.train_pictures
        place = {name: index for index, name in enumerate(pictures.names)}
        blocks = data.calibration_blocks
        fit, held_out = split_contiguous(pictures, data.calibration_fraction, blocks=blocks)
        train, select = split_contiguous(fit, data.selection_fraction, True, blocks)
        first, second, third = (
            [place[n] for n in part.names] for part in (train, select, held_out)
        )
        return first, second, third

    def features(self, split: str, layers: Sequence[Layer] = ()) -> FeatureSet:
        """Extract (or find) the tokens of a whole split; layers: default backbone.layers."""
        root = self.recipe.data_root()
        pictures = load_pictures(self.recipe.data.layout, root, split)
        LOG.info('features of %s: %d pictures', split, len(pictures))
        layers = layers or self.recipe.backbone.layers
        folder, bar = self.features_folder, self.progress
        return extract(pictures, self.backbone, layers, self.view, folder, progress=bar)

    @property
    def view(self) -> View:
        """How pictures are brought to the network."""
        view = self.recipe.view
        return View((view.height, view.width), view.policy, view.anchors, view.precision)

    @property
    def features_folder(self) -> Path:
        """Where tokens are kept."""
        return (self.cache or cache_root()) / 'features'

    @cached_property
    def train_features(self) -> FeatureSet:
        """The tokens of the whole training split."""
        return self.features(self.recipe.data.train)

    @cached_property
    def calibration_features(self) -> FeatureSet:
        """What no fitting has seen, spaced as the recipe asks: what calibrates."""
        features, sequences = self.held_out()
        spacing = self.recipe.data.calibration_spacing
        if not spacing:
            return features
        return features.subset(spaced_places(features.names, sequences, spacing))

    def held_out(self) -> tuple[FeatureSet, list[str]]:
        """Return the end of every training sequence and the other splits, with their sequences."""
        data, layers, root = self.recipe.data, self.stages.layers, self.recipe.data_root()
        place, splits = self.split[2], [self.features(s, layers) for s in data.calibration]
        # where nothing of the training split is held out, its tokens may never be needed
        held_out = [self.features(data.train, layers).subset(place)] if place else []
        lists = [load_pictures(data.layout, root, split).sequences for split in data.calibration]
        mine = [self.train_pictures.sequences[i] for i in place]
        return joined([*held_out, *splits]), [*mine, *(name for part in lists for name in part)]

    @cached_property
    def stages(self) -> HeadStages:
        """The stages of the recipe's kind of head, its files beside the data set checked."""
        stages = head_stages(self.recipe.head.kind)(self)
        stages.check()
        return stages

    def fit(self) -> Any:
        """Fit (or find) all that the head learns."""
        return self.stages.fit()

    def calibrate(self) -> Any:
        """Fit (or find) the held-out tables of the head that is served."""
        return self.stages.calibrate()

    def head(self) -> HeadModule:
        """Return the calibrated head."""
        return self.stages.head()

    def held_out_sample(self) -> HeldOutSample:
        """Draw (or find) the held-out sample that tables of sets of classes are fitted on."""
        head, folder = self.head(), self.folder / 'sets'
        features = self.calibration_features
        key = digest([key_of(self.folder / 'calibrate'), features.key, self.class_names])

        def make(target: Path) -> None:
            sample = sample_held_out(
                *(head, features, self.class_names), seed=self.recipe.seed, progress=self.progress
            )
            write_npz(target / SET_CALIBRATION, arrays_of(sample))

        artefact(folder, key, make)
        with np.load(folder / SET_CALIBRATION, allow_pickle=False) as arrays:
            return sample_of(arrays)

    def export(self) -> Path:
        """Write (or find) the ONNX stages with all weights; return their folder."""
        head, folder = self.head(), self.folder / 'export'
        size = (self.recipe.view.height, self.recipe.view.width)
        key = digest([key_of(self.folder / 'calibrate'), list(size)])

        def make(target: Path) -> None:
            export_stages(self.backbone.baked(*size, head.layers), head, target, size)

        artefact(folder, key, make)
        return folder

    def pack(self) -> Manifest:
        """Write (or find) the bundle."""
        path = self.bundle or self.folder / 'bundle'
        self.calibrate()
        parts = [key_of(self.folder / 'calibrate'), self.recipe.sha256(), __version__]
        key = digest([*parts, SET_CALIBRATION])
        note, manifest = self.folder / 'pack.json', path / MANIFEST_NAME
        if note.is_file() and manifest.is_file():
            packed = json.loads(note.read_text())
            if packed == {'key': key, 'manifest': sha256_of(manifest)}:
                LOG.info('bundle %s is up to date', path)
                return read_manifest(manifest)
        # the paper's tables promise by a Gaussian: they are shipped as they are, for reproduction
        served_by_count = self.recipe.head.calibration == 'held-out'
        result = pack_bundle(
            *(path, self.backbone, self.head(), self._golden_pictures(), self._text()),
            held_out=self.held_out_sample() if served_by_count else None,
            # tuned weights can be had nowhere else
            ship_weights=self.recipe.bundle.ship_weights or bool(self.recipe.finetuning.epochs),
            weights='f16' if self.recipe.head.half_weights else 'f32',
            overwrite=True,
        )
        write_json(note, {'key': key, 'manifest': sha256_of(manifest)})
        return result

    def _golden_pictures(self) -> npt.NDArray[np.uint8]:
        """Return uint8 (2, h, w, 3): the golden inputs."""
        kind = self.recipe.bundle.golden
        known = kind in DEMO_PICTURES
        pictures = demo_pictures(kind) if known else self._calibration_pictures()
        return np.stack([self._to_network(picture) for picture in pictures])

    def _calibration_pictures(self) -> list[npt.NDArray[np.uint8]]:
        """Return the first and the last picture that the calibration sees, each (H, W, 3)."""
        data, held_out = self.recipe.data, self.split[2]
        if held_out:
            return [self.train_pictures.read(i)[0] for i in (held_out[0], held_out[-1])]
        pictures = load_pictures(data.layout, self.recipe.data_root(), data.calibration[0])
        return [pictures.read(i)[0] for i in (0, len(pictures) - 1)]

    def _to_network(self, picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        view = self.recipe.view
        camera = (int(picture.shape[0]), int(picture.shape[1]))
        anchor = self.recipe.bundle.anchor
        return to_network(
            picture, geometry_for(camera, (view.height, view.width), view.policy, anchor)
        )

    def _text(self) -> BundleText:
        """Return what the bundle says of itself."""
        recipe, classes = self.recipe, self.train_pictures.classes
        for option in ('in_distribution', 'ground_classes'):
            wrong = [n for n in getattr(recipe.bundle, option) if n not in classes.names]
            if wrong:
                raise ConfigError(
                    f'bundle {option} {wrong}: no such class; known are {", ".join(classes.names)}'
                )
        facts = self.stages.facts()
        return BundleText(
            name=recipe.name,
            classes=tuple(
                ClassSpec(name, color, name in facts.modelled)
                for name, color in zip(classes.names, classes.colors, strict=True)
            ),
            in_distribution=recipe.bundle.in_distribution or tuple(facts.modelled),
            ground_classes=recipe.bundle.ground_classes,
            data=f'{recipe.data.description} Licence: {recipe.data.licence}.',
            policy=recipe.view.policy,
            anchor=recipe.bundle.anchor,
            calibration=facts.calibration,
            provenance={**self._provenance(), **facts.provenance},
            licences=(f'Training pictures: {recipe.data.licence}',) if recipe.data.licence else (),
        )

    def _provenance(self) -> dict[str, object]:
        """Return where the bundle comes from, the same in every run of a revision."""
        return {
            'ood_perception': __version__,
            'revision': git_revision(Path(__file__).parent),
            'command': 'python -m trainer train <recipe>',
            'recipe': self.recipe.portable(),
            'recipe_sha256': self.recipe.sha256(),
        }
