# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""BDD100K, comma10k and GOOSE in their published layouts, and what is missing of them."""

import shutil

import numpy as np
import pytest
from miniatures import values
from owned_sets import write_set

pytest.importorskip('torch')

from ood_perception.errors import ConfigError, DataError
from trainer.datasets import load_images, open_set


def test_bdd100k(tmp_path):
    root = write_set('bdd100k', tmp_path / 'bdd100k', ('train', 'val'), 3)
    got = open_set('bdd100k', tmp_path)
    assert (got.name, got.kind, len(got)) == ('bdd100k/val', 'closed-set', 3)
    assert got.images.classes.names[:2] == ('road', 'sidewalk')
    assert len(got.images.classes.names) == 19
    assert values(got.read(0)[1]) == {0, 1, 10}
    shutil.copytree(root / 'images/10k/val', root / 'images/10k/test')
    assert not open_set('bdd100k/test', tmp_path).labelled
    shutil.rmtree(root / 'labels')
    with pytest.raises(DataError, match=r'masks/val does not exist.*Semantic Segmentation'):
        open_set('bdd100k', tmp_path)


def test_comma10k(tmp_path):
    root = write_set('comma10k', tmp_path / 'comma10k', ('train', 'val'), 3)
    sizes = {split: len(load_images('comma10k', root, split)) for split in ('train', 'val', 'all')}
    assert sizes == {'train': 3, 'val': 3, 'all': 6}
    assert all(name.endswith('9') for name in load_images('comma10k', root, 'val').names)
    assert values(open_set('comma10k', tmp_path).read(0)[1]) == {0, 2}
    with pytest.raises(ConfigError, match="no split 'test'"):
        load_images('comma10k', root, 'test')
    (root / 'masks' / next((root / 'masks').iterdir()).name).unlink()
    with pytest.raises(DataError, match='label files are missing'):
        load_images('comma10k', root, 'all')


def test_goose(tmp_path):
    root = write_set('goose', tmp_path / 'goose', ('train', 'val'), 3)
    got = open_set('goose', tmp_path)
    assert got.images.classes.names == ('sidewalk', 'asphalt', 'soil', 'sky')
    assert got.images.classes.colors[1] == (255, 47, 128)
    assert got.images.sequences == ('2022-07-22_flight',) * 3
    assert got.read(0)[1][0, ::14].tolist() == [1, 0, 2, 3]
    ids = got.images.classes.ids
    assert ids[0] == ids[8] == ids[56] == ids[255] == 255
    folder = root / 'images/val/2022-07-22_flight'
    for path in list(folder.iterdir()):  # as GOOSE-Ex calls it
        path.rename(path.with_name(path.name.replace('_windshield_vis', '_realsense')))
    assert np.array_equal(open_set('goose', tmp_path).read(0)[1], got.images.known(0))


@pytest.mark.parametrize('table', ['', 'class_name,label_key\nsky,1\n', 'a,b\n', None])
def test_a_damaged_table_of_goose_is_named(tmp_path, table):
    root = write_set('goose', tmp_path / 'goose', ('val',), 1)
    path = root / 'goose_label_mapping.csv'
    path.unlink()
    if table is not None:
        path.write_text(table)
    with pytest.raises(DataError, match=r'goose_label_mapping\.csv cannot be read'):
        open_set('goose', tmp_path)
