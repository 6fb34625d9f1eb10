# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Miniatures of the sets with known classes: the good case and each damage."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from miniatures import HEIGHT, WIDTH, values, write_image, write_label

from ood_perception.errors import DataError

pytest.importorskip('torch')

from trainer.data.images import content_sha256
from trainer.datasets import load_images, open_set


def lars(root, names=('yt003_00530', 'yt003_00540', 'davimar_0001_01')):
    base = root / 'lars'
    for split in ('val', 'test'):
        for name in names:
            write_image(base / split / f'images/{name}.jpg')
            if split == 'val':
                write_label(base / split / f'semantic_masks/{name}.png', 0, 1, 2, 255)
                write_segments(base / split / f'panoptic_masks/{name}.png')
        (base / split / 'image_list.txt').write_text('\n'.join(names) + '\n')
    annotations = {
        'annotations': [
            {
                'file_name': f'{name}.png',
                'segments_info': [
                    {'id': 3, 'category_id': 3},
                    {'id': 12 + 256, 'category_id': 12},
                    {'id': 12 + 65536 * 2, 'category_id': 12},
                ],
            }
            for name in names
        ],
        'categories': [{'id': 3, 'name': 'Water'}, {'id': 12, 'name': 'Row boats'}],
    }
    (base / 'val/panoptic_annotations.json').write_text(json.dumps(annotations))
    return base


def write_segments(path, red=12):
    """Water, void, and two boats: R = category, G and B = instance."""
    red_green_blue = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    red_green_blue[:, 2:4] = (3, 0, 0)
    red_green_blue[:, 4:6] = (red, 1, 0)
    red_green_blue[:, 6:] = (12, 0, 2)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), red_green_blue[:, :, ::-1])


def test_lars(tmp_path):
    lars(tmp_path)
    got = open_set('lars', tmp_path)
    assert (got.name, got.kind, len(got)) == ('lars/val', 'maritime', 3)
    assert got.images.sequences == ('yt003', 'yt003', 'davimar_0001')
    assert values(got.read(0)[1]) == {0, 1, 2, 255}
    assert got.images.classes.colors[0] == (247, 195, 37)
    hidden = open_set('lars/test', tmp_path)
    assert (hidden.labelled, hidden.panoptic, hidden.read(0)[1]) == (False, None, None)


def test_lars_segments(tmp_path):
    lars(tmp_path)
    segments = open_set('lars/val', tmp_path).panoptic(2)
    ids = segments.panoptic[0].astype(int) @ [1, 256, 65536]
    assert ids[::2].tolist() == [0, 3, 268, 131084]
    assert {segments.categories[i] for i in ids[4:].tolist()} == {12}


def test_a_part_of_a_set_keeps_all_that_it_has(tmp_path):
    lars(tmp_path)
    mvtec(tmp_path)
    whole = open_set('lars/val', tmp_path)
    part = whole.subset([2, 0])
    assert part.images.names == ('davimar_0001_01', 'yt003_00530')
    np.testing.assert_array_equal(part.panoptic(0).panoptic, whole.panoptic(2).panoptic)
    bottles = open_set('mvtec/bottle', tmp_path).subset([3, 1])
    assert bottles.anomalous_images == (False, True)
    assert [values(bottles.read(index)[1]) for index in (0, 1)] == [{0}, {0, 1}]


def test_lars_says_what_is_damaged(tmp_path):
    base = lars(tmp_path)
    got = open_set('lars', tmp_path)
    write_segments(base / 'val/panoptic_masks/yt003_00530.png', red=13)
    with pytest.raises(DataError, match=r'yt003_00530\.png holds segments \[269\] that .*json'):
        got.panoptic(0)
    (base / 'val/panoptic_annotations.json').write_text('{"annotations": 3}')
    with pytest.raises(DataError, match=r'panoptic_annotations\.json cannot be read as COCO'):
        open_set('lars', tmp_path).panoptic(0)
    (base / 'val/semantic_masks/yt003_00540.png').unlink()
    with pytest.raises(DataError, match=r'yt003_00540\.png; unpack lars_v1\.0\.0_annotations'):
        open_set('lars', tmp_path)
    (base / 'val/images/yt003_00540.jpg').unlink()
    with pytest.raises(DataError, match=r'1 of 3 images .*yt003_00540\.jpg; unpack .*_images'):
        open_set('lars', tmp_path)
    (base / 'val/image_list.txt').unlink()
    with pytest.raises(DataError, match=r'image_list\.txt cannot be read'):
        open_set('lars', tmp_path)


def mvtec(root):
    base = root / 'mvtec_anomaly_detection' / 'bottle'
    for number in range(3):
        write_image(base / f'train/good/{number:03d}.png')
    for number in range(2):
        write_image(base / f'test/good/{number:03d}.png')
        write_image(base / f'test/broken_large/{number:03d}.png')
        write_label(base / f'ground_truth/broken_large/{number:03d}_mask.png', 0, 255)
    return base


def test_mvtec(tmp_path):
    mvtec(tmp_path)
    got = open_set('mvtec/bottle', tmp_path)
    assert got.kind == 'inspection'
    assert got.images.names == (
        'broken_large_000', 'broken_large_001', 'good_000', 'good_001',
    )  # fmt: skip
    assert got.anomalous_images == (True, True, False, False)
    assert [values(got.read(index)[1]) for index in range(4)] == [{0, 1}] * 2 + [{0}] * 2
    assert values(got.images.subset([3]).read(0)[1]) == {0}
    assert len(content_sha256(got.images)) == 64
    train = open_set('mvtec/bottle/train', tmp_path)
    assert (len(train), any(train.anomalous_images)) == (3, False)


def test_mvtec_says_what_is_damaged(tmp_path):
    base = mvtec(tmp_path)
    for split in ('', '/cable', '/bottle/val'):
        with pytest.raises(DataError, match=r'it holds bottle; unpack'):
            open_set(f'mvtec{split}', tmp_path)
    mask = write_label(base / 'ground_truth/broken_large/000_mask.png', 0, 7)
    with pytest.raises(DataError, match=r'000_mask\.png holds label ids \[7\]'):
        open_set('mvtec/bottle', tmp_path).read(0)
    mask.unlink()
    with pytest.raises(DataError, match=r'1 of 4 label files .*000_mask\.png; unpack bottle'):
        open_set('mvtec/bottle', tmp_path)


MAPILLARY = {
    'labels': [
        {'name': 'animal--bird', 'readable': 'Bird', 'evaluate': True, 'color': [165, 42, 42]},
        {'name': 'void--ground', 'readable': 'Ground', 'evaluate': False, 'color': [0, 0, 0]},
        {'name': 'road', 'readable': 'Road', 'evaluate': True, 'color': [128, 64, 128]},
    ]
}


def write_palette(path, *ids):
    image = pytest.importorskip('PIL.Image')
    photo = image.fromarray(np.resize(np.array(ids, np.uint8), (HEIGHT, WIDTH)))
    photo = photo.convert('P')
    photo.putpalette([0] * 768)
    photo.putdata(np.resize(np.array(ids, np.uint8), HEIGHT * WIDTH).tolist())
    path.parent.mkdir(parents=True, exist_ok=True)
    photo.save(path)


def mapillary(root, version):
    base = root / 'mapillary_vistas'
    inner = '' if version == 1 else 'v2.0/'
    for name in ('-0AbC', 'xYz_1'):
        for part in ('validation', 'testing'):
            write_image(base / part / f'images/{name}.jpg')
        write_palette(base / f'validation/{inner}labels/{name}.png', 0, 1, 2)
    config = 'config.json' if version == 1 else 'config_v2.0.json'
    (base / config).write_text(json.dumps(MAPILLARY))
    return base


@pytest.mark.parametrize(('version', 'split'), [(1, 'validation'), (2, 'validation_v2.0')])
def test_mapillary(tmp_path, version, split):
    mapillary(tmp_path, version)
    got = open_set(f'mapillary/{split}', tmp_path)
    assert (len(got), got.kind) == (2, 'closed-set')
    assert got.images.classes.names == ('Bird', 'Road')
    assert got.images.classes.colors == ((165, 42, 42), (128, 64, 128))
    assert got.read(0)[1][0, :3].tolist() == [0, 255, 1]


def test_mapillary_says_what_is_damaged(tmp_path):
    base = mapillary(tmp_path, 1)
    assert not open_set('mapillary/testing', tmp_path).labelled
    with pytest.raises(DataError, match=r'config_v2\.0\.json does not exist; unpack .* 2\.0'):
        open_set('mapillary/validation_v2.0', tmp_path)
    write_label(base / 'validation/labels/-0AbC.png', 3)
    with pytest.raises(DataError, match=r'-0AbC\.png holds label ids \[3\]'):
        open_set('mapillary', tmp_path).read(0)
    (base / 'validation/labels/-0AbC.png').unlink()
    with pytest.raises(DataError, match=r'1 of 2 label files are missing, .*-0AbC\.png'):
        open_set('mapillary', tmp_path)
    (base / 'config.json').write_text('{"labels": [{}]}')
    with pytest.raises(DataError, match=r'config\.json cannot be read as Mapillary'):
        open_set('mapillary', tmp_path)


def idd(root, suffix='.png', painted=True):
    base = root / 'IDD_Segmentation'
    for drive in ('0', '102'):
        for frame in ('frame0001', 'frame0029'):
            write_image(base / f'leftImg8bit/val/{drive}/{frame}_leftImg8bit{suffix}')
            gt = base / f'gtFine/val/{drive}/{frame}_gtFine'
            write_label(base / 'x.png')
            gt.parent.mkdir(parents=True, exist_ok=True)
            gt.with_name(f'{gt.name}_polygons.json').write_text('{}')
            if painted:
                write_label(gt.with_name(f'{gt.name}_labellevel3Ids.png'), 0, 25, 255)
    return base


@pytest.mark.parametrize('suffix', ['.png', '.jpg'])
def test_idd(tmp_path, suffix):
    base = idd(tmp_path, suffix)
    got = open_set('idd', tmp_path)
    assert got.images.names[1:3] == ('0_frame0029', '102_frame0001')
    assert got.images.sequences == ('0', '0', '102', '102')
    assert values(got.read(0)[1]) == {0, 25, 255}
    assert len(got.images.classes.names) == len(set(got.images.classes.names)) == 26
    assert len(load_images('idd', base, 'val')) == 4


def test_idd_says_how_to_paint_the_polygons(tmp_path):
    base = idd(tmp_path, painted=False)
    with pytest.raises(DataError, match=r'level3Ids\.png; .*createLabels\.py'):
        open_set('idd', tmp_path)
    with pytest.raises(DataError, match=r'leftImg8bit/train does not exist; unpack IDD'):
        open_set('idd/train', tmp_path)
    assert base.is_dir()


def test_cityscapes(tmp_path):
    base = tmp_path / 'cityscapes'
    for city in ('ulm', 'aachen'):
        stem = f'{city}_000000_000019'
        write_image(base / f'leftImg8bit/val/{city}/{stem}_leftImg8bit.png')
        label = base / f'gtFine/val/{city}/{stem}_gtFine_labelIds.png'
        write_label(label, 7, 33, 0)
    got = open_set('cityscapes', tmp_path)
    assert (got.name, len(got), got.images.sequences) == ('cityscapes/val', 2, ('aachen', 'ulm'))
    assert values(got.read(0)[1]) == {0, 18, 255}
    label.unlink()
    with pytest.raises(DataError, match=r'1 of 2 label files are missing, .*aachen_000000_000019'):
        open_set('cityscapes', tmp_path)
    with pytest.raises(
        DataError, match=r'leftImg8bit/train does not exist; unpack leftImg8bit_trainvaltest'
    ):
        open_set('cityscapes/train', tmp_path)


def test_camvid(tmp_path):
    for name in ('0001TP_006690', '0001TP_006720', 'Seq05VD_f00000'):
        write_image(tmp_path / f'camvid/test/images/{name}.png')
        label = write_label(tmp_path / f'camvid/test/labels/{name}.png', 0, 10, 11)
    got = open_set('camvid', tmp_path)
    assert (got.name, got.kind) == ('camvid/test', 'closed-set')
    assert got.images.sequences == ('0001TP', '0001TP', 'Seq05VD')
    assert values(got.read(2)[1]) == {0, 10, 255}
    write_label(label, 12)
    with pytest.raises(DataError, match=r'f00000\.png holds label ids \[12\]'):
        got.read(2)


CLASSES_YAML = 'classes: [{name: floor, ids: [1, 2], color: [1, 2, 3]}]\nignored: [0]\n'


def test_folders_with_and_without_splits(tmp_path):
    (tmp_path / 'classes.yaml').write_text(CLASSES_YAML)
    for place in ('.', 'night'):
        write_image(tmp_path / place / 'images/a_1.webp')
        write_label(tmp_path / place / 'labels/a_1.png', 0, 1, 2)
    for address in (f'folders={tmp_path}', f'folders/night={tmp_path}'):
        got = open_set(address, tmp_path)
        assert got.name == address.partition('=')[0]
        assert values(got.read(0)[1]) == {0, 255}
        assert got.images.classes.names == ('floor',)
    with pytest.raises(DataError, match=r'day/images does not exist'):
        open_set(f'folders/day={tmp_path}', tmp_path)
    (tmp_path / 'classes.yaml').unlink()
    with pytest.raises(DataError, match=r'class map .*classes\.yaml cannot be read'):
        open_set(f'folders={tmp_path}', tmp_path)
