# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Bring the magnetic-tile images into MVTec AD's layout, as the product 'tile'.

    python -m trainer.datasets.tools.industrial_tiles industrial_tiles mvtec_anomaly_detection

SOURCE/images/<kind>_exp<e>_num_<number>.jpg, SOURCE/labels/<the same>.png: 0 normal, 1 defect;
kind 'free' is flawless. Numbers are places in a film: images whose numbers follow within 500
show one tile, so such a series stays together. Every third series is for testing. An image of a
defect whose label marks none is left out, and said.

Data: Magnetic-tile-defect-datasets (abin24; Huang, Qiu and Yuan, The Visual Computer 2020).
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ood_perception.errors import DataError, OodPerceptionError
from ood_perception.files import make_folder
from ood_perception.image.image_files import read_label
from ood_perception.types import UInt8Array

from ...data.images import list_images, read_image, write_png

PRODUCT, FREE, UNMARKED = 'tile', 'free', 'left out: no defect is marked'
_NAME = re.compile(r'(?P<kind>[a-z]+)_exp\d+_num_(?P<number>\d+)')
_SAME_TILE = 500
_TEST_EVERY = 3


@dataclass(frozen=True)
class Tile:
    """One image: what is wrong with it ('free': nothing), its place in the film, its files."""

    kind: str
    number: int
    image: Path
    label: Path


def list_tiles(source: Path) -> list[Tile]:
    """Return the images by number; DataError for a name of another form."""
    tiles = []
    for path in list_images(source / 'images'):
        match = _NAME.fullmatch(path.stem)
        if match is None:
            raise DataError(f'{path}: expected <kind>_exp<e>_num_<number>.jpg')
        label = source / 'labels' / f'{path.stem}.png'
        tiles.append(Tile(match['kind'], int(match['number']), path, label))
    return sorted(tiles, key=lambda tile: tile.number)


def flawless_test(tiles: Sequence[Tile]) -> set[int]:
    """Return the numbers of the flawless images for testing: those of every third series."""
    free = [tile.number for tile in tiles if tile.kind == FREE]
    new = np.diff(free, prepend=-_SAME_TILE - 1) > _SAME_TILE
    series = np.cumsum(new) - 1
    return {n for n, s in zip(free, series, strict=True) if s % _TEST_EVERY == _TEST_EVERY - 1}


def convert(source: Path, target: Path) -> dict[str, int]:
    """
    Write target/tile in MVTec AD's layout; return the number of images of each folder, and of
    those left out under UNMARKED.

    Raises DataError for missing or broken files, and where target/tile is there already; nothing
    half-written stays.
    """
    folder = target / PRODUCT
    if folder.exists():
        raise DataError(f'{folder} exists: remove it, or give another folder')
    tiles = list_tiles(source)
    test = flawless_test(tiles)
    counts: dict[str, int] = {}

    def write(place: Path) -> None:
        for tile in tiles:
            mask = _mask(tile)
            part = _folder_of(tile, test) if tile.kind == FREE or mask.any() else UNMARKED
            counts[part] = counts.get(part, 0) + 1
            if part == UNMARKED:
                continue
            write_png(place / part / f'{tile.number:06d}.png', read_image(tile.image))
            if tile.kind != FREE:
                name = f'{tile.number:06d}_mask.png'
                write_png(place / 'ground_truth' / tile.kind / name, mask)

    target.mkdir(parents=True, exist_ok=True)
    make_folder(folder, write)
    return dict(sorted(counts.items()))


def _mask(tile: Tile) -> UInt8Array:
    """Return 255 where a defect is marked, 0 elsewhere; one zero for a flawless tile."""
    if tile.kind == FREE:
        return np.zeros((1, 1), np.uint8)
    return np.where(read_label(tile.label) > 0, 255, 0).astype(np.uint8)


def _folder_of(tile: Tile, test: set[int]) -> str:
    if tile.kind != FREE:
        return f'test/{tile.kind}'
    return 'test/good' if tile.number in test else 'train/good'


def main(arguments: Sequence[str] | None = None) -> int:
    """Convert; return the exit status (2 for a user's mistake)."""
    parser = argparse.ArgumentParser(
        'trainer.datasets.tools.industrial_tiles',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('source', type=Path, help='folder of images/ and labels/')
    parser.add_argument('target', type=Path, help='the folder tile/ is made here')
    options = parser.parse_args(arguments)
    try:
        counts = convert(options.source, options.target)
    except OodPerceptionError as error:
        print(f'industrial_tiles: {error}', file=sys.stderr)
        return 2
    for part, count in counts.items():
        print(f'{count:4d} {part if part == UNMARKED else options.target / PRODUCT / part}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
