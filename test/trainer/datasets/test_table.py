# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The table of sets: addresses, folders, splits, and one error that says what to do."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from ood_perception.errors import ConfigError, DataError

pytest.importorskip('torch')
from paths import ROOT, need_data

from trainer.datasets import LAYOUTS, SETS, list_sets, open_set
from trainer.datasets.table import FILES, EvaluationSet


def write_anomaly_folders(folder, ids=(0, 1, 255)):
    for part, shape in (('images', (4, 6, 3)), ('labels', (4, 6))):
        (folder / part).mkdir(parents=True)
        for name in ('drive_0', 'drive_1'):
            pixels = np.full(shape, 90, np.uint8)
            if part == 'labels':
                pixels = np.resize(np.array(ids, np.uint8), shape)
            cv2.imwrite(str(folder / part / f'{name}.png'), pixels)
    return folder


def test_an_address_names_set_split_and_folder(tmp_path):
    write_anomaly_folders(tmp_path / 'mine')
    got = open_set(f'anomaly_folders={tmp_path / "mine"}', tmp_path / 'elsewhere')
    assert (len(got), got.kind, got.roi, got.labelled) == (2, 'anomaly', 'image', True)
    image, labels = got.read(1)
    assert image.shape == (4, 6, 3)
    assert set(np.unique(labels)) == {0, 1, 255}


def test_a_usual_folder_is_found_under_the_root(tmp_path):
    write_anomaly_folders(tmp_path / 'road_obstacle_dev')
    got = open_set('road_obstacle_dev', tmp_path)
    assert (got.roi, got.track) == ('road', 'ObstacleTrack')


def test_mistakes_are_told_with_what_is_known(tmp_path):
    with pytest.raises(ConfigError, match=r'unknown set .kitti.; known are road_anomaly'):
        open_set('kitti', tmp_path)
    with pytest.raises(ConfigError, match="no split 'night'; it has test, val, train"):
        open_set('camvid/night', tmp_path)
    with pytest.raises(DataError, match=r'expected in .*camvid(.*\n)+.*labels/') as error:
        open_set('camvid', tmp_path)
    assert str(tmp_path / 'camvid') in str(error.value)
    with pytest.raises(DataError, match='nowhere does not exist'):
        open_set(f'camvid={tmp_path / "nowhere"}', tmp_path)


def test_the_list_names_every_set():
    lines = list_sets().splitlines()
    assert [line.split('/')[0].split()[0] for line in lines] == list(SETS)


def test_a_wrong_kind_cannot_be_built(tmp_path):
    images = open_set(f'anomaly_folders={write_anomaly_folders(tmp_path / "a")}', tmp_path).images
    with pytest.raises(ValueError, match='unknown'):
        EvaluationSet('x', 'x', images, 'road', 'image', '')


@pytest.mark.parametrize('name', ['road_anomaly_dev', 'road_obstacle_dev', 'lost_and_found_dev'])
def test_the_shared_sets_open_by_their_names(name):
    root = need_data(name).parent
    _, labels = open_set(name, root).read(0)
    assert set(np.unique(labels)) <= {0, 1, 255}
    assert (labels == 1).any()


def test_a_broken_image_is_named(tmp_path):
    folder = write_anomaly_folders(tmp_path / 'broken')
    (folder / 'images' / 'drive_0.png').write_bytes(b'\x89PNG\r\n\x1a\n truncated')
    got = open_set(f'anomaly_folders={folder}', tmp_path)
    with pytest.raises(DataError, match=r'drive_0\.png is broken'):
        got.read(0)
    got.read(1)


def test_the_documentation_lists_every_set_and_split():
    text = (ROOT / 'docs' / 'datasets.md').read_text(encoding='utf-8')
    rows = [line for line in text.splitlines() if line.startswith('| `')]
    cells = {
        name: line.split('|')[1]
        for line in rows
        for name in SETS
        if f'`{name}`' in line or f'`{name}/' in line or f'`{name}=' in line
    }
    assert set(cells) == set(SETS)
    for name, entry in SETS.items():
        for split in filter(None, entry.split_names):
            assert f'/{split}`' in cells[name] or f'`{split}`' in cells[name], (name, split)
        assert entry.tree.strip(), name


def test_every_file_of_sets_is_in_the_table():
    folder = ROOT / 'trainer' / 'datasets' / 'sets'
    assert {path.stem for path in folder.iterdir()} == set(FILES)


def test_every_entry_and_layout_says_what_it_is():
    assert all(entry.description and entry.folders for entry in SETS.values())
    assert set(LAYOUTS) <= set(SETS)
