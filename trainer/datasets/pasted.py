# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A set of road images with pasted objects on disk, in the same layout as the anomaly sets."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from ood_perception.errors import DataError
from ood_perception.json_files import write_json

from ..augment.cutouts import Cutout, PasteSettings, paste_objects
from ..data.images import IGNORED, ImageList, content_sha256, write_png
from .table import SETS


def write_pasted_set(
    images: ImageList,
    cutouts: Sequence[Cutout],
    folder: Path,
    settings: PasteSettings,
    seed: int = 0,
    ground_only: bool = False,
) -> ImageList:
    """
    Paste on every image and write images/, labels/ and ground/ as PNG: the anomaly set 'pasted'.

    images: with true class labels. Each image's draw depends on the seed and its own name
    alone. ground_only: labels ignore all but the ground and what stands on it. A folder that was
    made from the same things is used as it is.
    """
    key = _key(images, cutouts, settings, seed)
    record = folder / 'made.json'
    if not record.is_file() or json.loads(record.read_text(encoding='utf-8'))['key'] != key:
        record.unlink(missing_ok=True)
        for name in ('images', 'labels', 'ground'):
            for stale in (folder / name).glob('*.png'):
                stale.unlink()
        for index, name in enumerate(images.names):
            own = int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], 'big')
            rng = np.random.default_rng([seed, own])
            pasted = paste_objects(*images.read(index), cutouts, rng, settings)
            scored = np.where(pasted.ground, pasted.mask, np.uint8(IGNORED))
            write_png(folder / f'images/{name}.png', pasted.image)
            write_png(folder / f'labels/{name}.png', scored if ground_only else pasted.mask)
            write_png(folder / f'ground/{name}.png', pasted.ground.astype(np.uint8) * 255)
        write_json(record, {'key': key, 'seed': seed, 'settings': asdict(settings)})
    return SETS['pasted'].images(folder, '')


def read_ground(path: Path) -> npt.NDArray[np.bool_]:
    """Read the road region of interest of a pasted image, given the path of its labels."""
    source = path.parent.parent / 'ground' / path.name
    pixels = cv2.imread(str(source), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise DataError(f'{source} cannot be read; make the pasted set again')
    return pixels > 0


def _key(images: ImageList, cutouts: Sequence[Cutout], settings: PasteSettings, seed: int) -> str:
    """Hash everything that the set depends on."""
    digest = hashlib.sha256(json.dumps([asdict(settings), seed]).encode())
    digest.update(content_sha256(images).encode())
    for cutout in cutouts:
        digest.update(cutout.rgba.tobytes())
    return digest.hexdigest()
