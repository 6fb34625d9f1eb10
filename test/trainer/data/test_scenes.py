# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Scenes by image similarity, splits that keep them whole, and the file that says so."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

pytest.importorskip('torch')

from ood_perception.errors import ConfigError, DataError
from trainer.__main__ import main
from trainer.data.scenes import image_distances, read_scenes, scenes_of, split_scenes
from trainer.datasets import load_images

COLORS = ((200, 60, 60), (40, 90, 220), (20, 160, 40), (230, 210, 90), (90, 90, 90))


def views(count=4):
    """Return images of five scenes, some frames each: a colour with a wandering bright bar."""
    rng = np.random.default_rng(0)
    images, truth = [], []
    for scene, color in enumerate(COLORS):
        for frame in range(count + scene):
            photo = np.full((48, 64, 3), color, np.uint8)
            photo[10:14, 4 + frame : 12 + frame] = 255
            noise = rng.integers(-6, 7, photo.shape)
            images.append(np.clip(photo + noise, 0, 255).astype(np.uint8))
            truth.append(scene)
    return images, truth


def test_frames_of_a_scene_are_nearer_than_frames_of_another():
    images, truth = views()
    distances = image_distances(images)
    same = np.equal.outer(truth, truth)
    assert distances[same].max() < distances[~same].min()
    assert (np.diag(distances) == 0).all()
    np.testing.assert_array_equal(distances, distances.T)


def test_a_grey_step_of_one_tenth_of_white_is_a_tenth_of_the_lightness_scale():
    dark, light = (np.full((48, 64, 3), value, np.uint8) for value in (0, 255))
    lab = image_distances([dark, light])[0, 1]
    assert lab == pytest.approx(255 / np.sqrt(3), abs=1)  # only one of three channels differs


def test_scenes_are_the_chains_of_near_pairs():
    line = np.abs(np.subtract.outer(np.arange(6.0), np.arange(6.0)))
    line[:, 5] = line[5] = 9
    line[5, 5] = 0
    assert scenes_of(line, 1.5) == [0, 0, 0, 0, 0, 1]
    assert scenes_of(line, 0.5) == [0, 1, 2, 3, 4, 5]
    images, truth = views()
    assert scenes_of(image_distances(images), 12.0) == truth


@pytest.mark.parametrize('seed', range(20))
def test_no_scene_is_on_two_sides_and_no_split_is_empty(seed):
    rng = np.random.default_rng(seed)
    scenes = rng.integers(0, 12, 200).tolist()
    splits = split_scenes(scenes, {'train': 0.6, 'val': 0.25, 'test': 0.15})
    assert len(set(zip(scenes, splits, strict=True))) == len(set(scenes))
    shares = [splits.count(name) / 200 for name in ('train', 'val', 'test')]
    np.testing.assert_allclose(shares, [0.6, 0.25, 0.15], atol=0.1)


def test_few_large_scenes_still_fill_every_split():
    splits = split_scenes([0] * 90 + [1] * 6 + [2] * 4, {'train': 0.6, 'val': 0.3, 'test': 0.1})
    assert set(splits) == {'train', 'val', 'test'}
    with pytest.raises(ConfigError, match='2 scenes cannot fill 3 splits'):
        split_scenes([0, 1, 1], {'a': 0.4, 'b': 0.3, 'c': 0.3})
    with pytest.raises(ConfigError, match='sum to 1'):
        split_scenes([0, 1], {'a': 0.4, 'b': 0.3})


@pytest.fixture
def folder(tmp_path):
    images, _ = views()
    for part in ('images', 'labels'):
        (tmp_path / part).mkdir()
    for index, photo in enumerate(images):
        cv2.imwrite(str(tmp_path / f'images/p{index:02d}.png'), photo[:, :, ::-1])
        labels = np.full(photo.shape[:2], index % 2, np.uint8)
        cv2.imwrite(str(tmp_path / f'labels/p{index:02d}.png'), labels)
    (tmp_path / 'classes.yaml').write_text('classes: [{name: water}, {name: sky}]\n')
    return tmp_path


def test_the_command_writes_the_file_and_folders_follow_it(folder, capsys):
    shares = ['--shares', 'train=0.5', 'val=0.3', 'test=0.2']
    assert main(['scenes', str(folder), *shares]) == 0
    assert '30 images, 5 scenes' in capsys.readouterr().out
    lists = {name: load_images('folders', folder, name) for name in ('train', 'val', 'test')}
    assert sum(len(one) for one in lists.values()) == 30
    scenes = [set(one.sequences) for one in lists.values()]
    assert not scenes[0] & scenes[1] | scenes[0] & scenes[2] | scenes[1] & scenes[2]
    assert len(load_images('folders', folder, '')) == 30
    image, labels = lists['val'].read(0)
    assert image.shape[:2] == labels.shape
    with pytest.raises(DataError, match=r"has no 'night'; its splits are test, train, val"):
        load_images('folders', folder, 'night')


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('name,scene,split\na,one,train\nb,one,test\n', 'line 3 puts scene one into test'),
        ('name,scene,split\na,,train\n', 'line 2 lacks one of name, scene, split'),
        ('name,scene,split\n', 'lists no images'),
    ],
)
def test_a_wrong_file_is_named(tmp_path, text, message):
    (tmp_path / 'scenes.csv').write_text(text)
    with pytest.raises(DataError, match=message):
        read_scenes(tmp_path / 'scenes.csv')


def test_a_listed_image_that_is_gone_is_named(folder):
    main(['scenes', str(folder)])
    name = load_images('folders', folder, '').names[0]
    (folder / 'images' / f'{name}.png').unlink()
    with pytest.raises(DataError, match=f'lists {name}, which images/ lacks'):
        load_images('folders', folder, '')
