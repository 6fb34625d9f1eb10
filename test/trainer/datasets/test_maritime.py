# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The sea images: whole, read as obstacle, water and sky, no scene in two splits."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

pytest.importorskip('torch')
from paths import need_data

from ood_perception.errors import ConfigError, DataError
from trainer.data.images import read_image
from trainer.data.scenes import image_distances
from trainer.datasets import load_images, open_set
from trainer.datasets.lars import CLASSES as LARS
from trainer.datasets.maritime import SCENES

LEAST_DISTANCE = 8.0  # of thumbnails; many frames of one scene are nearer


def members(split):
    return {
        (kind, number): scene
        for scene, (kind, numbers) in SCENES[split].items()
        for number in numbers
    }


def test_no_scene_and_no_image_is_in_two_splits():
    for one, other in itertools.combinations(SCENES, 2):
        assert not set(SCENES[one]) & set(SCENES[other])
        assert not set(members(one)) & set(members(other))


def test_all_images_are_listed_once():
    listed = [photo for split in SCENES for photo in members(split)]
    assert len(listed) == len(set(listed)) == 101
    assert {n for kind, n in listed if kind == 'type1'} == set(range(1, 66))
    assert {n for kind, n in listed if kind == 'type3'} == set(range(1, 37))
    assert [len(members(split)) for split in ('train', 'val', 'test')] == [57, 25, 19]


def test_every_split_sees_day_and_night():
    for split in SCENES:
        assert {kind for kind, _ in members(split)} == {'type1', 'type3'}


def test_the_files_agree_with_the_list():
    root = need_data('maritime')
    images = load_images('maritime', root, 'all')
    on_disk = {path.stem for path in (root / 'images').iterdir()}
    assert set(images.names) == on_disk
    assert set(images.sequences) == {scene for split in SCENES for scene in SCENES[split]}


def test_no_daylight_image_looks_like_one_of_another_split():
    """At night thumbnails are black, whatever the scene; by day they tell scenes apart."""
    root = need_data('maritime')
    images = load_images('maritime', root, 'all')
    day = [i for i, name in enumerate(images.names) if name.startswith('type1')]
    split_of = {scene: split for split in SCENES for scene in SCENES[split]}
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
    assert data.images.classes.names == LARS.names
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
    with pytest.raises(ConfigError, match='choose train, val, test or all'):
        load_images('maritime', tmp_path, 'night')
    with pytest.raises(DataError, match=r'25 of 25 images of split val are missing'):
        load_images('maritime', tmp_path, 'val')
