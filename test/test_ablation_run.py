# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Selection and ablation from YAML to table, on made-up roads and a tiny random backbone."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import yaml

pytest.importorskip('torch')
from tiny_backbones import tiny_backbone

from ood_perception.errors import ConfigError
from trainer.experiments.ablation import main as ablation
from trainer.experiments.selection import main as selection

HEIGHT, WIDTH = 112, 168
ROAD, PAVEMENT, SKY, VOID = 3, 4, 0, 11
COLOURS = {ROAD: (90, 90, 95), PAVEMENT: (150, 130, 120), SKY: (235, 190, 150), VOID: (0, 0, 0)}


def street(seed, odd=False):
    """Return a BGR street with noise, its class ids, and where the odd object is."""
    rng = np.random.default_rng(seed)
    labels = np.full((HEIGHT, WIDTH), SKY, np.uint8)
    labels[42:] = ROAD
    labels[42:, 112:] = PAVEMENT
    image = np.zeros((HEIGHT, WIDTH, 3))
    for value, colour in COLOURS.items():
        image[labels == value] = colour
    anomaly = np.zeros(labels.shape, np.uint8)
    if odd:
        x = int(rng.integers(10, 60))
        anomaly[70:98, x : x + 28] = 1
        image[anomaly == 1] = (30, 20, 220)
    image += rng.normal(0, 6, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8), labels, anomaly


def write(folder, name, image, labels):
    for part, values in (('images', image), ('labels', labels)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / part / f'{name}.png'), values)


def write_objects(folder):
    (folder / 'images').mkdir(parents=True)
    names = [f'{number:06d}.png' for number in range(12)]
    for number, name in enumerate(names):
        colour = np.random.default_rng(number).integers(0, 255, 3)
        cv2.imwrite(str(folder / 'images' / name), np.full((80, 80, 3), colour, np.uint8))
    polygon = [[20, 20, 60, 20, 60, 60, 20, 60]]
    coco = {
        'images': [{'id': n, 'file_name': name} for n, name in enumerate(names)],
        'categories': [{'id': 1, 'name': 'box'}],
        'annotations': [
            {'image_id': n, 'category_id': 1, 'iscrowd': 0, 'segmentation': polygon}
            for n in range(12)
        ],
    }
    (folder / 'instances.json').write_text(json.dumps(coco))


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp('data')
    for split, count, first in (('train', 44, 0), ('val', 8, 100)):
        for number in range(count):
            image, labels, _ = street(first + number)
            write(root / 'camvid' / split, f'a_{number:03d}', image, labels)
    for number in range(3):
        image, _, anomaly = street(200 + number, odd=True)
        write(root / 'lost_and_found_dev', f'{number}', image, anomaly)
        anomaly[:42] = 255
        write(root / 'road_obstacle_dev', f'{number}', image, anomaly)
    write_objects(root / 'outlier_objects')
    return root


@pytest.fixture
def table(data, tmp_path, monkeypatch):
    """Return a function that writes a table's YAML; models come from a tiny backbone."""
    monkeypatch.setattr(
        'trainer.experiments.workbench.load_backbone', lambda choice: tiny_backbone()
    )
    monkeypatch.setenv('OOD_PERCEPTION_CACHE', str(tmp_path / 'cache'))

    def make(sets, rows, **more):
        values = {
            'data': str(data),
            'folder': str(tmp_path / 'out'),
            'report': str(tmp_path / 'report.md'),
            'view': {'size': [HEIGHT, WIDTH], 'policy': 'stretch'},
            'classifier': {'epochs': 2, 'pixel_step': 8, 'learning_rate': 0.01},
            'condensation': {'epochs': 3},
            'sets': sets,
            'resamples': 50,
            'repeats': 1,
            'base': {'layers': [0, 1], 'etalons': 10, 'upsampling': 2},
            'rows': rows,
            **more,
        }
        path = tmp_path / 'table.yaml'
        path.write_text(yaml.safe_dump(values))
        return path

    return make


def test_ablation_from_yaml_to_table(table, tmp_path, capsys, monkeypatch):
    rows = [
        {'name': 'reference'},
        {'name': 'distance', 'varies': 'ingredient', 'score': 'distance'},
        {'name': 'softmax', 'varies': 'ingredient', 'score': 'max_softmax', 'classes': []},
        {'name': 'unified', 'varies': 'selection', 'selection': 'unified', 'classes': []},
        {'name': 'wide', 'varies': 'resolution', 'resolution': 1.5},
        {'name': 'other block', 'varies': 'layer', 'layers': [1, 0], 'calibration': 'paper'},
    ]
    sets = {'road_obstacle_dev': WIDTH, 'lost_and_found_dev': WIDTH}
    path = table(sets, rows, reference='reference')
    ablation([str(path)])
    assert capsys.readouterr().out.strip().endswith('report.md')
    result = json.loads((tmp_path / 'out' / 'ablation.json').read_text())
    records = result['records']
    assert set(records) == set(sets)
    for row in rows:
        assert set(records['lost_and_found_dev'][row['name']]['regions']) == {'image', 'ground'}
        road = records['road_obstacle_dev'][row['name']]['regions']['road']
        assert road['positives'] == 3 * 28 * 28
        assert 0 <= road['intervals']['auroc'][0] <= road['intervals']['auroc'][1] <= 1
    assert records['road_obstacle_dev']['distance']['regions']['road']['auroc'] > 0.9
    assert set(result['differences']) == {row['name'] for row in rows[1:]}
    assert result['latency']['rows']['unified']['head_ms'] > 0
    report = (tmp_path / 'report.md').read_text()
    assert '| layer | other block |' in report
    assert 'AP of reference minus' in report

    def never(*_):
        raise AssertionError('a finished row was computed again')

    monkeypatch.setattr('trainer.experiments.table_run.score_of', never)
    ablation([str(path)])
    assert (tmp_path / 'report.md').read_text() == report


def test_selection_from_yaml_to_choice(table, tmp_path):
    rows = [{'name': 'fine', 'upsampling': 3}, {'name': 'coarse', 'upsampling': 2}]
    selection([str(table({'pasted': WIDTH}, rows))])
    result = json.loads((tmp_path / 'out' / 'selection.json').read_text())
    precisions = {
        name: record['regions']['road']['average_precision']
        for name, record in result['records'].items()
    }
    assert result['chosen'] == max(precisions, key=precisions.get)
    pictures = result['records']['fine']['regions']['road']['pictures']
    assert pictures == 4 + 4  # a tenth of train, half of val
    assert f'Chosen: **{result["chosen"]}**' in (tmp_path / 'report.md').read_text()


def test_a_reference_that_is_no_row_is_named(table):
    path = table({'road_obstacle_dev': WIDTH}, [{'name': 'a'}], reference='b')
    with pytest.raises(ConfigError, match="no row is named 'b'"):
        ablation([str(path)])
