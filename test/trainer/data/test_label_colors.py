# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Label files in colours: each colour its class, unknown colours refused."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

pytest.importorskip('torch')

from ood_perception.errors import DataError
from trainer.data.images import content_sha256
from trainer.datasets import load_images

CLASSES = """
classes:
  - {name: obstacle, color: [1, 2, 3], colors: [[250, 10, 10], [200, 20, 20]]}
  - {name: water, colors: [[10, 10, 250]]}
ignored_colors: [[0, 0, 0]]
"""
PIXELS = np.array([[[250, 10, 10], [200, 20, 20], [10, 10, 250], [0, 0, 0]]], np.uint8)


def write(root, pixels=PIXELS, classes=CLASSES):
    for part in ('images', 'labels'):
        (root / part).mkdir(exist_ok=True)
    cv2.imwrite(str(root / 'images/a.png'), np.zeros_like(pixels))
    cv2.imwrite(str(root / 'labels/a.png'), pixels[:, :, ::-1])
    (root / 'classes.yaml').write_text(classes)
    return load_images('folders', root, '')


def test_colours_become_classes(tmp_path):
    images = write(tmp_path)
    assert images.classes.names == ('obstacle', 'water')
    assert images.classes.colors[0] == (1, 2, 3)  # the class's own colour is another thing
    _, labels = images.subset([0]).read(0)
    assert labels.tolist() == [[0, 0, 1, 255]]
    assert labels.dtype == np.uint8


def test_an_unknown_colour_names_file_and_colour(tmp_path):
    pixels = PIXELS.copy()
    pixels[0, 0] = (250, 10, 11)
    images = write(tmp_path, pixels)
    with pytest.raises(DataError, match=r'labels/a\.png holds 1 colours .*\[\[250, 10, 11\]\]'):
        images.read(0)


def test_the_digest_follows_the_colours(tmp_path):
    one = content_sha256(write(tmp_path))
    other = CLASSES.replace(', [200, 20, 20]]}', ']}').replace('250]]}', '250], [200, 20, 20]]}')
    assert content_sha256(write(tmp_path, classes=other)) != one


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (('[[10, 10, 250]]', '[[250, 10, 10]]'), 'belongs to two classes'),
        (('[[10, 10, 250]]', '[[10, 10]]'), 'is not three numbers'),
        ((', colors: [[10, 10, 250]]', ''), r"classes \['water'\] have no \"colors\""),
    ],
)
def test_wrong_colours_are_refused(tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        write(tmp_path, classes=CLASSES.replace(*change))
