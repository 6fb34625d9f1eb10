# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Objects from files and from code: exact pixels, one seed one set, no image in two parts."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

pytest.importorskip('torch', reason='the trainer needs torch')

from ood_perception.errors import ConfigError, DataError
from trainer.augment.cutouts import PARTS, part_of
from trainer.augment.outlier_sources import (
    OutlierConfig,
    load_cutout_files,
    load_outliers,
    procedural_cutouts,
)


@pytest.fixture
def files(tmp_path):
    """Write ten red squares of 6 x 4 pixels with a transparent rim, in two categories."""
    for index in range(10):
        folder = tmp_path / 'objects' / ('crate' if index % 2 else 'duck')
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.zeros((20, 20, 4), np.uint8)
        pixels[5:11, 8:12] = (10, 20, 200 + index, 255)
        pixels[5, 8, 3] = 90
        cv2.imwrite(str(folder / f'{index}.png'), pixels)
    return tmp_path / 'objects'


def test_files_are_cropped_to_the_object_in_rgb(files):
    found = {c.image: c for part in PARTS for c in load_cutout_files(files, part)}
    assert len(found) == 10
    one = found['crate/3.png']
    assert one.category == 'crate'
    assert one.rgba.shape == (6, 4, 4)
    assert tuple(one.rgba[1, 1]) == (203, 20, 10, 255)
    assert one.rgba[0, 0, 3] == 0  # less than half opaque


def test_the_parts_share_no_file(files):
    parts = [{c.image for c in load_cutout_files(files, part)} for part in PARTS]
    assert all(parts)
    assert not parts[0] & parts[1]


def test_a_file_without_alpha_is_refused_by_name(files):
    cv2.imwrite(str(files / 'flat.png'), np.zeros((5, 5, 3), np.uint8))
    part = part_of('flat.png')
    with pytest.raises(DataError, match=r'flat\.png is no image of 8 bits with alpha'):
        load_cutout_files(files, part)


def test_an_empty_file_and_an_empty_folder_are_refused(files, tmp_path):
    cv2.imwrite(str(files / 'empty.png'), np.zeros((5, 5, 4), np.uint8))
    part = part_of('empty.png')
    with pytest.raises(DataError, match=r'empty\.png has no opaque pixel'):
        load_cutout_files(files, part)
    with pytest.raises(DataError, match='holds no image'):
        load_cutout_files(tmp_path / 'nothing', 'training')


def drawn(objects, part, seed, **options):
    config = OutlierConfig('procedural', objects=objects, seed=seed, **options)
    return procedural_cutouts(config, part)


def test_the_procedural_set_follows_from_its_seed():
    one, again = (drawn(40, 'training', 7) for _ in range(2))
    other = drawn(40, 'training', 8)
    assert all(np.array_equal(a.rgba, b.rgba) for a, b in zip(one, again, strict=True))
    assert not any(np.array_equal(a.rgba, b.rgba) for a, b in zip(one, other, strict=False))
    selection = drawn(40, 'selection', 7)
    assert len(one) + len(selection) == 40
    assert not {c.image for c in one} & {c.image for c in selection}


def test_procedural_objects_fill_their_box_and_vary():
    objects = drawn(80, 'training', 1)
    for one in objects:
        solid = one.rgba[..., 3] > 0
        assert all(edge.any() for edge in (solid[0], solid[-1], solid[:, 0], solid[:, -1]))
        assert set(np.unique(one.rgba[..., 3])) <= {0, 255}
        assert solid.mean() > 0.1
        assert 40 <= max(one.rgba.shape[:2]) <= 360
    assert {c.category for c in objects} == {'blob', 'box', 'polygon', 'star'}
    colours = [one.rgba[one.rgba[..., 3] > 0][:, :3].mean(0) for one in objects]
    assert np.std(colours, axis=0).min() > 20


def test_exclusion_and_number_are_options(files, tmp_path):
    config = OutlierConfig('folder', 'objects', exclude=('duck',))
    data = tmp_path / 'data'
    kept = [c for part in PARTS for c in load_outliers(config, part, data)]
    assert [c.category for c in kept] == ['crate'] * 5
    few = OutlierConfig('procedural', objects=60, most=3)
    assert len(load_outliers(few, 'training', data)) == 3
    assert len(load_outliers(few, 'selection', data)) > 3
    with pytest.raises(ConfigError, match='leaves no object'):
        load_outliers(
            OutlierConfig('folder', 'objects', exclude=('duck', 'crate')), 'training', data
        )


def test_wrong_options_are_refused():
    with pytest.raises(ConfigError, match=r"source 'web': choose one of coco, folder, procedural"):
        OutlierConfig('web')
    with pytest.raises(ConfigError, match='outliers most -1: give at least 0'):
        OutlierConfig(most=-1)
