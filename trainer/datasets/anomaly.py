# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Layouts with pixel labels of anomalies: RoadAnomaly, RoadObstacle, LostAndFound, pasted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from ood_perception.errors import DataError

NORMAL, ANOMALY, IGNORED = 0, 1, 255
IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.webp')


@dataclass(frozen=True)
class Layout:
    """
    How one data set writes its labels.

    ids: label id in the files -> NORMAL, ANOMALY or IGNORED.
    labels_are_ground: the scored pixels are the road already (then no other region is needed).
    """

    ids: dict[int, int]
    labels_are_ground: bool = False


_PLAIN = {0: NORMAL, 1: ANOMALY, 255: IGNORED}
LAYOUTS = {
    'road_anomaly_dev': Layout({0: NORMAL, 2: ANOMALY}),
    'road_obstacle_dev': Layout(_PLAIN, labels_are_ground=True),
    'lost_and_found_dev': Layout(_PLAIN),
    'pasted': Layout(_PLAIN),
}


@dataclass(frozen=True)
class AnomalySet:
    """
    The pictures of one set.

    name: a key of LAYOUTS. names: picture names without suffix, sorted.
    images, labels: one path per picture.
    """

    name: str
    names: tuple[str, ...]
    images: tuple[Path, ...]
    labels: tuple[Path, ...]

    @property
    def layout(self) -> Layout:
        """How the labels are written."""
        return LAYOUTS[self.name]


def load_anomaly_set(name: str, folder: Path) -> AnomalySet:
    """
    List the pictures of `folder`/images with their labels in `folder`/labels.

    Raises DataError for an unknown layout, a missing folder or a picture without labels.
    """
    if name not in LAYOUTS:
        raise DataError(f'unknown anomaly data set {name!r}; known are {sorted(LAYOUTS)}')
    if not (folder / 'images').is_dir():
        raise DataError(f'{folder / "images"} is not a folder; give the folder of {name}')
    images = sorted(p for p in (folder / 'images').iterdir() if p.suffix in IMAGE_SUFFIXES)
    labels = [folder / 'labels' / f'{p.stem}.png' for p in images]
    missing = [str(p) for p in labels if not p.is_file()]
    if missing or not images:
        raise DataError(f'{name}: no labels for its pictures: {missing[:3] or folder / "images"}')
    return AnomalySet(name, tuple(p.stem for p in images), tuple(images), tuple(labels))


def read_image(path: Path) -> npt.NDArray[np.uint8]:
    """Read a picture as uint8 (H, W, 3) RGB; DataError when it cannot be decoded."""
    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if pixels is None:
        raise DataError(f'{path} cannot be read as a picture; is it complete?')
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def read_anomaly_labels(path: Path, layout: Layout) -> npt.NDArray[np.uint8]:
    """Read labels as uint8 (H, W) of NORMAL, ANOMALY, IGNORED; DataError for an unknown id."""
    raw = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if raw is None or raw.ndim != 2 or raw.dtype != np.uint8:
        raise DataError(f'{path} is not an 8-bit label picture with one channel')
    table = np.full(256, 254, np.uint8)
    table[list(layout.ids)] = list(layout.ids.values())
    labels = table[raw]
    if (labels == 254).any():
        unknown = np.unique(raw[labels == 254]).tolist()
        raise DataError(f'{path} holds label ids {unknown}; known are {sorted(layout.ids)}')
    return labels
