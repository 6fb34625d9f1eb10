# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Sets of images on disk and one evaluation of them."""

import json

import cv2
import numpy as np
from bundles import road_image

from trainer.evaluation.evaluate import main

HEIGHT, WIDTH = 56, 84


BOX = (42, 28, 14, 14)  # x, y, width, height: one patch


F32 = ('--precision', 'f32', '--threads', '1', '--quiet')


def write_images(folder, labels, obstacles, name='drive_{}'):
    """Write road images with and without an odd square, and their labels."""
    for part in ('images', 'labels'):
        (folder / part).mkdir(parents=True)
    for number, box in enumerate(obstacles):
        photo = cv2.cvtColor(road_image(HEIGHT, WIDTH, box, seed=number), cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(folder / 'images' / f'{name.format(number)}.png'), photo)
        cv2.imwrite(str(folder / 'labels' / f'{name.format(number)}.png'), labels(box))


def anomaly_labels(box):
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[: HEIGHT // 4] = 255
    if box:
        x, y, width, height = box
        labels[y : y + height, x : x + width] = 1
    return labels


def evaluate(bundle, root, data, out, *more, status=0):
    words = [str(bundle), '--data', *data, '--root', str(root), '--out', str(out), *F32, *more]
    assert main(words) == status
    return json.loads((out / 'results.json').read_text())


SETS = ('road_obstacle_dev', 'lost_and_found_dev')
