# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A CamVid tree in miniature."""

from pathlib import Path

import cv2
import numpy as np


def write_pair(image: Path, label: Path, ids: np.ndarray, seed: int = 0) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (*ids.shape, 3), dtype=np.uint8)
    for path, content in ((image, pixels), (label, ids)):
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), content)


def write_camvid(root: Path, split: str = 'train', counts: dict[str, int] | None = None) -> Path:
    for sequence, count in (counts or {'0001TP': 4, '0006R0': 8}).items():
        for index in range(count):
            name = f'{sequence}_{index:05d}'
            ids = np.full((12, 16), index % 12, np.uint8)
            image = root / split / 'images' / f'{name}.png'
            write_pair(image, root / split / 'labels' / f'{name}.png', ids, index)
    return root
