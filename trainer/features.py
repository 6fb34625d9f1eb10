# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Patch tokens of a frozen backbone for a list of pictures, in a memory-mapped on-disk cache."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class FeatureSet:
    """
    Tokens and labels of one list of pictures at one network resolution.

    names: picture names, n of them.
    tokens: layer name ('tokens_11') -> float16 (n, gh, gw, D), memory-mapped.
    labels: uint8 (n, h, w) at network resolution, class ids, 255 = ignored (void, padding),
        memory-mapped; nearest-resized by ood_perception.geometry.
    height, width, patch: h, w and the patch size; gh = h / patch, gw = w / patch.
    key: sha256 of everything that the tokens depend on.
    """

    names: tuple[str, ...]
    tokens: dict[str, npt.NDArray[np.float16]]
    labels: npt.NDArray[np.uint8]
    height: int
    width: int
    patch: int
    key: str
