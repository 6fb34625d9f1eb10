# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Sliding-window inference at a picture's own resolution (UEM, section 5 of its facts).

Maps of overlapping windows are upsampled to pixels and averaged. Every pixel is covered: the last
window of an axis ends at the border, and a picture smaller than a window is padded to one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch.nn import functional

from ood_perception.errors import ConfigError
from ood_perception.types import UInt8Array

Maps = Callable[[UInt8Array], torch.Tensor]


@dataclass(frozen=True)
class SlidingSettings:
    """Height and width in pixels of a window, and how far it moves (defaults: UEM's)."""

    window: tuple[int, int] = (518, 1036)
    stride: tuple[int, int] = (140, 140)

    def __post_init__(self) -> None:
        if min(self.window) < 1 or min(self.stride) < 1:
            raise ConfigError(
                f'sliding window {self.window}, stride {self.stride}: give at least 1'
            )
        if any(s > w for s, w in zip(self.stride, self.window, strict=True)):
            raise ConfigError(
                f'sliding stride {self.stride} leaves gaps between windows {self.window}: '
                'give at most the window'
            )


def positions(size: int, window: int, stride: int) -> list[int]:
    """
    Return the first pixels of the windows along an axis of `size` pixels.

    They are `stride` apart; the last window ends at the border, so its step may be smaller.
    """
    if size <= window:
        return [0]
    return [*range(0, size - window, stride), size - window]


def windows(size: tuple[int, int], settings: SlidingSettings) -> Iterator[tuple[slice, slice]]:
    """Yield rows and columns of every window of a picture of (H, W), at least a window large."""
    for top in positions(size[0], settings.window[0], settings.stride[0]):
        for left in positions(size[1], settings.window[1], settings.stride[1]):
            yield (
                slice(top, top + settings.window[0]),
                slice(left, left + settings.window[1]),
            )


@torch.inference_mode()
def sliding_maps(image: UInt8Array, maps: Maps, settings: SlidingSettings) -> torch.Tensor:
    """
    Return the averaged maps of a picture, float32 (H, W, C).

    image: uint8 (H, W, 3) RGB. maps: of one window, uint8 (1, h, w, 3) -> float (1, gh, gw, C), of
    any grid. A smaller picture is padded with its border pixels at the bottom and on the right.
    """
    height, width = image.shape[:2]
    below, right = (
        max(wanted - side, 0)
        for wanted, side in zip(settings.window, (height, width), strict=True)
    )
    padded = cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_REPLICATE)
    total, count = None, torch.zeros((*padded.shape[:2], 1))
    for place in windows((padded.shape[0], padded.shape[1]), settings):
        grid = maps(np.ascontiguousarray(padded[place])[None]).float().permute(0, 3, 1, 2)
        fine = functional.interpolate(grid, settings.window, mode='bilinear', align_corners=False)
        if total is None:
            total = torch.zeros((*padded.shape[:2], fine.shape[1]))
        total[place] += fine[0].permute(1, 2, 0)
        count[place] += 1
    assert total is not None  # there is at least one window
    return (total / count)[:height, :width]
