# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Small data sets of flat patches, whose metrics can be worked by hand, in published trees."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
from bundles import COLORS

PATCH = 14
BOAT, STATIC, WATER_ID, SKY_ID = 11, 1, 3, 5
# Nearer to water than to any other class of a sea bundle, and flagged at a rate of 0.1.
ODD_WATER = (60, 130, 140)


def flat(height, width, color):
    """Return uint8 (height, width, 3) of one colour."""
    return np.tile(np.array(color, np.uint8), (height, width, 1))


def write_png(path, photo):
    """Write RGB or grey pixels, and the folders above."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), photo[..., ::-1] if photo.ndim == 3 else photo)


def write_product(root, product, good, defects, size=(56, 84)):
    """
    Write one product of MVTec AD.

    good: colours of flat flawless test images. defects: (colour, mask) of flat defective ones;
    mask: 'left half' or 'all'. Each colour gives a whole image one score.
    """
    base = root / 'mvtec_anomaly_detection' / product
    write_png(base / 'train/good/000.png', flat(*size, COLORS['Road']))
    for number, color in enumerate(good):
        write_png(base / f'test/good/{number:03d}.png', flat(*size, color))
    for number, (color, area) in enumerate(defects):
        mask = np.zeros(size, np.uint8)
        mask[:, : size[1] // 2 if area == 'left half' else size[1]] = 255
        write_png(base / f'test/scratch/{number:03d}.png', flat(*size, color))
        write_png(base / f'ground_truth/scratch/{number:03d}_mask.png', mask)
    return base


def sea_scene():
    """
    Return image, semantic labels and panoptic image of 112 x 168 pixels, all of whole patches.

    Sky over a quay over water. The image lacks the quay's first two patches (they look like
    water) and the second of two boats, and has an anomalous patch on open water that is no boat.
    """
    photo = flat(112, 168, COLORS['Water'])
    photo[:28], photo[28:42, 28:] = COLORS['Sky'], COLORS['Car']
    photo[84:98, 28:42] = photo[98:112, 70:84] = ODD_WATER
    semantic = np.ones((112, 168), np.uint8)
    semantic[:28], semantic[28:42] = 2, 0
    panoptic = np.zeros((112, 168, 3), np.uint8)
    panoptic[..., 0] = WATER_ID
    panoptic[:28, :, 0], panoptic[28:42, :, 0] = SKY_ID, STATIC
    for number, left in ((1, 28), (2, 112)):
        semantic[84:98, left : left + PATCH] = 0
        panoptic[84:98, left : left + PATCH] = (BOAT, number, 0)
    return photo, semantic, panoptic


SEA_ANSWERS = {
    'precision': 1 / 2,  # the first boat; the anomalous patch
    'recall': 1 / 2,  # the first of two boats
    'f1': 1 / 2,
    # 5 rows of quay and 5 of water; the quay's are wrong over 28 of 168 columns
    'edge_accuracy': 1 - 5 * 28 / (10 * 168),
    # labelled: quay and boats; predicted: the quay but 28 columns, a boat, the anomalous patch
    'iou_obstacle': (14 * 140 + 196) / (14 * 168 + 392 + 196),
    'iou_water': (70 * 168 - 392 - 196) / (70 * 168 + 196),
    'iou_sky': 1.0,
}
SEA_ANSWERS['mean_iou'] = sum(SEA_ANSWERS[f'iou_{n}'] for n in ('obstacle', 'water', 'sky')) / 3
SEA_ANSWERS['quality'] = SEA_ANSWERS['mean_iou'] / 2


def write_lars(root, names=('yt001_00010', 'yt001_00020')):
    """Write sea_scene under each name as LaRS's val split."""
    base = root / 'lars' / 'val'
    photo, semantic, panoptic = sea_scene()
    for name in names:
        path = base / f'images/{name}.jpg'
        path.parent.mkdir(parents=True, exist_ok=True)
        options = (cv2.IMWRITE_JPEG_QUALITY, 100, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x111111)
        cv2.imwrite(str(path), photo[..., ::-1], options)
        write_png(base / f'semantic_masks/{name}.png', semantic)
        write_png(base / f'panoptic_masks/{name}.png', panoptic)
    segments = {STATIC: STATIC, WATER_ID: WATER_ID, SKY_ID: SKY_ID}
    segments |= {BOAT + 256 * number: BOAT for number in (1, 2)}
    listed = [{'id': number, 'category_id': category} for number, category in segments.items()]
    content = {
        'annotations': [{'file_name': f'{n}.png', 'segments_info': listed} for n in names],
        'categories': [{'id': BOAT, 'name': 'Boat/ship'}, {'id': STATIC, 'name': 'Static'}],
    }
    (base / 'panoptic_annotations.json').write_text(json.dumps(content))
    (base / 'image_list.txt').write_text('\n'.join(names) + '\n')
    return base


def write_town(root: Path, town, number, colors, ids):
    """
    Write one test image of StreetHazards.

    colors: rows of RGB triples, ids: rows of label ids, one a patch.
    """
    base = root / 'streethazards' / 'test'
    photo = np.array(colors, np.uint8).repeat(PATCH, 0).repeat(PATCH, 1)
    labels = np.array(ids, np.uint8).repeat(PATCH, 0).repeat(PATCH, 1)
    write_png(base / f'images/test/{town}/{number}.png', photo)
    write_png(base / f'annotations/test/{town}/{number}.png', labels)
