# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
A small data set of a made-up domain, drawn by code: a robot in two warehouse halls.

    python -m trainer.datasets.tools.generated OUT

OUT/classes.yaml, OUT/train/{images,labels}  normal images, labels 0 floor, 1 wall, 2 shelf
OUT/unknown/{images,labels}                  the same halls with things on the floor that the
                                             training images never show; labels 0 normal, 1 thing

It shows the way from labelled folders to a running node (docs/new_domain.md); what a head can do
is better judged on images of a camera.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from ood_perception.errors import DataError, OodPerceptionError
from ood_perception.files import make_folder
from ood_perception.types import UInt8Array

from ...data.images import write_png

FloatArray = npt.NDArray[np.float32]
FLOOR, WALL, SHELF = 0, 1, 2
CLASSES = """classes:
  - {name: floor, color: [120, 120, 130], ids: [0]}
  - {name: wall, color: [200, 190, 160], ids: [1]}
  - {name: shelf, color: [150, 90, 40], ids: [2]}
ignored: [255]
"""
HEIGHT, WIDTH = 240, 320


@dataclass(frozen=True)
class Hall:
    """One hall: the colours of its floor, wall and shelves, RGB."""

    name: str
    floor: tuple[int, int, int]
    wall: tuple[int, int, int]
    shelf: tuple[int, int, int]


HALLS = (
    Hall('hall', (118, 120, 126), (205, 198, 180), (40, 70, 140)),
    Hall('dock', (134, 126, 114), (176, 188, 196), (150, 84, 34)),
)


def draw_scene(hall: Hall, rng: np.random.Generator) -> tuple[UInt8Array, UInt8Array]:
    """Return a normal image, uint8 (H, W, 3) RGB, and its labels, uint8 (H, W)."""
    horizon = int(HEIGHT * rng.uniform(0.34, 0.44))
    aisle = WIDTH * rng.uniform(0.42, 0.58)
    image = np.empty((HEIGHT, WIDTH, 3), np.float32)
    labels = np.full((HEIGHT, WIDTH), WALL, np.uint8)
    image[:] = hall.wall
    image[: horizon // 2] *= 0.92
    labels[horizon:] = FLOOR
    image[horizon:] = hall.floor
    _tiles(image, horizon, aisle, rng)
    for side in (-1, 1):
        _shelf(image, labels, hall, horizon, aisle, side, rng)
    return _as_camera(image, rng), labels


def add_thing(
    image: UInt8Array, labels: UInt8Array, rng: np.random.Generator
) -> tuple[UInt8Array, UInt8Array]:
    """Return the image with a thing on its floor, and labels 0 normal, 1 thing."""
    rows, columns = np.nonzero(labels == FLOOR)
    far_enough = np.flatnonzero((rows > 0.55 * HEIGHT) & (abs(columns - WIDTH / 2) < WIDTH / 3))
    place = int(rng.choice(far_enough))
    size = int(rng.integers(18, 40))
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    corners = int(rng.integers(3, 8))
    angles = 2 * np.pi * (np.arange(corners) + rng.uniform(-0.2, 0.2, corners)) / corners
    radius = rng.uniform(0.7, 1.0, corners) * size
    x, y = columns[place] + radius * np.cos(angles), rows[place] - size + radius * np.sin(angles)
    outline = np.stack([x, y], 1).round().astype(np.int32)
    cv2.fillPoly(mask, [cv2.convexHull(outline).reshape(-1, 1, 2)], 1)
    stripes = ((np.indices(mask.shape).sum(0) // int(rng.integers(4, 10))) % 2)[..., None]
    colours = rng.uniform(0, 255, (2, 3))
    surface = colours[0] * stripes + colours[1] * (1 - stripes) + rng.normal(0, 5, image.shape)
    changed = np.where(mask[..., None] > 0, surface.clip(0, 255), image).astype(np.uint8)
    return changed, mask


def _tiles(image: FloatArray, horizon: int, aisle: float, rng: np.random.Generator) -> None:
    """Draw the joints of a tiled floor in perspective."""
    joint = tuple(float(c) for c in image[-1, 0] * 0.8)
    for depth in np.arange(0.6, 6.0, 0.6) + rng.uniform(0, 0.6):
        row = int(horizon + (HEIGHT - horizon) / depth)
        cv2.line(image, (0, row), (WIDTH, row), joint, 1, cv2.LINE_AA)
    for foot in np.arange(-2 * WIDTH, 3 * WIDTH, 90) + rng.uniform(0, 90):
        ends = (round(aisle), horizon), (int(foot), HEIGHT)
        cv2.line(image, *ends, joint, 1, cv2.LINE_AA)


def _shelf(
    image: FloatArray,
    labels: UInt8Array,
    hall: Hall,
    horizon: int,
    aisle: float,
    side: int,
    rng: np.random.Generator,
) -> None:
    """Draw a row of shelves along one side of the aisle, its boards and boxes."""
    near = aisle + side * WIDTH * rng.uniform(0.42, 0.52)
    far = aisle + side * WIDTH * rng.uniform(0.12, 0.18)
    top, bottom = HEIGHT * rng.uniform(0.0, 0.08), HEIGHT * rng.uniform(0.86, 0.95)
    corners = [(near, top), (far, horizon * 0.72), (far, horizon * 1.18), (near, bottom)]
    edge = WIDTH if side > 0 else 0
    face = [(edge, top), *corners, (edge, bottom)]
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.fillPoly(mask, [np.array(face).round().astype(np.int32).reshape(-1, 1, 2)], 1)
    surface = np.empty_like(image)
    surface[:] = hall.shelf
    for share in np.linspace(0.05, 0.95, 6):
        start = (near, top + share * (bottom - top))
        end = (far, horizon * (0.72 + share * 0.46))
        points = (np.array([start, end]).round().astype(int)).tolist()
        cv2.line(surface, points[0], points[1], [c * 1.5 for c in hall.shelf], 3, cv2.LINE_AA)
    for column in np.linspace(near, far, 7):
        place = int(column)
        cv2.line(surface, (place, 0), (place, HEIGHT), [c * 0.6 for c in hall.shelf], 2)
    image[mask > 0] = surface[mask > 0]
    labels[mask > 0] = SHELF


def _as_camera(image: FloatArray, rng: np.random.Generator) -> UInt8Array:
    """Return the image with light, texture, blur and grain, uint8."""
    texture = cv2.resize(rng.normal(0, 1, (30, 40)).astype(np.float32), (WIDTH, HEIGHT))
    light = rng.uniform(0.85, 1.1) * (1 + 0.04 * texture[..., None])
    blurred = cv2.GaussianBlur(image * light, (0, 0), 0.7)
    return (blurred + rng.normal(0, 3, image.shape)).clip(0, 255).astype(np.uint8)


def write_set(out: Path, count: int = 30, unknown: int = 8, seed: int = 0) -> None:
    """
    Write the data set; the same seed gives the same files.

    count, unknown: images of each hall. Raises DataError where OUT holds one already.
    """
    if out.exists() and any(out.iterdir()):
        raise DataError(f'{out} is not empty: give a new folder')
    rng = np.random.default_rng(seed)

    def fill(folder: Path) -> None:
        (folder / 'classes.yaml').write_text(CLASSES)
        for hall in HALLS:
            for number in range(count + unknown):
                image, labels = draw_scene(hall, rng)
                part = 'train'
                if number >= count:
                    part = 'unknown'
                    image, labels = add_thing(image, labels, rng)
                write_png(folder / part / 'images' / f'{hall.name}_{number:03d}.png', image)
                write_png(folder / part / 'labels' / f'{hall.name}_{number:03d}.png', labels)

    make_folder(out, fill)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the set; return the exit status (2 for a user's mistake)."""
    parser = argparse.ArgumentParser(
        'trainer.datasets.tools.generated',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('out', type=Path, help='a new folder')
    parser.add_argument('--count', type=int, default=30, help='normal images a hall')
    parser.add_argument('--unknown', type=int, default=8, help='images with things a hall')
    parser.add_argument('--seed', type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        write_set(options.out, options.count, options.unknown, options.seed)
    except OodPerceptionError as error:
        print(f'generated: {error}', file=sys.stderr)
        return 2
    total = 2 * options.count, 2 * options.unknown
    print(f'{options.out}: {total[0]} normal images in train/, {total[1]} in unknown/')
    return 0


if __name__ == '__main__':
    sys.exit(main())
