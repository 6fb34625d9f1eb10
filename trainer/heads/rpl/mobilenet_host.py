# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""RPL on a DeepLabV3+ with a MobileNetV2 trunk, trained closed-set first: the embedded anchor."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from ...artifacts import Artifact
from ...backbones.mobilenet import FINE, TRUNK, MobileNetV2, load_mobilenet
from ...data.images import PictureList
from ...features import FeatureSet, View
from ...nets.deeplab import DeepLabHost, DeepLabShape, scaled_dilations
from ...training.segmenter import fit_segmenter
from ...training_data import TrainingData
from .block import ResidualBlock, deeplab_block
from .fit import RplFit
from .host_features import host_features

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
            TRUNK,
            FINE,
            upsampling,
            classes,
            self.width,
            self.fine_width,
            dilations,
        )


class MobileNetFit(RplFit):
    """
    Host and block on cached maps of the frozen trunk; the recipe's splits, mixes and schedules.

    It is fitted, not packed: a bundle's backbone is a ViT.
    """

    def __init__(
        self,
        data: TrainingData,
        sections: Mapping[str, Any],
        store: Path,
        seed: int,
        mobilenet: MobileNetConfig | None = None,
    ) -> None:
        """Take what RplFit takes, and the host's sizes."""
        super().__init__(data, sections, store, seed)
        self.mobilenet = mobilenet or MobileNetConfig()

    @cached_property
    def trunk(self) -> MobileNetV2:
        """The frozen trunk."""
        return load_mobilenet(self.mobilenet.output_stride)

    @property
    def view(self) -> View:
        """How pictures are brought to the trunk."""
        height, width = self.mobilenet.size
        return replace(self.data.view, height=height, width=width)

    def extract(self, pictures: PictureList) -> FeatureSet:
        """Compute (or find) the trunk's maps of a list of pictures."""
        folder = self.data.features_folder.with_name('hosts')
        return host_features(pictures, self.trunk, self.view, folder, self.data.progress)

    @cached_property
    def fitted_host(self) -> Artifact:
        """The closed-set network, trained on the training pictures or found."""
        data, config = self.data, replace(self.closed_set.config, steps=self.mobilenet.steps)
        train, select, _ = data.split
        known, chosen = (self.extract(data.pictures.subset(part)) for part in (train, select))
        shape = self.mobilenet.shape(len(data.class_names))

        def fill(target: Path, artifact: Artifact) -> Mapping[str, Any]:
            with torch.random.fork_rng():
                torch.manual_seed(config.seed)
                model = DeepLabHost(shape)
            training = fit_segmenter(
                known,
                chosen,
                model.layers,
                shape.classes,
                config,
                artifact=artifact,
                progress=data.progress,
                model=model,
            )
            save_host(target / HOST_FILE, training.model)
            best = max(look[2] for look in training.history)
            return {**training.report(), 'selection_mean_iou': best}

        return self.made('host', (known.key, chosen.key, asdict(shape), asdict(config)), fill)

    def host(self) -> DeepLabHost:
        """Return the fitted network."""
        return load_host(self.fitted_host.folder / HOST_FILE)

    def start(self) -> ResidualBlock:
        """Return a block that starts from the host's ASPP."""
        return deeplab_block(self.host())


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
