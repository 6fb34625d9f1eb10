# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Fleets of small recordings, some labelled, some damaged."""

import numpy as np
from bag_files import DELAY, FRONT, RAW, START, Maker, storage_file, write_bag
from bundles import road_image

TRUTH = '/front/labels'


def messages(seed, frames, first=0):
    """Return the messages of one camera and its labels; every second frame holds a box."""
    maker, found = Maker(), []
    for number in range(frames):
        box = (60, 70, 24, 20) if number % 2 else None
        image = road_image(96, 128, box, seed=100 * seed + number)
        labels = np.zeros(image.shape[:2], np.uint8)
        if box:
            left, top, width, height = box
            labels[top : top + height, left : left + width] = 1
        stamp = START + (first + number) * 100_000_000
        found.append((FRONT, RAW, stamp + DELAY, maker.raw(image, 'rgb8', stamp)))
        found.append((TRUTH, RAW, stamp + DELAY, maker.raw(labels, 'mono8', stamp)))
    return found


def write_fleet(folder, count, frames=4):
    """Write recordings 'drive_00', ... and return their .mcap files, in order."""
    return [
        storage_file(write_bag(folder / f'drive_{seed:02d}', messages(seed, frames)))
        for seed in range(count)
    ]


def cut(file):
    """Leave the first hundred bytes of a file: no message can be read."""
    file.write_bytes(file.read_bytes()[:100])
