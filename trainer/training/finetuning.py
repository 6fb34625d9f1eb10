# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Fine-tuning the backbone while a patch classifier trains on it (PixOOD, section IV-E, "ft").

Learning rate 1e-6 with a cosine, as published for boats. Only what the chosen layers need is
tuned; class token, registers and position embedding are constants of the baked graph and stay.
The classifier that trains along is thrown away: the stages behind begin anew on the tuned tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from ood_perception.errors import ConfigError

from ..artifacts import Artifact
from ..backbones import load_backbone
from ..backbones.base import Backbone, BackboneChoice
from ..data.images import ImageList
from ..features import View, network_image
from ..nets.patch_classifier import Classifier, Sized, Upsampler
from .loop import EpochRun, Trained, cosine, cross_entropy_sum

WEIGHTS_FILE = 'backbone.safetensors'


@dataclass(frozen=True)
class FinetuningConfig:
    """
    How the backbone is tuned.

    epochs: passes over the training images, 0 = the backbone stays frozen.
    learning_rate: of the backbone; classifier_learning_rate: of the classifier that trains along.
        Both fall to 0 along a cosine, step by step.
    batch, pixel_step, weight_decay, hidden: as for the classifier (see ClassifierConfig).
    """

    epochs: int = 0
    learning_rate: float = 1e-6
    classifier_learning_rate: float = 1e-4
    batch: int = 2
    pixel_step: int = 4
    weight_decay: float = 5e-4
    hidden: int = 0
    seed: int = 42

    def __post_init__(self) -> None:
        if self.epochs < 0 or min(self.batch, self.pixel_step) < 1 or self.learning_rate <= 0:
            raise ConfigError(
                f'finetuning epochs {self.epochs}, batch {self.batch}, pixel_step '
                f'{self.pixel_step}, learning_rate {self.learning_rate}: give epochs of at least '
                '0, the others above 0'
            )


class TuningRun(EpochRun):
    """
    A run of a backbone, which is tuned in place and left frozen, and of a classifier on it.

    layers: that the classifier reads.
    """

    name = 'fine-tuning'

    def __init__(
        self,
        backbone: Backbone,
        images: ImageList,
        layers: Sequence[int | str],
        view: View,
        config: FinetuningConfig,
    ) -> None:
        self.config, self.view, self.list, self.backbone = config, view, images, backbone
        self.baked = backbone.baked(*view.size, layers).requires_grad_(True)
        names = [str(layer) for layer in layers]
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            classes = len(images.classes.names)
            width = sum(backbone.width(layer) for layer in layers)
            self.classifier = Classifier(width, classes, names, 'mlp', config.hidden)
        parts = {'backbone': self.baked, 'classifier': self.classifier}
        rates = (config.learning_rate, config.classifier_learning_rate)
        groups = [
            {'params': list(part.parameters()), 'rate': rate}
            for part, rate in zip(parts.values(), rates, strict=True)
        ]
        optimizer = torch.optim.AdamW(groups, weight_decay=config.weight_decay)
        super().__init__(nn.ModuleDict(parts), len(images), config, optimizer)
        self.upsampler = Upsampler(Sized(*view.size, backbone.patch), config.pixel_step)

    def fit(self, artifact: Artifact | None = None) -> Trained:
        """Tune to the end, see TrainingRun.fit; a look ends each epoch."""
        try:
            return super().fit(artifact)
        finally:
            self.backbone.requires_grad_(False).eval()

    def rate_factor(self) -> float:
        """Return the cosine of the step."""
        return cosine(self.step, self.schedule.steps)

    def loss(self, indices: Sequence[int], row: int, column: int) -> torch.Tensor:
        """Return the mean cross-entropy over the batch's labelled pixels (0 without any)."""
        self.baked.eval()
        views = [network_image(self.list, index, self.view) for index in indices]
        images = torch.from_numpy(np.stack([image for image, _ in views]))
        step = self.config.pixel_step
        labels = np.stack([label[row::step, column::step] for _, label in views])
        logits = self.classifier(torch.cat(self.baked(images), 3))
        flat = self.upsampler(logits, row, column).reshape(-1, logits.shape[-1])
        target = torch.from_numpy(labels.reshape(-1).astype(np.int64))
        total, count = cross_entropy_sum(flat, target)
        return total / max(count, 1)


def save_tuned(folder: Path, backbone: Backbone) -> None:
    """Write a tuned backbone's weights, as load_tuned reads them."""
    tensors = {name: value.contiguous() for name, value in backbone.model.state_dict().items()}
    save_file(tensors, folder / WEIGHTS_FILE)


def load_tuned(
    folder: Path,
    origin: Backbone,
    choice: BackboneChoice,
    how: str,
    record: Mapping[str, Any],
    cache: Path | None = None,
) -> Backbone:
    """
    Load a tuned backbone; its provenance says what it was tuned from, and how.

    how: ends its description. record: of the tuning, JSON values. Its weights have no origin that
    they could be completed from: a bundle has to ship them.
    """
    source = replace(choice, weights=str(folder / WEIGHTS_FILE))
    tuned = load_backbone(source, cache)
    tuned.licence = origin.licence
    kept = {name: value for name, value in origin.provenance.items() if name != 'path'}
    tuned.provenance |= {
        'origin': {},
        'description': f'{kept.get("description", origin.name)}, {how}',
        'finetuned': {**record, 'from': kept},
    }
    return tuned
