# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
MVTec AD, industrial inspection, as published: one product is one set.

mvtec_anomaly_detection/
  <product>/train/good/<number>.png
  <product>/test/good/<number>.png
  <product>/test/<defect>/<number>.png
  <product>/ground_truth/<defect>/<number>_mask.png     0 normal, 255 defect

'mvtec/bottle' is the test part of a product, 'mvtec/bottle/train' its flawless pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ood_perception.errors import DataError

from ..data import PictureList, decoded
from .anomaly import ANOMALY, NORMAL, anomaly_classes
from .evaluation_set import EvaluationSet, SetEntry, UInt8Array
from .layout import nested_pictures, picture_list

CLASSES = anomaly_classes({0: NORMAL, 255: ANOMALY})
LICENCE = 'CC BY-NC-SA 4.0 (non-commercial)'
SOURCE = 'https://www.mvtec.com/company/research/datasets/mvtec-ad'
_GOOD = 'good'


@dataclass(frozen=True)
class _Inspected(PictureList):
    """Pictures whose flawless ones have no label file: their entry is the picture itself."""

    def file_ids(self, index: int) -> UInt8Array:
        """Return the mask's values, zeros for a flawless picture."""
        if self.labels[index] != self.images[index]:
            return super().file_ids(index)
        shape = decoded(self.images[index], 'picture', cv2.IMREAD_COLOR).shape
        return np.zeros(shape[:2], np.uint8)


def load_set(root: Path, split: str) -> EvaluationSet:
    """Open a product, or its flawless pictures; DataError naming the products that are there."""
    product, _, part = split.partition('/')
    known = sorted(path.parent.parent.name for path in root.glob('*/train/good'))
    if product not in known or part not in ('', 'test', 'train'):
        raise DataError(
            f'mvtec/{split}: not a product in {root}, nor <product>/train; it holds '
            f'{", ".join(known) or "none"}; unpack mvtec_anomaly_detection from {SOURCE} there'
        )
    base, part = root / product, part or 'test'
    images = nested_pictures(base / part, f'unpack {product} anew')

    def label_of(path: Path) -> Path:
        if path.parent.name == _GOOD:
            return path
        return base / 'ground_truth' / path.parent.name / f'{path.stem}_mask.png'

    listed = picture_list(
        images,
        label_of,
        CLASSES,
        f'unpack {product} anew',
        lambda path: f'{path.parent.name}_{path.stem}',
        lambda path: path.parent.name,
    )
    pictures = _Inspected(
        listed.names, listed.images, listed.labels, listed.sequences, listed.classes
    )
    defective = tuple(path.parent.name != _GOOD for path in images)
    name, title = f'mvtec/{split}', f'MVTec AD {product} {part}'
    return EvaluationSet(
        name,
        title,
        pictures,
        'inspection',
        'image',
        LICENCE,
        SOURCE,
        anomalous_pictures=defective,
    )


ENTRY = SetEntry(
    'MVTec AD, industrial inspection: mvtec/<product>, mvtec/<product>/train',
    load_set,
    ('mvtec_anomaly_detection', 'mvtec', 'MVTec'),
    (),
    __doc__ or '',
)
