# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Layouts, class maps and splits, and the errors that name the wrong file."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from ood_perception.errors import ConfigError, DataError

pytest.importorskip('torch')

from camvid_files import write_camvid, write_pair

from trainer.data.class_map import class_map_of
from trainer.data.images import (
    IGNORED,
    content_sha256,
)
from trainer.datasets import LAYOUTS, SETS, load_images


def test_camvid_reads_images_labels_and_drives(tmp_path):
    images = load_images('camvid', write_camvid(tmp_path), 'train')
    assert len(images) == 12
    assert images.sequences == ('0001TP',) * 4 + ('0006R0',) * 8
    image, labels = images.read(5)
    stored = cv2.imread(str(images.images[5]))
    np.testing.assert_array_equal(image, stored[:, :, ::-1])
    assert (labels == 1).all()
    assert images.classes.names[3:5] == ('Road', 'Pavement')


def test_camvid_void_is_ignored(tmp_path):
    root = write_camvid(tmp_path)
    write_pair(
        root / 'train/images/0001TP_00000.png',
        root / 'train/labels/0001TP_00000.png',
        np.array([[11, 0], [255, 10]], np.uint8),
    )
    _, labels = load_images('camvid', root, 'train').read(0)
    assert labels.tolist() == [[IGNORED, 0], [IGNORED, 10]]


def test_cityscapes_maps_label_ids_to_train_ids(tmp_path):
    stem = 'ulm_000000_000019'
    ids = np.array([[7, 8, 0], [33, 3, 26]], np.uint8)
    write_pair(
        tmp_path / f'leftImg8bit/val/ulm/{stem}_leftImg8bit.png',
        tmp_path / f'gtFine/val/ulm/{stem}_gtFine_labelIds.png',
        ids,
    )
    images = load_images('cityscapes', tmp_path, 'val')
    assert images.sequences == ('ulm',)
    assert images.read(0)[1].tolist() == [[0, 1, IGNORED], [18, IGNORED, 13]]
    names = SETS['cityscapes'].class_map.names
    assert (len(names), names[13]) == (19, 'car')


@pytest.mark.parametrize('name', ['cityscapes', 'issu'])
def test_train_ids_and_label_ids_are_not_mistaken(tmp_path, name):
    base = tmp_path if name == 'cityscapes' else tmp_path / 'ISSU-Train'
    folder, mark = {
        'cityscapes': ('gtFine', '_gtFine_labelIds'), 'issu': ('gtFine_csT', '_gtFine_csT'),
    }[name]  # fmt: skip
    train_ids, label_ids = [[0, 1, 2], [18, 255, 13]], [[7, 8, 11], [33, 0, 26]]
    wrong, right = (train_ids, label_ids) if name == 'cityscapes' else (label_ids, train_ids)
    for number in range(2):
        image = base / f'leftImg8bit/val/ulm/ulm_{number}_leftImg8bit.png'
        label = base / f'{folder}/val/ulm/ulm_{number}{mark}.png'
        write_pair(image, label, np.array(wrong, np.uint8))
    with pytest.raises(DataError, match=r'train ids under the name of|label ids \[26, 33\]'):
        load_images(name, tmp_path, 'val').read(0)
    write_pair(image, label, np.array(right, np.uint8))
    assert load_images(name, tmp_path, 'val').read(1)[1].tolist() == [
        [0, 1, 2], [18, IGNORED, 13],
    ]  # fmt: skip


def test_cityscapes_names_the_missing_label_file(tmp_path):
    path = tmp_path / 'leftImg8bit/val/ulm/ulm_1_2_leftImg8bit.png'
    write_pair(path, tmp_path / 'elsewhere.png', np.zeros((2, 2), np.uint8))
    with pytest.raises(DataError, match=r'ulm_1_2_gtFine_labelIds\.png'):
        load_images('cityscapes', tmp_path, 'val')


def test_plain_folders_take_their_classes_from_yaml(tmp_path):
    (tmp_path / 'classes.yaml').write_text(
        'classes:\n'
        '  - {name: water, color: [0, 0, 255], ids: [1, 4]}\n'
        '  - {name: sky, color: [200, 200, 255], ids: [2]}\n'
        'ignored: [0, 255]\n'
    )
    ids = np.array([[0, 1, 2, 4]], np.uint8)
    write_pair(tmp_path / 'train/images/a.png', tmp_path / 'train/labels/a.png', ids)
    images = load_images('folders', tmp_path, 'train')
    assert images.classes.names == ('water', 'sky')
    assert images.classes.colors[0] == (0, 0, 255)
    assert images.read(0)[1].tolist() == [[IGNORED, 0, 1, 0]]


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ([], r'expected keys and values, found \[\]; known keys are classes'),
        ({'classes': [{'color': [1, 2, 3]}]}, r"classes 1: lacks \['name'\]"),
        ({'classes': [{'name': 'a', 'color': 'red'}]}, 'color'),
        ({'classes': [{'name': 'a', 'ids': [300]}]}, '300'),
        ({'classes': [{'name': 'a', 'ids': [1]}, {'name': 'b', 'ids': [1]}]}, 'two classes'),
        ({'classes': [{'name': 'a'}, {'name': 'a'}]}, 'different names'),
        ({'classes': []}, 'needs 1 to 254'),
    ],
)
def test_wrong_class_maps_are_refused(content, message):
    with pytest.raises(DataError, match=message):
        class_map_of(content, 'map.yaml')


def test_errors_name_the_file(tmp_path):
    root = write_camvid(tmp_path)
    images = load_images('camvid', root, 'train')
    first, second, third, fourth = (images.labels[i] for i in range(4))
    cv2.imwrite(str(first), np.zeros((6, 16), np.uint8))
    cv2.imwrite(str(second), np.full((12, 16), 77, np.uint8))
    cv2.imwrite(str(third), np.zeros((12, 16, 3), np.uint8))
    fourth.write_bytes(b'no image')
    for index, part in enumerate(['16 x 6 pixels', r'ids \[77\]', 'one channel', 'decoded']):
        with pytest.raises(DataError, match=part) as caught:
            images.read(index)
        assert str(images.labels[index]) in str(caught.value)
    images.images[4].unlink()
    with pytest.raises(DataError, match=str(images.images[4])):
        images.read(4)


def test_missing_labels_and_empty_folders_are_refused(tmp_path):
    root = write_camvid(tmp_path)
    (root / 'train/labels/0006R0_00003.png').unlink()
    with pytest.raises(DataError, match=r'0006R0_00003\.png'):
        load_images('camvid', root, 'train')
    with pytest.raises(DataError, match='does not exist'):
        load_images('camvid', root, 'val')
    (root / 'val/images').mkdir(parents=True)
    with pytest.raises(DataError, match='holds no images'):
        load_images('camvid', root, 'val')
    with pytest.raises(ConfigError, match='known are'):
        load_images('kitti', root, 'val')
    assert {'camvid', 'cityscapes', 'folders'} <= set(LAYOUTS)


def test_the_digest_follows_content(tmp_path):
    images = load_images('camvid', write_camvid(tmp_path), 'train')
    before = content_sha256(images)
    assert content_sha256(images) == before
    assert content_sha256(images.subset(range(11))) != before
    cv2.imwrite(str(images.labels[0]), np.full((12, 16), 2, np.uint8))
    assert content_sha256(images) != before
