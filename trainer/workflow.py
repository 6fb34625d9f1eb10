# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The way from a recipe to a bundle, step by step; what was made before is found."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ood_perception import __version__
from ood_perception.bundle.manifest import MANIFEST_NAME, ClassSpec, InputSpec, Manifest
from ood_perception.bundle.manifest_json import read_manifest
from ood_perception.errors import ConfigError
from ood_perception.files import sha256_of
from ood_perception.image.geometry import geometry_for, to_network
from ood_perception.json_files import write_json
from ood_perception.postprocess.calibration import HeldOutSample, arrays_of, sample_of

from .artifacts import Artifact, digest, write_npz
from .calibration.curve_fit import sample_held_out
from .export.golden import DEMO_IMAGES, demo_images
from .export.onnx import export_stages
from .export.pack import SET_CALIBRATION, BundleParts, git_revision, pack_bundle
from .heads import head_fit
from .heads.base import HeadFit
from .recipe import Recipe
from .training_data import TrainingData

LOG = logging.getLogger(__name__)


@dataclass
class Workflow:
    """
    One recipe that runs. Every step calls the ones that it needs.

    folder: of the run. bundle: where the bundle goes (default folder/bundle). store: where all
    else is kept, <kind>-<key> each (default folder): runs that share a store share what they agree
    on. cache: converted weights and tokens, None = the user's. remote: tokens in an object store.
    """

    recipe: Recipe
    folder: Path
    bundle: Path | None = None
    store: Path | None = None
    cache: Path | None = None
    remote: Path | None = None

    @property
    def bundle_folder(self) -> Path:
        """Where the bundle goes."""
        return self.bundle or self.folder / 'bundle'

    @cached_property
    def data(self) -> TrainingData:
        """What the recipe's head is fitted on."""
        recipe, store = self.recipe, self.store or self.folder
        sections = (recipe.data, recipe.backbone, recipe.view, recipe.finetuning)
        return TrainingData(*sections, store=store, cache=self.cache, remote=self.remote)

    @cached_property
    def head_fit(self) -> HeadFit:
        """How the recipe's kind of head is fitted; ConfigError for a recipe that cannot be."""
        recipe, sections, store = self.recipe, self.recipe.head_sections(), self.data.store
        fit = head_fit(recipe.head.kind, self.data, sections, store, recipe.seed)
        fit.check()
        if fit.tunes_backbone and not recipe.bundle.ship_weights:
            raise ConfigError(
                f'this {recipe.head.kind} head tunes the backbone, whose weights can then be had '
                'nowhere else: set bundle.ship_weights to true'
            )
        return fit

    def finetune(self) -> Artifact:
        """Fine-tune (or load) the backbone; ConfigError where the recipe does not ask for it."""
        return self.data.finetune()

    def fit(self) -> Artifact:
        """Fit (or load) all that the head learns."""
        return self.head_fit.fitted

    def calibrate(self) -> Artifact:
        """Fit (or load) the held-out tables of the head that is served."""
        return self.head_fit.calibrated

    def held_out_sample(self) -> HeldOutSample:
        """Draw (or load) the held-out sample that tables of sets of classes are fitted on."""
        names, seed, fit = self.data.class_names, self.recipe.seed, self.head_fit
        calibrated, features = self.calibrate(), fit.calibration_features
        key = digest([calibrated.key, features.key, names, seed, *self._views_key()])

        def fill(target: Path) -> None:
            views = fit.calibration_views
            sample = sample_held_out(fit.head(), features, names, views=views, seed=seed)
            write_npz(target / SET_CALIBRATION, arrays_of(sample))

        artifact = Artifact(self.data.store, 'sets', key).make(fill)
        with np.load(artifact.folder / SET_CALIBRATION, allow_pickle=False) as arrays:
            return sample_of(arrays)

    def _views_key(self) -> list[Any]:
        """Return what the held-out sample of a bundle with views depends on, [] without views."""
        views = [asdict(view) for view in self.recipe.view.views]
        return [*views, 'apart'] if views else []

    def export(self) -> Artifact:
        """Write (or load) the ONNX stages with all weights."""
        size = self.recipe.view.size
        key = digest([self.calibrate().key, list(size)])

        def fill(target: Path) -> None:
            head, backbone = self.head_fit.head(), self.head_fit.served.backbone
            export_stages(backbone.baked(*size, head.layers), head, target, size)

        return Artifact(self.data.store, 'export', key).make(fill)

    def pack(self) -> Manifest:
        """Write (or load) the bundle."""
        path, recipe, calibrated = self.bundle_folder, self.recipe, self.calibrate()
        classes = self.data.images.classes
        parts = [calibrated.key, recipe.sha256(), classes.names, classes.colors]
        key = digest([*parts, __version__, SET_CALIBRATION, *self._views_key()])
        note, manifest = self.folder / 'pack.json', path / MANIFEST_NAME
        if note.is_file() and manifest.is_file():
            packed = json.loads(note.read_text())
            if packed == {'key': key, 'manifest': sha256_of(manifest)}:
                LOG.info('bundle %s is up to date', path)
                return read_manifest(manifest)
        result = self._write(path)
        write_json(note, {'key': key, 'manifest': sha256_of(manifest)})
        return result

    def _write(self, path: Path) -> Manifest:
        """Write the bundle, over an old one."""
        recipe, fit = self.recipe, self.head_fit
        # the paper's curves assume a Gaussian: they are shipped as they are, for reproduction
        served_by_count = recipe.head.calibration == 'held-out'
        parts = BundleParts(
            fit.served.backbone,
            fit.head(),
            self._golden_images(),
            self._stated(),
            ' '.join(f'{d.description} Licence: {d.licence}.' for d in recipe.all_data()),
            # tuned weights can be had nowhere else
            ship_weights=recipe.bundle.ship_weights or bool(recipe.finetuning.epochs),
            weights='f16' if recipe.head.half_weights else 'f32',
            held_out=self.held_out_sample() if served_by_count else None,
        )
        return pack_bundle(path, parts, overwrite=True)

    def _golden_images(self) -> npt.NDArray[np.uint8]:
        """Return uint8 (2, h, w, 3): the golden inputs."""
        kind, view, anchor = self.recipe.bundle.golden, self.data.view, self.recipe.bundle.anchor
        images = demo_images(kind) if kind in DEMO_IMAGES else self._calibration_images()
        shapes = [(int(image.shape[0]), int(image.shape[1])) for image in images]
        return np.stack(
            [
                to_network(image, geometry_for(shape, view.size, view.policy, anchor))
                for image, shape in zip(images, shapes, strict=True)
            ]
        )

    def _calibration_images(self) -> list[npt.NDArray[np.uint8]]:
        """Return the first and the last image that the calibration sees, each (H, W, 3)."""
        data, held_out = self.data, self.data.split[2]
        images = data.images if held_out else data.images_of(data.config.calibration[0])
        places = held_out or range(len(images))
        return [images.read(places[i])[0] for i in (0, -1)]

    def _stated(self) -> Manifest:
        """Return the manifest as far as recipe and data say it, see BundleParts."""
        recipe, classes, view = self.recipe, self.data.images.classes, self.recipe.view
        for option in ('in_distribution', 'ground_classes'):
            wrong = [n for n in getattr(recipe.bundle, option) if n not in classes.names]
            if wrong:
                raise ConfigError(
                    f'bundle {option} {wrong}: no such class; known are {", ".join(classes.names)}'
                )
        facts = self.head_fit.facts()
        origin = {
            'ood_perception': __version__,
            'revision': git_revision(Path(__file__).parent),
            'command': 'python -m trainer train <recipe>',
            'recipe': recipe.portable(),
            'recipe_sha256': recipe.sha256(),
        }
        patch, anchor = self.head_fit.served.backbone.patch, recipe.bundle.anchor
        return Manifest(
            name=recipe.name,
            input=InputSpec(*view.size, patch, view.policy, anchor, view.views),
            stages=(),
            heads=(),
            files={},
            classes=tuple(
                ClassSpec(name, color, name in facts.modelled)
                for name, color in zip(classes.names, classes.colors, strict=True)
            ),
            in_distribution=recipe.bundle.in_distribution or tuple(facts.modelled),
            ground_classes=recipe.bundle.ground_classes,
            calibration=facts.calibration,
            provenance={**origin, **facts.provenance},
            licences=tuple(
                f'Training images: {d.licence}' for d in recipe.all_data() if d.licence
            ),
        )
