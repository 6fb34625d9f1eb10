# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The open roads: three sources of one meaning, our polygons, no image in two splits."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

pytest.importorskip('torch')
from paths import ROOT, need_data

from ood_perception.errors import ConfigError
from trainer.augment.views import ViewSettings, draw_views
from trainer.datasets import load_images
from trainer.datasets.road_open import (
    BRAZIL,
    CARND,
    COMMA,
    POLYGONS,
    SOURCES,
    painted,
    polygons,
)


def write(folder, name, labels=None):
    (folder / 'images').mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / 'images' / f'{name}.png'), np.full((40, 60, 3), 90, np.uint8))
    if labels is not None:
        (folder / 'labels').mkdir(exist_ok=True)
        cv2.imwrite(str(folder / 'labels' / f'{name}.png'), np.resize(labels, (40, 60)))


@pytest.fixture
def root(tmp_path):
    for road in ('DF010', 'ES259'):
        for number in range(6):
            write(tmp_path / BRAZIL, f'{road}_{number}', np.uint8([0, 1, 2, 255]))
    for number in (0, 15, 30, 45):
        write(tmp_path / CARND, f'solidWhiteRight_{number:05d}')
    write(tmp_path / CARND, 'nobody_drew_this_0')
    for number in range(4):
        write(tmp_path / COMMA, f'{number:04d}_drive', np.uint8([0, 1, 2, 3, 4, 255]))
    return tmp_path / BRAZIL


def classes_of(images, source):
    index = next(i for i, s in enumerate(images.sequences) if s.startswith(source))
    return images.read(index)[1]


def test_every_source_is_read_with_its_own_ids(root):
    images = load_images('road_open', root, 'all')
    assert set(np.unique(classes_of(images, BRAZIL))) == {0, 255}  # never "not road"
    brazil = classes_of(images, BRAZIL).ravel()
    np.testing.assert_array_equal(brazil[:4], [0, 0, 255, 255])  # a pothole is ignored
    comma = classes_of(images, COMMA).ravel()
    np.testing.assert_array_equal(comma[:6], [0, 0, 1, 1, 255, 255])
    assert set(np.unique(classes_of(images, CARND))) == {0, 1, 255}
    assert not any('nobody' in name for name in images.names)


def test_splits_share_no_image_and_hold_every_source(root):
    train, val = (load_images('road_open', root, split) for split in ('train', 'val'))
    assert not set(train.names) & set(val.names)
    for part in (train, val):
        assert {s.partition('/')[0] for s in part.sequences} == set(SOURCES)
    assert {s for s in val.sequences if s.startswith(BRAZIL)} == {f'{BRAZIL}/ES259'}
    assert len(load_images('road_open', root, COMMA)) == 4
    with pytest.raises(ConfigError, match='choose train, val, all'):
        load_images('road_open', root, 'night')


def test_dense_is_train_with_every_frame_of_the_survey(root):
    train, dense, val = (load_images('road_open', root, s) for s in ('train', 'dense', 'val'))
    assert set(train.names) < set(dense.names)
    assert not set(dense.names) & set(val.names)
    assert sum(s.startswith(BRAZIL) for s in dense.sequences) == 6


def test_a_list_that_is_drawn_from_keeps_how_its_labels_are_read(root):
    images = load_images('road_open', root, 'all')
    index = next(i for i, s in enumerate(images.sequences) if s.startswith(CARND))
    (drawn,) = [draw_views(images.subset([index]), ViewSettings(views=1))]
    np.testing.assert_array_equal(drawn.read(0)[1], images.read(index)[1])


def test_polygons_scale_with_the_image_and_stay_inside():
    for name, classes in polygons().items():
        corners = np.concatenate([np.array(p) for part in classes.values() for p in part])
        assert corners.min() >= 0, name
        assert corners.max() <= 1, name
        small, large = painted(name, (90, 160)), painted(name, (360, 640))
        assert {0, 1} <= set(np.unique(large))
        assert (small != large[2::4, 2::4]).mean() < 0.03


def test_the_road_lies_below_the_rest_and_looks_alike():
    images = load_images('road_open', need_data(BRAZIL), CARND)
    for index in range(len(images)):
        image, labels = images.read(index)
        rows = np.arange(len(labels))[:, None] * np.ones_like(labels)
        assert rows[labels == 0].mean() > rows[labels == 1].mean() + 0.2 * len(labels)
        # asphalt is grey; sky and dry grass are not
        spread = np.ptp(image.astype(int), axis=2)
        assert np.median(spread[labels == 0]) <= 32


def test_a_source_can_be_left_out_of_fit_and_calibration(root):
    for source in SOURCES:
        for split in (f'without_{source}', f'without_{source}_val'):
            found = {s.partition('/')[0] for s in load_images('road_open', root, split).sequences}
            assert found == set(SOURCES) - {source}
    whole = load_images('road_open', root, 'train')
    part = load_images('road_open', root, f'without_{COMMA}')
    assert set(part.names) == {name for name in whole.names if not name.startswith(COMMA)}


def test_the_polygons_are_installed_with_the_trainer():
    text = (ROOT / 'setup.py').read_text(encoding='utf-8')
    assert f"'{POLYGONS.parent.parent.name}/{POLYGONS.parent.name}/*.json'" in text
