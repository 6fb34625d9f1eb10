# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Inspection: from folders in MVTec AD's layout to one bundle of all products, a threshold."""

from __future__ import annotations

import re

import cv2
import numpy as np
import pytest
from paths import ROOT

pytest.importorskip('torch')
pytest.importorskip('transformers')
pytest.importorskip('onnx')

from miniatures import write_image, write_label
from safetensors.torch import save_file
from tiny_backbones import tiny_backbone

from ood_perception.bundle.store import load_bundle
from ood_perception.bundle.weights.completion import complete
from ood_perception.engines import create_engine
from ood_perception.engines.base import EngineOptions
from ood_perception.errors import DataError
from ood_perception.metrics.aupro import aupro, image_auroc, region_image
from ood_perception.metrics.pixel import full_curve, pool
from ood_perception.pipeline import Pipeline, Settings
from ood_perception.postprocess.image_score import image_surprisal, image_threshold
from ood_perception.postprocess.output_maps import OutputMaps
from ood_perception.postprocess.roi import RoiSettings
from ood_perception.types import Frame
from trainer.__main__ import main
from trainer.data.splits import split_contiguous
from trainer.datasets import load_images, open_set
from trainer.datasets.tools import industrial_tiles
from trainer.recipe import load_recipe

SHIPPED = ROOT / 'config' / 'train' / 'pixood_mvtec.yaml'
SIDE = 56
COLOURS = {'cork': (150, 110, 60), 'steel': (130, 140, 160)}
SETTINGS = """
backbone: {weights: WEIGHTS, layers: [1, 2]}
view: {height: 56, width: 56, policy: stretch}
classifier: {hidden: 16, epochs: 4, learning_rate: 1.0e-2}
patches: {fewest_patches: 10, fewest_images: 2}
condensation: {etalons: 3, epochs: 4}
"""


def surface(product, rng, defect=False):
    """Return an image of a product, RGB, and its mask; a defect is a block of odd colour."""
    image = rng.normal(COLOURS[product], 12, (SIDE, SIDE, 3))
    mask = np.zeros((SIDE, SIDE), np.uint8)
    if defect:
        mask[20:40, 14:34] = 255
        image[mask > 0] = rng.normal((20, 230, 30), 12, (int((mask > 0).sum()), 3))
    return image.clip(0, 255).astype(np.uint8), mask


def write_products(root, names=tuple(COLOURS), images=24):
    rng = np.random.default_rng(0)
    for product in names:
        plan = [('train', 'good', images), ('test', 'good', 6), ('test', 'dent', 6)]
        for part, kind, count in plan:
            for number in range(count):
                image, mask = surface(product, rng, kind != 'good')
                path = root / product / part / kind / f'{number:03d}.png'
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), image[..., ::-1])
                if kind != 'good':
                    truth = root / product / 'ground_truth' / kind / f'{number:03d}_mask.png'
                    truth.parent.mkdir(parents=True, exist_ok=True)
                    cv2.imwrite(str(truth), mask)
    return root


def train(root, data):
    """Train the shipped recipe with a tiny backbone; return the bundle's folder."""
    state = tiny_backbone().model.state_dict()
    save_file({k: v.contiguous() for k, v in state.items()}, root / 'tiny.safetensors')
    import yaml

    recipe = yaml.safe_load(SHIPPED.read_text())
    small = yaml.safe_load(SETTINGS.replace('WEIGHTS', str(root / 'tiny.safetensors')))
    recipe = {**recipe, **small}
    recipe['bundle']['ship_weights'] = True
    (root / 'recipe.yaml').write_text(yaml.safe_dump(recipe))
    places = ['--out', str(root / 'out'), '--cache', str(root / 'cache'), '--quiet']
    code = main(['train', str(root / 'recipe.yaml'), '--data', str(data), *places])
    assert code == 0
    return root / 'out' / 'bundle'


@pytest.fixture(scope='module')
def station(tmp_path_factory):
    """Return (data, bundle) of two products in one model."""
    root = tmp_path_factory.mktemp('station')
    data = write_products(root / 'mvtec_anomaly_detection')
    return data, train(root, data)


def test_every_product_is_a_class_over_the_whole_of_its_flawless_images(tmp_path):
    for product, count in (('screw', 4), ('bottle', 3)):
        for number in range(count):
            write_image(tmp_path / f'{product}/train/good/{number:03d}.png', seed=number)
        write_image(tmp_path / f'{product}/test/scratch/000.png')
    images = load_images('mvtec', tmp_path, 'train')
    assert images.classes.names == ('bottle', 'screw')
    assert len(set(images.classes.colors)) == 2
    assert images.names[0] == 'bottle_000'
    assert images.sequences == ('bottle',) * 3 + ('screw',) * 4
    assert {int(images.read(0)[1].max()), int(images.read(0)[1].min())} == {0}
    fit, held_out = split_contiguous(images, 0.25)
    assert held_out.names == ('bottle_002', 'screw_003'), 'the end of every product calibrates'
    assert set(np.unique(held_out.read(1)[1])) == {1}, 'a part keeps the product as its class'
    assert len(fit) == 5
    with pytest.raises(DataError, match='train on the split "train"'):
        load_images('mvtec', tmp_path, 'test')
    with pytest.raises(DataError, match='the products none'):
        load_images('mvtec', tmp_path / 'bottle', 'train')


def tiles(root, free, defects):
    """Write a miniature of the magnetic tiles by the numbers in their names."""
    for index, number in enumerate(free):
        write_image(root / 'images' / f'free_exp{index % 6 + 1}_num_{number}.jpg', seed=number)
    for kind, number in defects:
        write_image(root / 'images' / f'{kind}_exp2_num_{number}.jpg', seed=number)
        write_label(root / 'labels' / f'{kind}_exp2_num_{number}.png', 0, 1)
    return root


def test_tiles_become_a_product_whose_series_are_not_torn(tmp_path, capsys):
    free = [100, 150, 600, 5000, 5400, 9000, 9400, 9800, 20000, 30000, 40000, 50000]
    source = tiles(tmp_path / 'tiles', free, [('crack', 120), ('fray', 7)])
    write_image(source / 'images' / 'fray_exp1_num_8.jpg')
    write_label(source / 'labels' / 'fray_exp1_num_8.png', 0)
    target = tmp_path / 'mvtec_anomaly_detection'
    assert industrial_tiles.main([str(source), str(target)]) == 0
    names = {
        part: sorted(int(p.stem) for p in (target / 'tile' / part).iterdir())
        for part in ('train/good', 'test/good', 'test/crack', 'test/fray')
    }
    # Series: 100-600, 5000-5400, 9000-9800, and four alone; every third is for testing.
    assert names['test/good'] == [9000, 9400, 9800, 40000]
    assert sorted(names['train/good'] + names['test/good']) == free
    assert (names['test/crack'], names['test/fray']) == ([120], [7])
    got = open_set('mvtec/tile', tmp_path)
    assert sum(got.anomalous_images) == 2
    assert set(np.unique(got.read(0)[1])) == {0, 1}
    image = cv2.imread(str(source / 'images' / 'free_exp1_num_100.jpg'))
    copied = cv2.imread(str(target / 'tile/train/good/000100.png'))
    np.testing.assert_array_equal(image, copied)
    assert '1 left out: no defect is marked' in capsys.readouterr().out
    assert industrial_tiles.main([str(source), str(target)]) == 2, 'nothing is overwritten'
    write_image(source / 'images' / 'odd.jpg')
    assert industrial_tiles.main([str(source), str(tmp_path / 'new')]) == 2
    assert not (tmp_path / 'new' / 'tile').exists(), 'nothing half-written stays'


def test_one_model_serves_all_products_and_a_defect_stands_out(station):
    data, path = station
    bundle = complete(load_bundle(path))
    assert [spec.name for spec in bundle.manifest.classes] == ['cork', 'steel']
    assert bundle.manifest.in_distribution == ('cork', 'steel'), 'empty = all products'
    with create_engine(bundle, EngineOptions(threads=1)) as engine:
        for product, other in (('cork', 'steel'), ('steel', 'cork')):
            settings = Settings(in_distribution=(product,), roi=RoiSettings('none'))
            pipeline = Pipeline(bundle, engine, settings)
            test = open_set(f'mvtec/{product}', data.parent)
            regions, scores = [], []
            for index in range(len(test)):
                image, labels = test.read(index)
                (found,) = pipeline.run([Frame(image)])
                regions.append(region_image(OutputMaps(found).image('surprisal'), labels))
                scores.append(image_surprisal(found.surprisal, found.scored))
            anomalous = np.array(test.anomalous_images, np.uint8)
            assert image_auroc(np.array(scores), anomalous)[0] == 1.0
            product = pool(regions)
            assert aupro(full_curve(product), product.components) > 0.8
            foreign = cv2.imread(str(data / other / 'test/good/000.png'))[..., ::-1]
            (found,) = pipeline.run([Frame(np.ascontiguousarray(foreign))])
            good = np.array(scores)[anomalous == 0].max()
            assert image_surprisal(found.surprisal, found.scored, 0.5) > 0.5 * good, (
                'another product is not the product on the line'
            )


def test_the_threshold_comes_from_flawless_images_alone(station, capsys):
    data, path = station
    folder = data / 'steel' / 'train' / 'good'
    arguments = [str(path), '--good', str(folder), '--in-distribution', 'steel', '--threads', '1']
    assert main(['image-threshold', *arguments, '--last', '0.5', '--rate', '0.1']) == 0
    printed = capsys.readouterr().out
    assert '12 flawless images' in printed
    got = float(re.search(r'image_score.threshold: ([\d.]+)', printed).group(1))
    bundle = complete(load_bundle(path))
    settings = Settings(in_distribution=('steel',), roi=RoiSettings('none'))
    with create_engine(bundle, EngineOptions(threads=1)) as engine:
        pipeline = Pipeline(bundle, engine, settings)
        scores = []
        for file in sorted(folder.iterdir())[12:]:
            image = np.ascontiguousarray(cv2.imread(str(file))[..., ::-1])
            scores.append(float(pipeline.run([Frame(image)])[0].surprisal.max()))
    assert got == image_threshold(scores, 0.1)
    assert main(['image-threshold', *arguments, '--last', '0.5', '--rate', '0.01']) == 2
    assert 'at least 99' in capsys.readouterr().err
    assert main(['image-threshold', *arguments, '--last', '0']) == 2


def test_a_single_product_trains_and_is_told_of_a_better_head(tmp_path, caplog):
    data = write_products(tmp_path / 'line', ('cork',))
    bundle = complete(load_bundle(train(tmp_path, data)))
    assert 'cork is the only one' in caplog.text
    test = open_set(f'mvtec/cork={data}', tmp_path)
    with create_engine(bundle, EngineOptions(threads=1)) as engine:
        pipeline = Pipeline(bundle, engine, Settings(roi=RoiSettings('none')))
        scores = [pipeline.run([Frame(test.read(i)[0])])[0].surprisal.max() for i in range(12)]
    anomalous = np.array(test.anomalous_images, np.uint8)
    assert image_auroc(np.array(scores, float), anomalous)[0] == 1.0


def test_the_shipped_recipe_is_whole():
    recipe = load_recipe(SHIPPED)
    assert recipe.data.layout == 'mvtec'
    assert recipe.view.height % 14 == recipe.view.width % 14 == 0
    assert recipe.bundle.in_distribution == ()
    assert recipe.head.selection == 'min'
