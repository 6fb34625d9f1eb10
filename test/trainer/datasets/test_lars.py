# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
LaRS end to end on two frames of its exact layout: every figure worked out by hand.

Frame one: 10 rows of sky, 10 of quay (a static obstacle), 40 of water with a boat of 4 x 4.
Frame two: 20 rows of sky, 40 of water with a boat of 10 x 10; the last two rows are ignored.
"""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from server_images import from_coloured

pytest.importorskip('torch')

from ood_perception.metrics.lars import lars_frame, lars_metrics
from trainer.data.images import read_image
from trainer.datasets import open_set
from trainer.evaluation.submission import target_of, write_lars

OBSTACLE, WATER, SKY, VOID = 0, 1, 2, 255
HEIGHT, WIDTH = 60, 80
STATIC, OPEN_WATER, OPEN_SKY, BOAT, ROW_BOAT = 1, 3, 5, 11, 12
NAMES = ('yt001_00010', 'davimar_0002_03')


def first():
    """Return (semantic, panoptic RGB, prediction) of frame one."""
    semantic = np.full((HEIGHT, WIDTH), WATER, np.uint8)
    semantic[:10], semantic[10:20], semantic[40:44, 40:44] = SKY, OBSTACLE, OBSTACLE
    panoptic = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    panoptic[..., 0] = OPEN_WATER
    panoptic[:10, :, 0], panoptic[10:20, :, 0] = OPEN_SKY, STATIC
    panoptic[40:44, 40:44] = (BOAT, 1, 0)
    prediction = semantic.copy()
    prediction[42:44, 40:44] = WATER  # half of the boat is lost: 8 of 16
    prediction[32, 5] = prediction[33, 6] = OBSTACLE  # one stray component of two pixels
    prediction[19] = WATER  # the quay's lowest row of 80 pixels
    return semantic, panoptic, prediction


def second():
    """Return the same of frame two."""
    semantic = np.full((HEIGHT, WIDTH), WATER, np.uint8)
    semantic[:20], semantic[30:40, 30:40], semantic[58:] = SKY, OBSTACLE, VOID
    panoptic = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    panoptic[..., 0] = OPEN_WATER
    panoptic[:20, :, 0], panoptic[58:] = OPEN_SKY, 0
    panoptic[30:40, 30:40] = (ROW_BOAT, 2, 1)
    prediction = semantic.copy()
    prediction[30:40, 30:32] = WATER  # 80 of the boat's 100 pixels are left
    prediction[19] = WATER  # a row of sky
    prediction[58:] = OBSTACLE  # ignored
    return semantic, panoptic, prediction


@pytest.fixture
def lars(tmp_path):
    """Write lars/val as it is published."""
    base = tmp_path / 'lars/val'
    for part in ('images', 'semantic_masks', 'panoptic_masks'):
        (base / part).mkdir(parents=True)
    annotations = []
    for name, frame in zip(NAMES, (first(), second()), strict=True):
        semantic, panoptic, _ = frame
        cv2.imwrite(str(base / f'images/{name}.jpg'), np.full((HEIGHT, WIDTH, 3), 99, np.uint8))
        cv2.imwrite(str(base / f'semantic_masks/{name}.png'), semantic)
        cv2.imwrite(str(base / f'panoptic_masks/{name}.png'), panoptic[:, :, ::-1])
        numbers = np.unique(panoptic.astype(int) @ [1, 256, 65536])
        segments = [{'id': int(n), 'category_id': int(n) & 255} for n in numbers if n]
        annotations.append({'file_name': f'{name}.png', 'segments_info': segments})
    names = {1: 'Static Obstacle', 3: 'Water', 5: 'Sky', 11: 'Boat/ship', 12: 'Row boats'}
    categories = [{'id': number, 'name': name} for number, name in names.items()]
    (base / 'image_list.txt').write_text('\n'.join(NAMES) + '\n')
    (base / 'panoptic_annotations.json').write_text(
        json.dumps({'annotations': annotations, 'categories': categories})
    )
    return tmp_path


@pytest.fixture
def metrics(lars, tmp_path):
    """Write the predictions as for the server, read them back and evaluate."""
    data = open_set('lars/val', lars)
    target = target_of(data.name, data.kind, 'ours', 'hdf5')
    frames = []
    for index, (name, frame) in enumerate(
        zip(data.images.names, (first(), second()), strict=True)
    ):
        path = target.path(tmp_path / 'out', name)
        write_lars(path, frame[2])
        _, semantic = data.read(index)
        segments = data.panoptic(index)
        truth = segments.panoptic, segments.categories
        frames.append(lars_frame(from_coloured(read_image(path)), semantic, *truth))
    return lars_metrics(frames)


def test_the_files_of_the_server_have_its_colours_and_names(lars, metrics, tmp_path):
    path = tmp_path / 'out/ours/yt001_00010.png'
    colors = cv2.imread(str(path))[:, :, ::-1]
    assert colors.shape == (HEIGHT, WIDTH, 3)
    assert colors[0, 0].tolist() == [90, 75, 164]  # sky
    assert colors[15, 0].tolist() == [247, 195, 37]  # quay
    assert colors[59, 0].tolist() == [41, 167, 224]  # water
    assert sorted(p.stem for p in path.parent.iterdir()) == sorted(NAMES)


def test_detection_by_hand(metrics):
    """Boat one: 8 <= 0.7 x 16, missed. Boat two: 80 > 70, found. One stray component."""
    assert (metrics['precision'], metrics['recall'], metrics['f1']) == (0.5, 0.5, 0.5)


def test_the_water_edge_by_hand(metrics):
    """Rows 15 to 24 of frame one, 800 pixels; of them the quay's lowest row of 80 is wrong."""
    assert metrics['edge_accuracy'] == 720 / 800
    # right on the quay 4 of 5 rows, on the water 5 of 5: 320 / (800 - 400)
    assert metrics['edge_iou'] == 0.8


def test_mean_iou_by_hand(metrics):
    # sky: 800 of 800, then 1520 (row 19 lost) of 1600
    assert metrics['iou_sky'] == pytest.approx(2320 / 2400)
    # obstacle: 816 true in frame one, 8 + 80 of them lost, 2 added; 80 of 100 in frame two
    assert metrics['iou_obstacle'] == pytest.approx((728 + 80) / (818 + 100))
    # water: 3184 true in frame one, 2 lost, 8 + 80 added; 2940 in frame two, 20 + 80 added
    assert metrics['iou_water'] == pytest.approx((3182 + 2940) / (3272 + 3040))
    mean = (2320 / 2400 + 808 / 918 + 6122 / 6312) / 3
    assert metrics['mean_iou'] == pytest.approx(mean)


def test_quality_by_hand(metrics):
    assert metrics['quality'] == pytest.approx(0.5 * (2320 / 2400 + 808 / 918 + 6122 / 6312) / 3)
    assert 100 * metrics['quality'] == pytest.approx(46.95, abs=0.01)
