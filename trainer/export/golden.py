# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Golden vectors: what torch answers in float32, for engines to reproduce before they serve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ood_perception.demo.sources import ROAD, SEA
from ood_perception.errors import ConfigError
from ood_perception.image.image_files import read_image

from ..head_module import HeadModule

Array = npt.NDArray[Any]
# Images that a bundle may carry whatever its own data's licence is, by their name in a recipe.
DEMO_IMAGES = {
    'demo_road': (ROAD / 'images' / '06_crate.jpg', ROAD / 'images' / '24_barrel.jpg'),
    'demo_sea': (
        SEA / 'images' / '01_sailing_boat.jpg',
        SEA / 'images' / '02_coast_and_buoy.jpg',
    ),
}


def golden_vectors(
    backbone: nn.Module, head: HeadModule, images: Array, in_distribution: Sequence[str]
) -> dict[str, Array]:
    """
    Return the arrays of golden.npz.

    backbone: as for export_stages. images: uint8 (2, h, w, 3) RGB at network size.
    in_distribution: names of classes that count as normal, among head.compiled_classes.

    Returns image, in_distribution float32 (C,), surprisal float32 and labels uint8 (2, gh, gw).
    """
    unknown = [name for name in in_distribution if name not in head.compiled_classes]
    if unknown or not in_distribution:
        raise ConfigError(
            f'in_distribution {list(in_distribution)}: {unknown or "empty"}; choose among the '
            f'classes of the head: {", ".join(head.compiled_classes)}'
        )
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[::3] != (2, 3):
        raise ConfigError(
            f'golden images are {images.dtype} {images.shape}, expected uint8 (2, h, w, 3)'
        )
    chosen = np.array([name in in_distribution for name in head.compiled_classes], np.float32)
    with torch.no_grad():
        tokens = backbone(torch.from_numpy(images))
        surprisal, labels = head(*tokens, torch.from_numpy(chosen))
    return {
        'image': images,
        'in_distribution': chosen,
        'surprisal': surprisal.numpy(),
        'labels': labels.numpy(),
    }


def demo_images(kind: str) -> list[Array]:
    """Return two of the demo's images, uint8 (H, W, 3) RGB; kind: a key of DEMO_IMAGES."""
    return [read_image(path) for path in DEMO_IMAGES[kind]]
