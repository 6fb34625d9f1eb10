# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Frozen networks that give features, by name, and their weights."""

from __future__ import annotations

from pathlib import Path

from .base import Backbone, BackboneChoice
from .convolutional import ConvolutionalBackbone
from .vit import load_vit
from .weights import Weights, content_sha256, load_weights, locate_weights, read_tensors


def load_backbone(choice: BackboneChoice, cache: Path | None = None) -> Backbone:
    """
    Load a frozen backbone.

    cache: folder for converted weights (default: see ood_perception.files.cache_root).
    Raises the errors of weights.locate_weights, and DataError for a file that is not that
    network's.
    """
    backbone: Backbone
    if choice.name == 'vit':
        weights = load_weights(choice.weights, cache)
        backbone = load_vit(weights, choice)
    else:
        path, origin = locate_weights(choice.weights)
        backbone = ConvolutionalBackbone(choice)
        taken = backbone.fill(read_tensors(path), path)
        weights = Weights(taken, content_sha256(taken), origin, path)
    backbone.licence = str(weights.origin['licence'])
    backbone.provenance = {
        'backbone': backbone.name,
        'description': weights.origin.get('description', ''),
        'weights_sha256': weights.sha256,
        'origin': weights.origin,
        'path': str(weights.path),
    }
    return backbone
