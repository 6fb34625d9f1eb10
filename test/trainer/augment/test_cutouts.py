# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from ood_perception.errors import DataError
from trainer.augment.coco import mask_of
from trainer.augment.cutouts import (
    Cutout,
    PasteSettings,
    cut_out,
    load_cutouts,
    part_of,
    paste_objects,
)
from trainer.data.images import ClassMap, ImageList
from trainer.datasets import SETS
from trainer.datasets.pasted import read_ground, write_pasted_set

ROAD, SKY, VOID = 3, 0, 255


def make_scene(height=120, width=160):
    """Grey road below, sky above, a void strip."""
    labels = np.full((height, width), SKY, np.uint8)
    labels[height // 2 :] = ROAD
    labels[:5] = VOID
    image = np.full((height, width, 3), 90, np.uint8)
    return image, labels


def make_cutout(height=60, width=40, colour=(250, 20, 20)):
    """An ellipse in a vivid colour before a green background that must never show."""
    mask = np.zeros((height, width), np.uint8)
    cv2.ellipse(
        mask, (width // 2, height // 2), (width // 2 - 1, height // 2 - 1), 0, 0, 360, 255, -1
    )
    rgb = np.where(mask[..., None] > 0, np.uint8(colour), np.uint8((0, 255, 0)))
    return Cutout(np.dstack([rgb, mask]), 'a.jpg', 'ball')


def paste(seed, cutouts=None, **settings):
    image, labels = make_scene()
    rng = np.random.default_rng(seed)
    return paste_objects(image, labels, cutouts or [make_cutout()], rng, PasteSettings(**settings))


def test_pixels_change_only_within_object_and_border():
    for seed in range(20):
        got = paste(seed)
        image, labels = make_scene()
        touched = (got.image != image).any(2)
        assert not touched[got.mask == 0].any()
        assert touched[got.mask == 1].all()
        assert (got.mask[labels == VOID] != 0).all()


def test_the_border_is_two_pixels_wide():
    got = paste(3, objects=(1, 1), width=(0.15, 0.15))
    solid = (got.mask == 1).astype(np.uint8)
    ring = cv2.dilate(solid, np.ones((5, 5), np.uint8)) - solid
    _, labels = make_scene()
    np.testing.assert_array_equal(ring == 1, (got.mask == 255) & (labels != VOID))


def test_what_surrounded_the_object_never_bleeds_in():
    for seed in range(20):
        got = paste(seed)
        red, green, _ = np.moveaxis(got.image.astype(int), 2, 0)
        assert green.max() <= 91
        assert (red[got.mask == 1] > green[got.mask == 1]).all()


def test_objects_stand_on_ground():
    _, labels = make_scene()
    for seed in range(30):
        got = paste(seed, objects=(1, 1))
        rows, columns = np.nonzero(got.mask == 1)
        assert rows.size
        lowest = columns[rows == rows.max()]
        assert (labels[rows.max(), lowest] == ROAD).mean() >= 0.9
        assert got.ground[got.mask == 1].all()
        assert got.ground[labels == ROAD].all()


def test_widths_are_log_uniform_within_the_range():
    image, labels = make_scene(600, 800)
    widths = []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        got = paste_objects(
            image, labels, [make_cutout(40, 40)], rng, PasteSettings(objects=(1, 1))
        )
        widths.append(np.count_nonzero((got.mask == 1).any(0)) / 800)
    widths = np.array(widths)
    assert widths.min() > 0.008
    assert widths.max() < 0.205
    assert np.median(np.log(widths)) == pytest.approx(np.log(0.01 * 0.20) / 2, abs=0.35)


def test_objects_never_cover_one_another():
    for seed in range(10):
        got = paste(seed, objects=(3, 3), width=(0.1, 0.1))
        count, _ = cv2.connectedComponents((got.mask == 1).astype(np.uint8))
        assert count - 1 == 3


def test_no_ground_means_no_object():
    image, labels = make_scene()
    labels[labels == ROAD] = SKY
    got = paste_objects(image, labels, [make_cutout()], np.random.default_rng(0), PasteSettings())
    np.testing.assert_array_equal(got.image, image)
    assert not (got.mask == 1).any()


def test_same_seed_same_image_other_seed_other():
    np.testing.assert_array_equal(paste(7).image, paste(7).image)
    assert (paste(7).image != paste(8).image).any()


def test_small_and_cut_off_objects_are_left_out():
    image = np.zeros((50, 60, 3), np.uint8)
    square = mask_of([[10, 10, 30, 10, 30, 30, 10, 30]], 'x')
    assert cut_out(image, square, 100).shape == (21, 21, 4)
    assert cut_out(image, square, 1000) is None
    assert cut_out(image, mask_of([[0, 10, 30, 10, 30, 30, 0, 30]], 'x'), 100) is None


def write_coco(folder, images=8):
    (folder / 'images').mkdir(parents=True)
    names = [f'{number:06d}.jpg' for number in range(images)]
    for name in names:
        cv2.imwrite(str(folder / 'images' / name), np.full((80, 80, 3), 120, np.uint8))
    square = [[20, 20, 60, 20, 60, 60, 20, 60]]
    coco = {
        'images': [{'id': n, 'file_name': name} for n, name in enumerate(names)],
        'categories': [{'id': 1, 'name': 'box'}],
        'annotations': [
            {'image_id': n, 'category_id': 1, 'iscrowd': 0, 'segmentation': square}
            for n in range(images)
        ],
    }
    (folder / 'instances.json').write_text(json.dumps(coco))
    return names


def test_parts_share_no_image(tmp_path):
    names = write_coco(tmp_path)
    parts = {part: load_cutouts(tmp_path, part) for part in ('selection', 'training')}
    images = {part: {c.image for c in cutouts} for part, cutouts in parts.items()}
    assert not images['selection'] & images['training']
    assert images['selection'] | images['training'] == set(names)
    assert all(part_of(name) == 'selection' for name in images['selection'])


def test_licences_choose_the_images(tmp_path):
    write_coco(tmp_path)
    file = tmp_path / 'instances.json'
    content = json.loads(file.read_text())
    mine = [i for i in content['images'] if part_of(i['file_name']) == 'training']
    for image in mine:
        image['license'] = 4 if image is mine[0] else 5
    file.write_text(json.dumps(content))
    of = {n: load_cutouts(tmp_path, 'training', licences=n) for n in ((), (4,), (4, 5))}
    assert [len(of[n]) for n in ((), (4,), (4, 5))] == [len(mine), 1, len(mine)]
    with pytest.raises(DataError, match=r'no object .* under the licences 8'):
        load_cutouts(tmp_path, 'training', licences=(8,))


def test_bad_object_folders_are_named(tmp_path):
    with pytest.raises(DataError, match='is missing'):
        load_cutouts(tmp_path, 'selection')
    write_coco(tmp_path)
    with pytest.raises(DataError, match='unknown part'):
        load_cutouts(tmp_path, 'test')


def write_roads(folder: Path, count=3):
    """Write and list road scenes; labels are class ids already."""
    image, labels = make_scene()
    folder.mkdir(exist_ok=True)
    names = tuple(f'road_{number}' for number in range(count))
    for name in names:
        cv2.imwrite(str(folder / f'{name}.png'), image)
        cv2.imwrite(str(folder / f'{name}_labels.png'), labels)
    return ImageList(
        names,
        tuple(folder / f'{name}.png' for name in names),
        tuple(folder / f'{name}_labels.png' for name in names),
        ('road',) * count,
        ClassMap(('sky', 'road'), ((0, 0, 0),) * 2, {SKY: SKY, ROAD: ROAD, VOID: VOID}),
    )


def test_a_written_set_reads_back_and_is_made_once(tmp_path):
    images, cutouts = write_roads(tmp_path / 'roads'), [make_cutout()]
    made = write_pasted_set(images, cutouts, tmp_path / 'set', PasteSettings(), seed=1)
    assert made.names == ('road_0', 'road_1', 'road_2')
    before, labels = made.read(0)
    assert set(np.unique(labels)) == {0, 1, 255}
    assert read_ground(made.labels[0])[labels == 1].all()
    stamp = made.images[0].stat().st_mtime_ns
    write_pasted_set(images, cutouts, tmp_path / 'set', PasteSettings(), seed=1)
    assert made.images[0].stat().st_mtime_ns == stamp
    write_pasted_set(images, cutouts, tmp_path / 'set', PasteSettings(), seed=2)
    assert (made.read(0)[0] != before).any()


def test_an_images_draw_does_not_depend_on_its_neighbours(tmp_path):
    images, cutouts = write_roads(tmp_path / 'roads'), [make_cutout()]
    whole = write_pasted_set(images, cutouts, tmp_path / 'a', PasteSettings())
    alone = write_pasted_set(images.subset([2]), cutouts, tmp_path / 'b', PasteSettings())
    np.testing.assert_array_equal(whole.read(2)[0], alone.read(0)[0])


def write_set(folder, label_values):
    for part in ('images', 'labels'):
        (folder / part).mkdir()
    cv2.imwrite(str(folder / 'images' / '0.png'), np.zeros((1, len(label_values), 3), np.uint8))
    cv2.imwrite(str(folder / 'labels' / '0.png'), np.array([label_values], np.uint8))


def test_layouts_translate_ids_and_refuse_unknown_ones(tmp_path):
    write_set(tmp_path, [0, 2])
    _, got = SETS['road_anomaly_dev'].images(tmp_path, '').read(0)
    np.testing.assert_array_equal(got, [[0, 1]])
    with pytest.raises(DataError, match=r'0.png holds label ids \[2\]'):
        SETS['lost_and_found_dev'].images(tmp_path, '').read(0)


def test_ignored_pixels_stay_ignored(tmp_path):
    write_set(tmp_path, [0, 1, 255])
    _, got = SETS['road_obstacle_dev'].images(tmp_path, '').read(0)
    np.testing.assert_array_equal(got, [[0, 1, 255]])


def test_anomaly_sets_name_what_is_missing(tmp_path):
    with pytest.raises(DataError, match='does not exist'):
        SETS['road_anomaly_dev'].images(tmp_path, '')
