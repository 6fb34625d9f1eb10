# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Miniatures of data sets that users own, large enough to be trained on: classes side by side."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

SIDE = 56
GOOSE_TABLE = """class_name,label_key,has_instance,hex
undefined,0,0,#000000
ego_vehicle,8,0,#ffdbe5
sidewalk,21,0,#3b5dff
asphalt,23,0,#ff2f80
soil,31,0,#d16100
sky,53,0,#b77b68
outlier,56,0,#000000
"""
COMMA_ROAD, COMMA_REST = (64, 32, 32), (128, 128, 96)


def _write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), pixels[..., ::-1] if pixels.ndim == 3 else pixels)


def scene(seed: int, *values: object) -> tuple[np.ndarray, np.ndarray]:
    """Return an image, uint8 RGB, and labels in upright bands of the values (ids or colours)."""
    band = np.arange(SIDE) * len(values) // SIDE
    tint = np.array([(200, 60, 60), (40, 90, 220), (60, 200, 60), (230, 220, 40)])[band]
    noise = np.random.default_rng(seed).normal(0, 30, (SIDE, SIDE, 3))
    image = np.clip(tint[None] + noise, 0, 255).astype(np.uint8)
    labels = np.array(values, np.uint8)[band][None].repeat(SIDE, 0)
    return image, labels


def cityscapes(root: Path, split: str, number: int) -> None:
    image, labels = scene(number, 7, 8, 23)
    name = f'ulm_{number:06d}_000019'
    _write(root / f'leftImg8bit/{split}/ulm/{name}_leftImg8bit.png', image)
    _write(root / f'gtFine/{split}/ulm/{name}_gtFine_labelIds.png', labels)


def mapillary(root: Path, split: str, number: int) -> None:
    image, labels = scene(number, 0, 1, 2)
    _write(root / f'{split}/images/{number}.jpg', image)
    _write(root / f'{split}/labels/{number}.png', labels)
    names = [('Road', True), ('Sidewalk', True), ('Sky', True), ('Unlabeled', False)]
    rows = [{'readable': n, 'color': [9, 9, 9], 'evaluate': counts} for n, counts in names]
    (root / 'config.json').write_text(json.dumps({'labels': rows}))


def bdd100k(root: Path, split: str, number: int) -> None:
    image, labels = scene(number, 0, 1, 10)
    _write(root / f'images/10k/{split}/{number:04d}.jpg', image)
    _write(root / f'labels/sem_seg/masks/{split}/{number:04d}.png', labels)


def comma10k(root: Path, split: str, number: int) -> None:
    image, labels = scene(number, COMMA_ROAD, COMMA_REST)
    last = 9 if split == 'val' else 1
    name = f'{number:04d}_0085e9e41513078a_2018-08-19--13-26-08_11_{number}{last}.png'
    _write(root / 'imgs' / name, image)
    _write(root / 'masks' / name, labels)


def goose(root: Path, split: str, number: int) -> None:
    image, labels = scene(number, 23, 21, 31, 53)
    place = f'{split}/2022-07-22_flight/2022-07-22_flight__{number:04d}_1658494234334310308'
    _write(root / f'images/{place}_windshield_vis.png', image)
    _write(root / f'labels/{place}_labelids.png', labels)
    (root / 'goose_label_mapping.csv').write_text(GOOSE_TABLE)


def lars(root: Path, split: str, number: int) -> None:
    image, labels = scene(number, 0, 1, 2)
    base = root / split
    _write(base / f'images/yt001_{number:05d}.jpg', image)
    _write(base / f'semantic_masks/yt001_{number:05d}.png', labels)
    names = sorted(path.stem for path in (base / 'images').iterdir())
    (base / 'image_list.txt').write_text('\n'.join(names))


def mvtec(root: Path, split: str, number: int) -> None:
    for product in ('bottle', 'tile'):
        image, _ = scene(number, 0)
        image = image if product == 'tile' else image // 2
        _write(root / f'{product}/train/good/{number:03d}.png', image)


WRITERS = {
    'cityscapes': cityscapes,
    'mapillary': mapillary,
    'bdd100k': bdd100k,
    'comma10k': comma10k,
    'goose': goose,
    'lars': lars,
    'mvtec': mvtec,
}


def write_set(layout: str, root: Path, splits: tuple[str, ...], count: int = 12) -> Path:
    """Write `count` images a split in a set's own layout; return the folder."""
    root.mkdir(parents=True, exist_ok=True)
    for part, split in enumerate(splits):
        for number in range(count):
            WRITERS[layout](root, split, part * count + number)
    return root
