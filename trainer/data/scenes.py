# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Split images by scene: images that look alike stay together, on one side of every split.

    trainer scenes FOLDER [--shares train=0.6 val=0.25 test=0.15] [--distance 12]

Writes FOLDER/scenes.csv (name, scene, split) for the images of FOLDER/images. Neighbouring
frames of one scene are nearly the same image; a random split would judge a head on what it was
fitted on. Look at the file and mend it by hand: two views of one harbour may look different.
"""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from ood_perception.errors import ConfigError, DataError
from ood_perception.files import make_file
from ood_perception.texts import as_no_formula, from_no_formula

from .images import list_images, read_image

SCENES_FILE = 'scenes.csv'
SHARES = {'train': 0.6, 'val': 0.25, 'test': 0.15}
DISTANCE = 12.0
THUMBNAIL = (16, 12)
FIELDS = ('name', 'scene', 'split')


@dataclass(frozen=True)
class SceneRow:
    """One image: its name without suffix, its scene, its split."""

    name: str
    scene: str
    split: str


def image_distances(images: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
    """
    Return float32 (n, n): how different images look, 0 = alike.

    images: uint8 (H, W, 3) RGB each. The root mean square difference of 16 x 12 thumbnails in
    OpenCV's 8-bit CIE L*a*b*, where a step of 2.5 is one of lightness.
    """
    thumbnails = [
        cv2.resize(cv2.cvtColor(p, cv2.COLOR_RGB2Lab), THUMBNAIL, interpolation=cv2.INTER_AREA)
        for p in images
    ]
    flat = np.stack(thumbnails).reshape(len(thumbnails), -1).astype(np.float32)
    return np.stack([np.sqrt(((flat - one) ** 2).mean(1)) for one in flat])


def scenes_of(distances: npt.NDArray[np.float32], threshold: float) -> list[int]:
    """
    Return the scene of every image, numbered from 0 in the order of their first images.

    Two images nearer than the threshold share a scene, and so do all that a chain of such
    pairs links (single linkage): no two images of different scenes are nearer than it.
    """
    from scipy.sparse.csgraph import connected_components

    return connected_components(distances < threshold, directed=False)[1].tolist()


def split_scenes(scenes: Sequence[int], shares: Mapping[str, float]) -> list[str]:
    """
    Return a split for every image, scenes whole.

    Scenes are dealt out from the largest to the smallest, each to the split that lacks most of its
    share. Raises ConfigError for shares that do not sum to 1 or more splits than scenes.
    """
    if not shares or abs(sum(shares.values()) - 1) > 1e-6 or min(shares.values()) <= 0:
        raise ConfigError(f'shares {dict(shares)}: give positive shares that sum to 1')
    sizes = np.bincount(scenes)
    if len(sizes) < len(shares):
        raise ConfigError(
            f'{len(sizes)} scenes cannot fill {len(shares)} splits: lower --distance or take more '
            'images'
        )
    lacking = {name: share * len(scenes) for name, share in shares.items()}
    place: dict[int, str] = {}
    for left, scene in enumerate(np.argsort(-sizes, kind='stable').tolist()):
        empty = [name for name in shares if name not in place.values()]
        # the last scenes fill what is still empty
        among = empty if len(sizes) - left <= len(empty) else list(shares)
        name = max(among, key=lambda one: lacking[one])
        place[scene] = name
        lacking[name] -= int(sizes[scene])
    return [place[scene] for scene in scenes]


def read_scenes(path: Path) -> list[SceneRow]:
    """Read scenes.csv; DataError naming the line that is wrong or splits a scene."""
    try:
        lines = list(csv.DictReader(io.StringIO(path.read_text(encoding='utf-8'))))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f'{path} cannot be read: {error}') from error
    rows, splits = [], {}
    for number, line in enumerate(lines, 2):
        if any(not line.get(field) for field in FIELDS):
            raise DataError(f'{path}: line {number} lacks one of {", ".join(FIELDS)}')
        row = SceneRow(*(from_no_formula(str(line[field]).strip()) for field in FIELDS))
        if splits.setdefault(row.scene, row.split) != row.split:
            raise DataError(
                f'{path}: line {number} puts scene {row.scene} into {row.split}, an earlier one '
                f'into {splits[row.scene]}: a scene belongs to one split'
            )
        rows.append(row)
    if not rows:
        raise DataError(f'{path} lists no images: run "trainer scenes {path.parent}"')
    return rows


def write_scenes(path: Path, rows: Sequence[SceneRow]) -> None:
    """Write scenes.csv, whole or not at all, scene after scene."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(FIELDS)
    ordered = sorted(rows, key=lambda row: (row.split, row.scene, row.name))
    writer.writerows(map(as_no_formula, (row.name, row.scene, row.split)) for row in ordered)
    make_file(path, lambda partial: partial.write_text(text.getvalue(), 'utf-8') and None)


def _shares(values: Sequence[str]) -> dict[str, float]:
    try:
        pairs = [value.split('=') for value in values]
        return {name: float(share) for name, share in pairs}
    except ValueError:
        raise ConfigError(f'shares {list(values)}: write them as train=0.6 val=0.4') from None


def main(arguments: Sequence[str]) -> None:
    """Run `trainer scenes`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('folder', type=Path, help='with images/ in it')
    parser.add_argument('--shares', nargs='+', default=[f'{k}={v}' for k, v in SHARES.items()])
    parser.add_argument('--distance', type=float, default=DISTANCE, help='default: %(default)s')
    options = parser.parse_args(arguments)
    files = list_images(options.folder / 'images')
    scenes = scenes_of(image_distances([read_image(f) for f in files]), options.distance)
    splits = split_scenes(scenes, _shares(options.shares))
    path = options.folder / SCENES_FILE
    rows = [
        SceneRow(file.stem, f'scene_{scene:03d}', split)
        for file, scene, split in zip(files, scenes, splits, strict=True)
    ]
    write_scenes(path, rows)
    print(f'{path}: {len(files)} images, {max(scenes) + 1} scenes')
    for name in dict.fromkeys(splits):
        members = {row.scene for row in rows if row.split == name}
        print(f'  {name}: {splits.count(name)} images of {len(members)} scenes')
