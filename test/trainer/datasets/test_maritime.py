# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The sea images: whole, read as obstacle, water and sky, no scene in two splits."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip('torch')
from paths import ROOT, need_data

from ood_perception.errors import ConfigError, DataError
from trainer.data.images import read_image
from trainer.data.scenes import image_distances, read_scenes
from trainer.datasets import SETS, load_images, open_set

LEAST_DISTANCE = 8.0  # of thumbnails; many frames of one scene are nearer
ROWS = read_scenes(ROOT / 'trainer/datasets/labels/maritime_scenes.csv')  # a scene: one split
SPLITS = ('train', 'val', 'test')


def members(split):
    return [row.name for row in ROWS if row.split == split]


def test_all_images_are_listed_once():
    listed = [row.name for row in ROWS]
    day, night = [f'type1_{n:03d}' for n in range(1, 66)], [f'type3_{n:03d}' for n in range(1, 37)]
    assert sorted(listed) == [*day, *night]
    assert [len(members(split)) for split in SPLITS] == [57, 25, 19]


def test_every_split_sees_day_and_night():
    for split in SPLITS:
        assert {name.partition('_')[0] for name in members(split)} == {'type1', 'type3'}


def test_the_files_agree_with_the_list():
    root = need_data('maritime')
    images = load_images('maritime', root, 'all')
    on_disk = {path.stem for path in (root / 'images').iterdir()}
    assert set(images.names) == on_disk
    assert set(images.sequences) == {row.scene for row in ROWS}


def test_no_daylight_image_looks_like_one_of_another_split():
    """At night thumbnails are black, whatever the scene; by day they tell scenes apart."""
    root = need_data('maritime')
    images = load_images('maritime', root, 'all')
    day = [i for i, name in enumerate(images.names) if name.startswith('type1')]
    split_of = {row.scene: row.split for row in ROWS}
    splits = np.array([split_of[images.sequences[i]] for i in day])
    distances = image_distances([read_image(images.images[i]) for i in day])
    apart = splits[:, None] != splits[None]
    assert distances[apart].min() > LEAST_DISTANCE
    np.fill_diagonal(distances, np.inf)
    nearest = np.where(apart, np.inf, distances).min(1)
    assert (nearest < LEAST_DISTANCE).mean() > 0.3  # the same yardstick does find near copies


def test_labels_are_those_of_lars():
    root = need_data('maritime')
    data = open_set('maritime/val', root.parent)
    assert data.images.classes.names == SETS['lars'].class_map.names
    _, labels = data.read(0)
    assert set(np.unique(labels)) == {0, 1, 2}
    assert (labels[:40] == 2).mean() > 0.9
    assert (labels[-40:] == 1).mean() > 0.9


def test_the_samples_colours_are_read():
    root = need_data('maritime_samples')
    data = open_set('maritime_samples', root.parent)
    assert len(data) == 5
    counts = [np.bincount(data.read(i)[1].ravel(), minlength=3) for i in range(5)]
    assert counts[0].tolist() == [9579, 89694, 97335]  # counted by colour in the file
    assert all(count.sum() == 384 * 512 for count in counts)


def test_mistakes_are_told(tmp_path):
    with pytest.raises(ConfigError, match="no split 'night'; it has test, val, train, all"):
        load_images('maritime', tmp_path, 'night')
    with pytest.raises(DataError, match=r'25 of 25 images of split val are missing'):
        load_images('maritime', tmp_path, 'val')
