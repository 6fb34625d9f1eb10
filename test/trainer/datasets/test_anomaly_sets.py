# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Miniatures of the anomaly sets in their published trees: the good case and each damage."""

from __future__ import annotations

import pytest
from miniatures import values, write_image, write_label
from paths import need_data

from ood_perception.errors import ConfigError, DataError

pytest.importorskip('torch')

from trainer.datasets import load_images, open_set

ALL = {0, 1, 255}


def road_anomaly(root):
    frames = root / 'RoadAnomaly_jpg' / 'frames'
    for number in range(60):
        write_image(frames / f'animals{number:02d}_somewhere.jpg')
        write_label(frames / f'animals{number:02d}_somewhere.labels/labels_semantic.png', 0, 2)
    return frames


def anomaly_track(root, count=100):
    base = root / 'dataset_AnomalyTrack'
    for number in range(count):
        write_image(base / f'images/street{number:04d}.jpg')
    for number in range(10):
        write_image(base / f'images/validation{number:04d}.jpg')
        write_label(base / f'labels_masks/validation{number:04d}_labels_semantic.png', 0, 1, 255)
    return base


OBSTACLE_SCENES = {
    'curvy-street': 100, 'gravel': 100, 'greyasphalt': 50, 'darkasphalt2': 77,  # 327
    'snowstorm1': 25, 'snowstorm2': 30, 'driveway': 30,
}  # fmt: skip


def obstacle_track(root):
    base = root / 'dataset_ObstacleTrack'
    for scene, count in OBSTACLE_SCENES.items():
        for number in range(count):
            write_image(base / f'images/{scene}_{number}.webp')
    for number in range(1, 41):
        write_image(base / f'images/validation_{number}.webp')
        write_label(base / f'labels_masks/validation_{number}_labels_semantic.png', 0, 1, 255)
    return base


def lost_and_found(root, labels=True):
    """Write 1203 test frames (144 of known things, one of them with empty labels), 1036 train."""
    base = root / 'dataset_LostAndFound'
    scenes = {
        'test': {
            '01_Hanns_Klemm_Str_45': [('000006', 12), ('000007', 11), ('000008', 777)],
            '02_Hanns_Klemm_Str_44': [('000000', 282)],
            '15_Rechbergstr_Deckenpfronn': [('000001', 121)],
        },
        'train': {'03_Hanns_Klemm_Str_19': [('000000', 1036)]},
    }
    for split, folders in scenes.items():
        for scene, drives in folders.items():
            for drive, count in drives:
                for time in range(count):
                    frame = f'{scene}_{drive}_{time:06d}'
                    write_image(base / f'leftImg8bit/{split}/{scene}/{frame}_leftImg8bit.png')
                    if labels:
                        write_label(
                            base / f'gtCoarse/{split}/{scene}/{frame}_gtCoarse_labelIds.png',
                            0, 1, 2, 43,
                        )  # fmt: skip
    return base


def test_road_anomaly(tmp_path):
    road_anomaly(tmp_path)
    got = open_set('road_anomaly', tmp_path)
    assert (len(got), got.kind, got.roi, got.track) == (60, 'anomaly', 'image', '')
    assert got.images.names[7] == 'animals07_somewhere'
    assert values(got.read(3)[1]) == {0, 1}


def test_road_anomaly_says_what_is_damaged(tmp_path):
    frames = road_anomaly(tmp_path)
    label = frames / 'animals05_somewhere.labels/labels_semantic.png'
    write_label(label, 0, 1)
    with pytest.raises(DataError, match=r'animals05.*label ids \[1\]'):
        open_set('road_anomaly', tmp_path).read(5)
    write_label(label, 0, shape=(5, 8))
    with pytest.raises(DataError, match=r'labels_semantic\.png has 8 x 5 .*animals05_.*8 x 6'):
        open_set('road_anomaly', tmp_path).read(5)
    label.unlink()
    with pytest.raises(DataError, match=r'1 of 60 label files .*animals05_.*; unpack RoadAnomaly'):
        open_set('road_anomaly', tmp_path)
    (frames / 'animals05_somewhere.jpg').unlink()
    with pytest.raises(DataError, match=r'has 60 images, .*frames holds 59'):
        open_set('road_anomaly', tmp_path)


def test_anomaly_track(tmp_path):
    anomaly_track(tmp_path)
    got = open_set('smiyc_anomaly', tmp_path)
    assert (got.name, len(got), got.roi) == ('smiyc_anomaly/validation', 10, 'image')
    assert got.track == 'AnomalyTrack'
    assert values(got.read(0)[1]) == ALL
    hidden = open_set('smiyc_anomaly/test', tmp_path)
    assert (len(hidden), hidden.labelled) == (100, False)
    assert hidden.read(4)[1] is None
    assert not any(name.startswith('validation') for name in hidden.images.names)
    assert len(open_set('smiyc_anomaly/all', tmp_path)) == 110


def test_anomaly_track_must_be_whole(tmp_path):
    anomaly_track(tmp_path, count=99)
    with pytest.raises(DataError, match=r'AnomalyTrack test has 100 images, .*images holds 99'):
        open_set('smiyc_anomaly/test', tmp_path)


@pytest.mark.parametrize(
    ('split', 'count'),
    [
        ('validation', 30), ('test', 327), ('no_night', 382), ('snowstorm', 55), ('night', 30),
        ('all', 452),
    ],
)  # fmt: skip
def test_obstacle_track_splits_are_the_benchmarks(tmp_path, split, count):
    obstacle_track(tmp_path)
    got = open_set(f'smiyc_obstacle/{split}', tmp_path)
    assert (len(got), got.roi, got.track) == (count, 'road', 'ObstacleTrack')
    assert got.labelled == (split == 'validation')


def test_obstacle_validation_leaves_out_what_the_benchmark_leaves_out(tmp_path):
    base = obstacle_track(tmp_path)
    got = open_set('smiyc_obstacle', tmp_path)
    left = {int(name.split('_')[1]) for name in got.images.names}
    assert left == set(range(1, 41)) - {19, *range(21, 30)}
    assert set(got.images.sequences) == {'validation'}
    (base / 'labels_masks/validation_2_labels_semantic.png').unlink()
    with pytest.raises(DataError, match=r'validation_2_labels_semantic\.png; unpack the track'):
        open_set('smiyc_obstacle', tmp_path)


@pytest.fixture(scope='module')
def laf(tmp_path_factory):
    return lost_and_found(tmp_path_factory.mktemp('laf')).parent


def test_lost_and_found_splits(laf):
    counts = {
        split: len(open_set(f'smiyc_lost_and_found/{split}', laf))
        for split in ('test_no_known', 'test_valid', 'test', 'train_valid', 'train')
    }
    assert counts == {
        'test_no_known': 1043,
        'test_valid': 1186,
        'test': 1203,
        'train_valid': 1030,
        'train': 1036,
    }


def test_lost_and_found_without_known_things(laf):
    got = open_set('smiyc_lost_and_found', laf)
    assert (got.name, got.roi, got.track) == (
        'smiyc_lost_and_found/test_no_known', 'road', 'LostAndFound',
    )  # fmt: skip
    drives = ('01_Hanns_Klemm_Str_45_000008', '02_Hanns_Klemm_Str_44_000000')
    assert tuple(dict.fromkeys(got.images.sequences)) == drives
    # Place 37 of all test frames, here frame 37 - 23 of drive 000008, has empty labels.
    assert f'{drives[0]}_000014' not in got.images.names
    assert f'{drives[0]}_000015' in got.images.names
    assert values(got.read(0)[1]) == ALL


def test_lost_and_found_says_what_is_missing(tmp_path):
    with pytest.raises(DataError, match=r'expected in .*dataset_LostAndFound or(.*\n)+.*gtCoarse'):
        open_set('smiyc_lost_and_found', tmp_path)
    base = tmp_path / 'dataset_LostAndFound'
    base.mkdir()
    with pytest.raises(DataError, match=r'leftImg8bit/test does not exist; unpack leftImg8bit'):
        open_set('smiyc_lost_and_found', tmp_path)
    write_image(base / 'leftImg8bit/test/01_A_1/01_A_1_000000_000000_leftImg8bit.png')
    with pytest.raises(DataError, match=r'test has 1203 images, .*test holds 1 of them'):
        open_set('smiyc_lost_and_found', tmp_path)


def fishyscapes_published(root, images=True):
    for number in range(100):
        frame = f'04_Maurener_Weg_8_{number // 50:06d}_{number:06d}'
        write_label(
            root / f'fishyscapes/fishyscapes_lostandfound/{number:04d}_{frame}_labels.png',
            0,
            1,
            255,
        )
        if images:
            part = 'train' if number % 2 else 'test'
            folder = root / f'dataset_LostAndFound/leftImg8bit/{part}/04_Maurener_Weg_8'
            write_image(folder / f'{frame}_leftImg8bit.png', seed=number)


def test_fishyscapes_lost_and_found_takes_its_images_from_lost_and_found(tmp_path):
    fishyscapes_published(tmp_path)
    got = open_set('fishyscapes_lost_and_found', tmp_path)
    assert (len(got), got.roi) == (100, 'image')
    assert len(set(got.images.sequences)) == 2
    name = got.images.names[60]
    assert name in got.images.images[60].name
    assert name in got.images.labels[60].name
    assert values(got.read(60)[1]) == ALL


def test_fishyscapes_names_missing_images(tmp_path):
    fishyscapes_published(tmp_path, images=False)
    with pytest.raises(DataError, match=r'100 of 100 images .*_000000.*leftImg8bit in '):
        open_set('fishyscapes_lost_and_found', tmp_path)


@pytest.mark.parametrize(
    ('name', 'part', 'count'),
    [('fishyscapes_static', 'Static', 30), ('fishyscapes_lost_and_found', 'LostAndFound', 100)],
)
def test_fishyscapes_pairs(tmp_path, name, part, count):
    base = tmp_path / 'fishyscapes' / part
    for number in range(count):
        write_image(base / f'original/{number}.jpg')
        write_label(base / f'labels/{number}.png', 0, 1, 255)
    got = open_set(name, tmp_path)
    assert len(got) == count
    assert values(got.read(0)[1]) == ALL
    (base / 'original/3.jpg').unlink()
    with pytest.raises(DataError, match=rf'{count} images, .*original holds {count - 1}'):
        open_set(name, tmp_path)


def test_fishyscapes_says_which_trees_it_knows(tmp_path):
    (tmp_path / 'fishyscapes').mkdir()
    with pytest.raises(DataError, match=r'Static/original does not exist; .*overlays'):
        open_set('fishyscapes_static', tmp_path)


def streethazards(root):
    base = root / 'streethazards'
    for part, town in (
        ('train/{}/training', 't1-3'), ('train/{}/validation', 't4'),
        ('test/{}/test', 't5'), ('test/{}/test', 't6'),
    ):  # fmt: skip
        ids = (*range(1, 14), *([14] if 'test' in part else []))
        for number in (2, 10, 1):
            write_image(base / part.format('images') / town / f'{number}.png')
            write_label(base / part.format('annotations') / town / f'{number}.png', *ids)
    return base


def test_streethazards(tmp_path):
    base = streethazards(tmp_path)
    got = open_set('streethazards', tmp_path)
    assert got.images.names == ('t5_1', 't5_2', 't5_10', 't6_1', 't6_2', 't6_10')
    assert got.images.sequences[2:4] == ('t5', 't6')
    labels = got.read(0)[1]
    known = got.classes.read(0)[1]
    assert values(labels) == {0, 1}
    assert values(known) == {*range(12), 255}
    assert (known[labels == 1] == 255).all()
    assert got.classes.classes.names[6] == 'road'
    train = load_images('streethazards', base, 'train')
    assert (len(train), train.sequences[0]) == (3, 't1-3')
    assert values(train.read(0)[1]) == {*range(12), 255}
    assert values(open_set('streethazards/val', tmp_path).read(0)[1]) == {0}


def test_streethazards_unpacked_by_archive(tmp_path):
    base = streethazards(tmp_path)
    (base / 'streethazards_test').mkdir()
    (base / 'test').rename(base / 'streethazards_test' / 'test')
    assert len(open_set('streethazards/test', tmp_path)) == 6
    assert len(open_set('streethazards/train', tmp_path)) == 3


def test_streethazards_says_what_is_damaged(tmp_path):
    base = streethazards(tmp_path)
    label = write_label(base / 'test/annotations/test/t5/1.png', 0, 15)
    with pytest.raises(DataError, match=r't5/1\.png holds label ids \[0, 15\]'):
        open_set('streethazards', tmp_path).read(0)
    label.unlink()
    with pytest.raises(DataError, match=r'1 of 6 label files .*t5/1\.png; unpack streethazards_t'):
        open_set('streethazards', tmp_path)
    with pytest.raises(ConfigError, match=r"no split 'night'"):
        load_images('streethazards', base, 'night')


ISSU_TESTS = {'Static': ('static', 980), 'Temporal': ('temporal', 1138)}


def issu_composed(root):
    base = root / 'ISSU_datasets'
    parts = [(f'ISSU-Test-{part}', 'test', count) for part, (_, count) in ISSU_TESTS.items()]
    for folder, split, count in (*parts, ('ISSU-Train', 'train', 3), ('ISSU-Train', 'val', 2)):
        for number in range(count):
            place, frame = f'{split}/{number // 500}', f'{number:06d}'
            write_image(base / folder / 'leftImg8bit' / place / f'{frame}_leftImg8bit.png')
            write_label(
                base / folder / 'gtFine_csT' / place / f'{frame}_gtFine_csT.png', 0, 13, 254, 255
            )
    write_image(base / 'ISSU-Test-Temporal/leftImg8bit/test/0/clip_leftImg8bit.png')
    return base


@pytest.fixture(scope='module')
def composed(tmp_path_factory):
    return issu_composed(tmp_path_factory.mktemp('issu')).parent


def test_issu_as_composed(composed):
    got = open_set('issu', composed)
    assert (got.name, len(got), got.roi) == ('issu/test_static', 980, 'image')
    labels, known = got.read(0)[1], got.classes.read(0)[1]
    assert values(labels) == ALL
    assert (values(known[labels == 0]), values(known[labels == 1])) == ({0, 13}, {255})
    assert got.classes.classes.names[13] == 'car'
    films = open_set('issu/test_temporal', composed).images
    assert (len(films), set(films.sequences)) == (1138, {'0', '1', '2'})
    base = composed / 'ISSU_datasets'
    assert [len(load_images('issu', base, split)) for split in ('train', 'val')] == [3, 2]


def test_issu_obstacle_protocol_scores_the_road_alone(composed):
    got = open_set('issu_obstacle/test_static', composed)
    assert got.roi == 'road'
    road, car, odd, void = got.read(0)[1].ravel()[:4].tolist()
    assert (road, car, odd, void) == (0, 255, 1, 255)


def test_issu_as_converted(tmp_path):
    base = tmp_path / 'dataset_ISSUTrack'
    for prefix, count in ISSU_TESTS.values():
        for number in range(count):
            write_image(base / f'images/{prefix}_7_{number:06d}.png')
            write_label(base / f'labels_masks/{prefix}_7_{number:06d}.png', 0, 254)
    got = open_set('issu/test_temporal', tmp_path)
    assert (len(got), set(got.images.sequences)) == (1138, {'temporal_7'})
    (base / 'images/static_7_000004.png').unlink()
    with pytest.raises(DataError, match=r'1 of 980 images .*static_7_000004\.png; compose'):
        open_set('issu', tmp_path)
    (base / 'labels_masks/static_7_000004.png').unlink()
    with pytest.raises(DataError, match=r'test_static has 980 images, .*labels_masks holds 979'):
        open_set('issu', tmp_path)


def test_issu_says_what_is_missing(tmp_path):
    (tmp_path / 'ISSU_datasets').mkdir()
    with pytest.raises(DataError, match=r'Static/gtFine_csT/test does not exist; get the labels'):
        open_set('issu', tmp_path)
    with pytest.raises(ConfigError, match=r'issu has no split .night.'):
        load_images('issu', tmp_path, 'night')


def test_a_split_that_does_not_exist_is_a_users_mistake(tmp_path):
    with pytest.raises(ConfigError, match=r'smiyc_anomaly has no split .train.'):
        open_set('smiyc_anomaly/train', tmp_path)


def test_a_development_sample_is_cut_into_what_chooses_and_what_reports():
    whole, choose, report = (
        open_set(f'road_obstacle_dev{part}', need_data('road_obstacle_dev').parent).images.names
        for part in ('', '/choose', '/report')
    )
    assert len(choose) == len(whole) // 3
    assert sorted((*choose, *report)) == sorted(whole)
