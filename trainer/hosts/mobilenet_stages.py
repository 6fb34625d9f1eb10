# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""RPL on a DeepLabV3+ with a MobileNetV2 trunk, trained closed-set first: the embedded anchor."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file

from ..artefacts import REPORT_FILE, artefact, write_json
from ..aspp import scaled_dilations
from ..config import digest
from ..data import PictureList
from ..features import FeatureSet, View
from ..heads.rpl_block import ResidualBlock
from ..heads.rpl_stages import RplStages
from ..segmenter_training import fit_segmenter
from .deeplab import DeepLabHost, DeepLabShape
from .host_features import host_features
from .mobilenet import FINE, TRUNK, MobileNetV2, load_mobilenet

if TYPE_CHECKING:
    from ..stages import Trainer

HOST_FILE = 'host.safetensors'


@dataclass(frozen=True)
class MobileNetConfig:
    """
    The host.

    size: (h, w) of the network's input, multiples of output_stride. width, fine_width: see
    DeepLabShape. steps: of its closed-set training, the rest as recipe.segmenter says.
    """

    size: tuple[int, int] = (384, 672)
    output_stride: int = 16
    width: int = 128
    fine_width: int = 48
    steps: int = 600

    def shape(self, classes: int) -> DeepLabShape:
        """Return the decoder's sizes; dilations keep the share of the picture, see aspp."""
        dilations = scaled_dilations(self.size[0] // self.output_stride)
        upsampling = self.output_stride // 4
        return DeepLabShape(
            *(TRUNK, FINE, upsampling, classes, self.width, self.fine_width), dilations
        )


class MobileNetStages(RplStages):
    """
    Host and block on cached maps of the frozen trunk; the recipe's splits, mixes and schedules.

    It is fitted, not packed: a bundle's backbone is a ViT.
    """

    def __init__(
        self, trainer: Trainer, config: MobileNetConfig, folder: Path, seed: int | None = None
    ) -> None:
        """Take a trainer; folder: of the host, which blocks of one seed share."""
        super().__init__(trainer, folder, seed)
        self.mobilenet = config

    @cached_property
    def trunk(self) -> MobileNetV2:
        """The frozen trunk."""
        return load_mobilenet(self.mobilenet.output_stride)

    @property
    def _view(self) -> View:
        return replace(super()._view, size=self.mobilenet.size)

    def maps(self, pictures: PictureList, view: View) -> FeatureSet:
        """Compute (or find) the trunk's maps of a list of pictures."""
        folder = self.trainer.features_folder.with_name('hosts')
        return host_features(pictures, self.trunk, view, folder, self.trainer.progress)

    def _features(self, pictures: PictureList) -> FeatureSet:
        return self.maps(pictures, self._view)

    def host(self) -> DeepLabHost:
        """Train (or find) the closed-set network on the training pictures."""
        trainer, folder = self.trainer, self.segmenter_folder
        config = replace(self.segmenter_config, steps=self.mobilenet.steps)
        train, select, _ = trainer.split
        known, chosen = (
            self._features(trainer.train_pictures.subset(part)) for part in (train, select)
        )
        shape = self.mobilenet.shape(len(trainer.class_names))
        key = digest([known.key, chosen.key, asdict(shape), asdict(config)])

        def make(target: Path) -> None:
            with torch.random.fork_rng():
                torch.manual_seed(config.seed)
                model = DeepLabHost(shape)
            training = fit_segmenter(
                *(known, chosen, model.layers, shape.classes, config),
                checkpoint=folder.with_suffix('.ckpt'),
                progress=trainer.progress,
                model=model,
            )
            save_host(target / HOST_FILE, training.segmenter)
            best = max(look[2] for look in training.history)
            report = {'best_step': training.best_step, 'history': training.history}
            write_json(target / REPORT_FILE, {**report, 'selection_mean_iou': best})

        artefact(folder, key, make)
        return load_host(folder / HOST_FILE)

    def _start(self) -> ResidualBlock:
        return self.host().block()


def save_host(path: Path, host: DeepLabHost) -> None:
    """Write a host as safetensors; its shape is in the metadata."""
    tensors = {name: value.contiguous() for name, value in host.state_dict().items()}
    save_file(tensors, path, metadata={'shape': json.dumps(asdict(host.shape))})


def load_host(path: Path) -> DeepLabHost:
    """Read what save_host wrote."""
    from safetensors import safe_open

    with safe_open(path, framework='pt') as stream:
        values = json.loads(stream.metadata()['shape'])
    host = DeepLabHost(DeepLabShape(**{**values, 'dilations': tuple(values['dilations'])}))
    host.load_state_dict(load_file(path))
    return host.requires_grad_(False).eval()
