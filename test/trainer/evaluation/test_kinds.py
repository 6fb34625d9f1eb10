# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""`trainer evaluate` on products, seas and towns: answers worked by hand, through the command."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

pytest.importorskip('torch')
from bundles import COLORS, ODD, color_of, write_tiny_bundle
from evaluated_sets import F32, evaluate
from paths import ROOT
from sets_on_disk import (
    PATCH,
    SEA_ANSWERS,
    flat,
    sea_scene,
    write_lars,
    write_png,
    write_product,
)

from ood_perception.errors import DataError
from ood_perception.evaluation.maritime import plain_segments
from trainer.data.scenes import read_scenes
from trainer.datasets import expand_names, open_set
from trainer.evaluation.evaluate import main
from trainer.evaluation.sets import Extras, checked_set

FAINT, FAINTER = (140, 140, 140), (125, 125, 125)
ROAD = COLORS['Road']


@pytest.fixture(scope='module')
def products(tmp_path_factory):
    """Scores of the first one's images: defect > flawless > defect > flawless."""
    root = tmp_path_factory.mktemp('products')
    write_product(root, 'bottle', [ROAD, FAINT], [(ODD, 'left half'), (FAINTER, 'left half')])
    write_product(root, 'cable', [ROAD, ROAD], [(ODD, 'all')])
    return root


@pytest.fixture(scope='module')
def inspected(tiny_bundle, products, tmp_path_factory):
    out = tmp_path_factory.mktemp('inspected')
    return out, evaluate(tiny_bundle, products, ['mvtec/bottle', 'mvtec/cable'], out)


def test_products_by_hand(inspected):
    """
    Bottle: N pixels an image, each image one tie. Image AUROC: 3 of 4 pairs.

    Pixel AUROC: N/2 defect pixels above N/2 + N + N of 3 N normal ones with N/2 tied to each
    half. AUPRO to 0.3: PRO rises to 1/2 over FPR 0 to 1/6 and stays there until FPR 1/2.
    """
    sets = inspected[1]['runs'][0]['sets']
    values = sets['mvtec/bottle']['groups']['inspection']['values']
    assert values['image_auroc'] == pytest.approx(0.75)
    assert values['pixel_auroc'] == pytest.approx((2.75 + 1.25) / 6)
    assert values['aupro'] == pytest.approx((1 / 24 + 0.5 * (0.3 - 1 / 6)) / 0.3)
    perfect = sets['mvtec/cable']['groups']['inspection']['values']
    assert list(perfect.values()) == pytest.approx([1, 1, 1])


def test_the_products_mean_stands_in_every_form_of_the_report(inspected):
    out = inspected[0]
    text = (out / 'results.md').read_text()
    assert '| tiny | mean of 2 | 87.5 | 83.3 | 68.1 |' in text
    page = (out / 'index.html').read_text()
    for words in ('Products', 'AUPRO', 'mean of 2', '2 defective and 2 flawless images'):
        assert words in page, words
    with (out / 'results.csv').open() as file:
        rows = [r for r in csv.DictReader(file) if r['region'] == 'inspection']
    assert {row['metric'] for row in rows} == {'image_auroc', 'pixel_auroc', 'aupro'}
    aupro = next(row for row in rows if row['metric'] == 'aupro')
    assert float(aupro['bound_low']) <= float(aupro['value']) <= float(aupro['bound_high'])


def test_products_are_scored_whole(inspected):
    """The tiny bundle's ground would leave the defects out."""
    one = inspected[1]['runs'][0]['sets']['mvtec/cable']
    assert (one['scored'], list(one['regions'])) == ('none', ['image'])
    assert one['objects']['all'][0]['inside'] == 1.0


def test_another_region_is_measured_anew(tiny_bundle, products, inspected, tmp_path):
    """The default, and the ground asked for by name, are not the same for a product."""
    first = evaluate(tiny_bundle, products, ['mvtec/cable'], tmp_path)
    ground = evaluate(tiny_bundle, products, ['mvtec/cable'], tmp_path, '--roi', 'ground')
    sets = [values['runs'][0]['sets']['mvtec/cable'] for values in (first, ground)]
    assert [one['scored'] for one in sets] == ['none', 'ground']
    assert sets[0] == inspected[1]['runs'][0]['sets']['mvtec/cable']
    assert len(list(tmp_path.glob('images/*/mvtec_cable/*.npz'))) == 2 * 3


def test_a_star_stands_for_all_products(products, tmp_path):
    assert expand_names(['camvid', 'mvtec/*'], products) == [
        'camvid',
        'mvtec/bottle',
        'mvtec/cable',
    ]
    folder = products / 'mvtec_anomaly_detection'
    assert expand_names([f'mvtec/*={folder}'], tmp_path)[1] == f'mvtec/cable={folder}'
    with pytest.raises(DataError, match='holds nothing'):
        expand_names([f'mvtec/*={tmp_path}'], tmp_path)


def test_a_known_product_is_scored_by_its_own_class(tmp_path):
    """A wrong part is normal for a model of all products, and a defect where its name is known."""
    names = ('bottle', 'cable')
    right, wrong = color_of('bottle'), color_of('cable')
    bundle = write_tiny_bundle(tmp_path / 'b', classes=names, in_distribution=names)
    write_product(tmp_path, 'bottle', [right, right], [(wrong, 'all')])
    words = (bundle, tmp_path, ['mvtec/bottle'], tmp_path / 'out')
    found = []
    for more in ((), ('--known-product',)):
        one = evaluate(*words, *more)['runs'][0]['sets']['mvtec/bottle']
        found.append((one['in_distribution'], one['objects']['all'][0]['found']))
    assert found == [(['bottle', 'cable'], 0), (['bottle'], 1)]


def test_a_limit_cuts_everything_that_a_set_knows_of_its_images(tiny_bundle, products, tmp_path):
    whole = open_set('mvtec/bottle', products)
    data = checked_set(whole, Extras(limit=3))
    assert data.anomalous_images == (False, False, True)
    spaced = checked_set(whole, Extras(limit=2, spaced=True))
    assert spaced.images.names == (whole.images.names[0], whole.images.names[-1])
    values = evaluate(tiny_bundle, products, ['mvtec/bottle'], tmp_path, '--limit', '3')
    group = values['runs'][0]['sets']['mvtec/bottle']['groups']['inspection']
    assert group['values']['image_auroc'] == 1.0  # the second defect is left out
    assert group['facts']['defective_images'] == 1


def test_a_defect_without_a_mask_is_told(tiny_bundle, tmp_path):
    base = write_product(tmp_path, 'nut', [ROAD], [(ODD, 'all')])
    write_png(base / 'ground_truth/scratch/000_mask.png', np.zeros((56, 84), np.uint8))
    with pytest.raises(DataError, match=r'000_mask\.png marks no defect'):
        evaluate(tiny_bundle, tmp_path, ['mvtec/nut'], tmp_path / 'out')


SEA = ('--false-alarm-rate', '0.1')


@pytest.fixture(scope='module')
def sea_bundle(tmp_path_factory):
    return write_tiny_bundle(
        tmp_path_factory.mktemp('sea') / 'sea',
        height=112,
        width=168,
        classes=('Water', 'Sky', 'Car'),
        in_distribution=('Water', 'Sky'),
        ground_classes=('Water',),
        upsampling=1,
    )


@pytest.fixture(scope='module')
def sailed(sea_bundle, tmp_path_factory):
    out = tmp_path_factory.mktemp('sailed')
    write_lars(out / 'data')
    return out, evaluate(sea_bundle, out / 'data', ['lars/val'], out, *SEA)


def test_a_sea_by_hand(sailed):
    group = sailed[1]['runs'][0]['sets']['lars/val']['groups']['maritime']
    for name, value in SEA_ANSWERS.items():
        assert group['values'][name] == pytest.approx(value), name
    # The water more than 10 pixels from shore and boats, and the anomalous patch in it.
    assert 196 / group['values']['false_positive_rate'] == pytest.approx(
        60 * 168 - 2 * 34 * 34, abs=1e-6
    )
    facts = group['facts']
    assert (facts['found'], facts['obstacles'], facts['false_alarms']) == (2, 4, 2)
    assert group['intervals']['quality'] == pytest.approx([SEA_ANSWERS['quality']] * 2)


def test_a_sea_stands_in_every_form_of_the_report(sailed):
    out = sailed[0]
    text = (out / 'results.md').read_text()
    assert f'| sea | {100 * SEA_ANSWERS["quality"]:.1f} [' in text
    page = (out / 'index.html').read_text()
    for words in ('found 2 of 4 obstacles with 2 false alarms', 'water edge, mu', 'Worst frames'):
        assert words in page, words
    with (out / 'results.csv').open() as file:
        rows = {r['metric']: r for r in csv.DictReader(file) if r['region'] == 'maritime'}
    assert float(rows['edge_accuracy']['value']) == pytest.approx(SEA_ANSWERS['edge_accuracy'])
    assert (out / 'frames' / 'lars_val_01.jpg').is_file()


def test_a_pixel_that_is_not_flagged_keeps_its_label(sea_bundle, sailed, tmp_path):
    """At the strictest rate the anomalous patches are water: no boat, no false alarm."""
    root = sailed[0] / 'data'
    got = evaluate(sea_bundle, root, ['lars/val'], tmp_path, '--false-alarm-rate', '0.0001')
    facts = got['runs'][0]['sets']['lars/val']['groups']['maritime']['facts']
    assert (facts['found'], facts['false_alarms']) == (0, 0)


def test_two_bundles_at_sea_are_compared(sea_bundle, sailed, tmp_path):
    """One of them has never seen sky: it takes it for an obstacle."""
    blind = write_tiny_bundle(
        tmp_path / 'blind', height=112, width=168, classes=('Water', 'Sky', 'Car'),
        in_distribution=('Water',), ground_classes=('Water',), upsampling=1,
    )  # fmt: skip
    words = ['--data', 'lars/val', '--root', str(sailed[0] / 'data'), *F32, *SEA]
    out = tmp_path / 'out'
    assert main([str(sea_bundle), str(blind), *words, '--out', str(out)]) == 0
    (row,) = json.loads((out / 'results.json').read_text())['comparisons']
    assert (row['group'], row['metrics']['images']) == ('maritime', 2)
    sky = row['metrics']['iou_sky']
    assert (sky['first'], sky['second'], sky['resolved']) == (1.0, 0.0, True)
    assert not row['metrics']['recall']['resolved']
    assert 'sea is better, +100.0' in (out / 'index.html').read_text()
    both = tmp_path / 'both'
    main(['--compare', str(sailed[0]), str(out), '--out', str(both)])
    assert 'Obstacles on water' in (both / 'comparison.md').read_text()


def test_more_obstacles_than_a_byte_or_two_can_number():
    """A grid of specks: 300 are numbered one by one, more than 65 535 are refused."""
    semantic = np.full((21, 61), 1, np.uint8)
    semantic[1::2, 1::2] = 0
    got = plain_segments(semantic)
    numbers, sizes = np.unique(got.panoptic.astype(int) @ [1, 256, 65536], return_counts=True)
    assert set(numbers) - {0} == set(got.categories)
    assert len(got.categories) == 300
    assert (sizes[1:] == 1).all()
    semantic = np.full((521, 521), 1, np.uint8)
    semantic[1::2, 1::2] = 0
    with pytest.raises(DataError, match='67600 single obstacles'):
        plain_segments(semantic)
    semantic[::2] = 2  # specks at the sky are shore, which is not numbered
    assert plain_segments(semantic).categories == {}


def test_single_obstacles_of_plain_labels():
    """Afloat: dynamic. Touching the sky, as shore and horizon do: static."""
    _, semantic, panoptic = sea_scene()
    got = plain_segments(semantic)
    assert len(got.categories) == 2
    assert (got.panoptic[..., 0] == 1).sum() == (panoptic[..., 0] == 1).sum()
    assert ((got.panoptic[..., 0] == 11) == (panoptic[..., 0] == 11)).all()
    numbers = got.panoptic.astype(int) @ [1, 256, 65536]
    assert set(np.unique(numbers)) == {0, 1, *got.categories}
    ship = semantic.copy()
    ship[28:42] = 1  # no quay: the sky ends at the water
    ship[28:35, 100:110] = 0
    assert (plain_segments(ship).panoptic[30, 105] == (1, 0, 0)).all()


def write_maritime(root, photo, semantic):
    """Write one image under every name of the test split."""
    for row in read_scenes(ROOT / 'trainer/datasets/labels/maritime_scenes.csv'):
        if row.split == 'test':
            write_png(root / f'maritime/images/{row.name}.jpg', photo)
            write_png(root / f'maritime/labels/{row.name}.png', semantic)


def test_the_plain_layout_has_the_same_answers(sea_bundle, tmp_path):
    photo, semantic, _ = sea_scene()
    write_maritime(tmp_path, photo, semantic)
    got = evaluate(sea_bundle, tmp_path, ['maritime/test'], tmp_path / 'out', *SEA)
    one = got['runs'][0]['sets']['maritime/test']
    group = one['groups']['maritime']
    for name, value in SEA_ANSWERS.items():
        assert group['values'][name] == pytest.approx(value), name
    assert group['facts']['segments'] == 'made of the labels'
    assert 'rows' not in one  # the bundle's classes are called otherwise: no observed rates
    assert 'The set does not label single obstacles' in (tmp_path / 'out/index.html').read_text()


def test_a_sea_has_its_rate_where_the_bundle_knows_its_classes(tmp_path):
    names = ('obstacle', 'water', 'sky')
    bundle = write_tiny_bundle(
        tmp_path / 'bundle', classes=names, in_distribution=names, ground_classes=('water',)
    )
    write_maritime(tmp_path, flat(56, 84, color_of('water')), np.ones((56, 84), np.uint8))
    one = evaluate(bundle, tmp_path, ['maritime/test'], tmp_path / 'out')['runs'][0]['sets'][
        'maritime/test'
    ]
    pooled = [r for r in one['rows'] if (r['group'], r['class_name']) == ('all', 'pooled')]
    assert [row['observed'] for row in pooled] == [0, 0, 0]
    assert one['groups']['maritime']['values']['iou_water'] == 1.0
    page = (tmp_path / 'out' / 'index.html').read_text()
    assert 'Target and observed' in page
    assert 'Obstacles on water' in page


def test_patches_are_whole():
    """The scenes above are made of whole patches, so no score lies between two areas."""
    photo, semantic, _ = sea_scene()
    for pixels in (photo, semantic):
        blocks = pixels.reshape(8, PATCH, 12, PATCH, -1)
        assert (blocks == blocks[:, :1, :, :1]).all()
