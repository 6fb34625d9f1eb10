# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Tiny images and label files for miniatures of published data sets."""

from __future__ import annotations

import functools
from pathlib import Path

import cv2
import numpy as np

HEIGHT, WIDTH = 6, 8


@functools.cache
def _encoded(suffix: str, seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    return cv2.imencode(suffix, pixels)[1].tobytes()


@functools.cache
def _label(ids: tuple[int, ...], shape: tuple[int, int]) -> bytes:
    return cv2.imencode('.png', np.resize(np.array(ids, np.uint8), shape))[1].tobytes()


def write_image(path: Path, seed: int = 0) -> Path:
    """Write an image of HEIGHT x WIDTH in the form that its suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_encoded(path.suffix, seed))
    return path


def write_label(path: Path, *ids: int, shape: tuple[int, int] = (HEIGHT, WIDTH)) -> Path:
    """Write a grey PNG in which the ids take turns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_label(ids or (0,), shape))
    return path


def values(labels: np.ndarray) -> set[int]:
    """Return the ids that a label map holds."""
    return {int(v) for v in np.unique(labels)}
