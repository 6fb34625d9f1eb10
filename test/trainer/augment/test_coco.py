# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""COCO files as tools write them: read, left out and told, or refused with the annotation's id."""

from __future__ import annotations

import json
import tracemalloc

import cv2
import numpy as np
import pytest
from paths import ROOT

from ood_perception.errors import DataError

pytest.importorskip('torch')

from trainer.augment import coco
from trainer.augment.coco import mask_of, need_images, read_coco
from trainer.augment.cutouts import PARTS, part_of
from trainer.augment.outlier_sources import (
    OutlierConfig,
    check_outliers,
    load_context,
    load_outliers,
)
from trainer.data.class_map import ClassMap

HEIGHT, WIDTH = 60, 80
SQUARE = [20, 20, 60, 20, 60, 50, 20, 50]
NAMES = [f'{number:04d}.png' for number in range(8)]
CLASSES = ClassMap(('x',), ((0, 0, 0),), {0: 0})


def runs_of(mask):
    """Run lengths by the definition: down the columns, outside first."""
    flat = mask.T.ravel().tolist()
    counts, inside = [0], 0
    for value in flat:
        if value != inside:
            counts.append(0)
            inside = value
        counts[-1] += 1
    return counts


def text_of(counts):
    """COCO's compressed text of run lengths, written run by run."""
    text = ''
    for place, count in enumerate(counts):
        rest = count - counts[place - 2] if place > 2 else count
        more = True
        while more:
            low, rest = rest & 31, rest >> 5
            more = rest != (-1 if low & 16 else 0)
            text += chr(48 + low + 32 * more)
    return text


def write(folder, *annotations, **lists):
    """Write images and instances.json; every image has one square beside these annotations."""
    (folder / 'images').mkdir(exist_ok=True)
    for name in NAMES:
        cv2.imwrite(str(folder / 'images' / name), np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
    squares = [
        {
            'id': number,
            'image_id': number,
            'category_id': 5,
            'iscrowd': 0,
            'segmentation': [SQUARE],
        }
        for number in range(len(NAMES))
    ]
    content = {
        'images': [{'id': number, 'file_name': name, 'height': HEIGHT, 'width': WIDTH}
                   for number, name in enumerate(NAMES)],
        'annotations': [*squares, *annotations],
        'categories': [{'id': 5, 'name': 'tyre'}],
    }  # fmt: skip
    (folder / 'instances.json').write_text(json.dumps({**content, **lists}))
    return folder


def one(segmentation, **other):
    return {'id': 77, 'image_id': 0, 'category_id': 5, 'segmentation': segmentation, **other}


def drawn(segmentation, height=HEIGHT, width=WIDTH):
    canvas = np.zeros((height, width), np.uint8)
    mask_of(segmentation, 'annotation 77').draw(canvas, 1)
    return canvas


@pytest.mark.parametrize('seed', range(6))
def test_run_lengths_as_list_and_text_give_the_mask(seed):
    rng = np.random.default_rng(seed)
    height, width = (int(v) for v in rng.integers(1, 90, 2))
    mask = (cv2.blur(rng.random((height, width)), (1 + 4 * (seed % 3),) * 2) > 0.5).astype(
        np.uint8
    )
    counts = runs_of(mask)
    for form in (counts, text_of(counts)):
        rle = {'counts': form, 'size': [height, width]}
        np.testing.assert_array_equal(drawn(rle, height, width), mask)


def test_the_text_is_the_published_codes():
    # 6 is one group; 16 needs a second one, its fifth bit would be a sign; 6 - 16 is negative
    assert text_of([6, 16, 6, 6]) == '6`06F'
    assert mask_of({'counts': '6`06F', 'size': [2, 17]}, 'x').counts.tolist() == [6, 16, 6, 6]
    whole = drawn({'counts': text_of([0, 5000]), 'size': [50, 100]}, 50, 100)
    assert whole.all()


def test_flat_and_wrapped_polygons_and_their_union():
    np.testing.assert_array_equal(drawn(SQUARE), drawn([SQUARE]))
    assert drawn(SQUARE).sum() == 41 * 31
    other = [5, 5, 15, 5, 15, 15, 5, 15]
    np.testing.assert_array_equal(
        drawn([SQUARE, other, [3, 3, 9, 9]]), drawn(SQUARE) | drawn(other)
    )


@pytest.mark.parametrize('form', ['list', 'text', 'flat'])
def test_all_entrances_read_a_mask_of_any_form(tmp_path, form):
    counts = runs_of(drawn(SQUARE))
    segmentation = {
        'list': {'counts': counts, 'size': [HEIGHT, WIDTH]},
        'text': {'counts': text_of(counts), 'size': [HEIGHT, WIDTH]},
        'flat': SQUARE,
    }[form]
    folder = write(tmp_path, one(segmentation))
    config, part = OutlierConfig('coco', str(folder)), part_of(NAMES[0])
    check_outliers(config, folder)
    first, second, *_ = load_outliers(config, part, folder)
    np.testing.assert_array_equal(first.rgba, second.rgba)
    labels = load_context(folder, part, CLASSES).read(0)[1]
    assert np.count_nonzero(labels) == 41 * 31


@pytest.mark.parametrize('bare', [None, [], [[]], [[1, 2, 3, 4]], 'missing'])
def test_an_annotation_without_a_mask_is_left_out_and_told(tmp_path, caplog, bare):
    entry = one(bare)
    if bare == 'missing':
        del entry['segmentation']
    images = read_coco(write(tmp_path, entry))
    assert [len(photo.objects) for photo in images] == [1] * len(NAMES)
    assert '1 annotations without a mask are left out' in caplog.text
    assert 'annotation 77' in caplog.text


@pytest.mark.parametrize('segmentation', [{'counts': 'no', 'size': [1, 1]}, [SQUARE], None])
def test_crowds_are_left_out_unread(tmp_path, segmentation):
    images = read_coco(write(tmp_path, one(segmentation, iscrowd=1)))
    assert sum(len(photo.objects) for photo in images) == len(NAMES)


@pytest.mark.parametrize(
    ('entry', 'words'),
    [
        (one([SQUARE[:-1]]), 'a polygon of 7 numbers'),
        (one([['1'] * 6]), 'no list of numbers'),
        (one([None]), 'no list of numbers'),
        (one([[1, 2, 3, float('nan'), 5, 6]]), 'no places in an image'),
        (one([[1, 2, 3, 1e9, 5, 6]]), 'no places in an image'),
        (one('polygon'), 'a segmentation of str'),
        (one(5), 'a segmentation of int'),
        (one({'counts': [1, 2], 'size': [HEIGHT, WIDTH]}), 'run lengths of 3 pixels'),
        (one({'counts': [-1, 4801], 'size': [HEIGHT, WIDTH]}), 'run lengths of 4800 pixels'),
        (one({'counts': [1.5, 4798.5], 'size': [HEIGHT, WIDTH]}), 'no list of whole numbers'),
        (one({'counts': ['a'], 'size': [HEIGHT, WIDTH]}), 'no numbers'),
        (one({'counts': '~~~', 'size': [HEIGHT, WIDTH]}), 'no text of COCO'),
        (one({'counts': 'P', 'size': [HEIGHT, WIDTH]}), 'no text of COCO'),
        (one({'counts': '', 'size': [HEIGHT, WIDTH]}), 'no text of COCO'),
        (one({'counts': 'o' * 20 + '0', 'size': [HEIGHT, WIDTH]}), 'the text is damaged'),
        (one({'counts': [4800]}), 'run lengths of size None'),
        (one({'counts': [4800], 'size': 4800}), 'run lengths of size 4800'),
        (one({'counts': [4800], 'size': [WIDTH, HEIGHT]}), '60 x 80 pixels, .* 80 x 60'),
        (one([SQUARE], image_id=99), 'image 99'),
        (one([SQUARE], image_id='0'), "image '0'"),
        (one([SQUARE], image_id=[0]), r'image_id \[0\]'),
        (one([SQUARE], category_id=6), 'category 6'),
        (one([SQUARE], category_id=None), 'category_id None'),
        (one([SQUARE], iscrowd='0'), "iscrowd '0'"),
    ],
)
def test_what_is_wrong_is_named_with_the_annotation_before_anything_long(tmp_path, entry, words):
    folder = write(tmp_path, entry)
    with pytest.raises(DataError, match=f'annotation 77 .*{words}'):
        check_outliers(OutlierConfig('coco', str(folder)), folder)
    with pytest.raises(DataError, match='annotation 77 '):
        load_context(folder, part_of(NAMES[0]), CLASSES)
    with pytest.raises(DataError, match='annotation 77 '):
        load_outliers(OutlierConfig('coco', str(folder)), part_of(NAMES[0]), folder)


@pytest.mark.parametrize(
    ('lists', 'words'),
    [
        ({'annotations': None}, 'a list "annotations"'),
        ({'images': {}}, 'a list "images"'),
        ({'categories': [1]}, 'a list "categories"'),
        ({'images': [{'file_name': 'a.png'}]}, 'image has id None'),
        ({'images': [{'id': number} for number in range(8)]}, 'image 0 has the file_name None'),
        ({'images': [{'id': 1, 'file_name': 'a'}] * 2, 'annotations': []}, 'two images'),
        ({'images': [{'id': n, 'file_name': f, 'height': '60'} for n, f in enumerate(NAMES)]},
         'image 0 has height and width'),
    ],
)  # fmt: skip
def test_a_file_that_is_not_cocos_is_named(tmp_path, lists, words):
    with pytest.raises(DataError, match=rf'instances\.json: .*{words}'):
        read_coco(write(tmp_path, **lists))


@pytest.mark.parametrize('share', [0.0, 0.3, 0.99])
def test_a_cut_file_a_list_and_a_missing_one_are_named(tmp_path, share):
    file = write(tmp_path) / 'instances.json'
    whole = file.read_bytes()
    file.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(DataError, match=r'instances\.json is no JSON, or was cut off'):
        read_coco(tmp_path)
    file.write_text('[]')
    with pytest.raises(DataError, match=r'instances\.json: expected a list'):
        read_coco(tmp_path)
    file.unlink()
    with pytest.raises(DataError, match='is missing'):
        read_coco(tmp_path)


def test_ids_may_be_texts(tmp_path):
    images = [{'id': f'p{n}', 'file_name': name} for n, name in enumerate(NAMES)]
    notes = [{'image_id': 'p3', 'category_id': 'c', 'segmentation': [SQUARE]}]
    folder = write(
        tmp_path, images=images, annotations=notes, categories=[{'id': 'c', 'name': 'a'}]
    )
    (photo,) = read_coco(folder)
    assert (photo.name, photo.size, photo.objects[0].category) == (NAMES[3], None, 'a')


def test_images_are_looked_at_before_they_are_decoded(tmp_path):
    folder = write(tmp_path)
    need_images(read_coco(folder))
    path = folder / 'images' / NAMES[2]
    cv2.imwrite(str(path), np.zeros((WIDTH, HEIGHT, 3), np.uint8))
    with pytest.raises(DataError, match=r'0002\.png has 60 x 80 pixels, instances.json 80 x 60'):
        need_images(read_coco(folder))
    path.write_bytes(b'no image')
    with pytest.raises(DataError, match=r'0002\.png is broken'):
        need_images(read_coco(folder))
    path.unlink()
    with pytest.raises(DataError, match=r'0002\.png is missing'):
        need_images(read_coco(folder))


def test_a_recipe_is_refused_before_features_and_segmenter(tmp_path):

    from trainer.recipe import load_recipe
    from trainer.workflow import Workflow

    write(tmp_path, one([SQUARE[:-1]]))
    (tmp_path / 'camvid').mkdir()
    changes = [f'data.root={tmp_path / "camvid"}', f'outliers.folder={tmp_path}']
    for name in ('uem_camvid', 'rpl_camvid', 'nflowjs_camvid'):
        recipe = load_recipe(ROOT / f'config/train/{name}.yaml', changes)
        workflow = Workflow(recipe, tmp_path / 'out')
        with pytest.raises(DataError, match='annotation 77 '):
            workflow.pack()
        assert not (tmp_path / 'out').exists()


def test_an_annotation_is_looked_at_once_whatever_the_number_of_images(tmp_path, monkeypatch):
    folder, seen = write(tmp_path), []

    def counted(segmentation, place):
        seen.append(place)
        return mask_of(segmentation, place)

    monkeypatch.setattr(coco, 'mask_of', counted)
    config = OutlierConfig('coco', str(folder))
    for part in PARTS:
        for load in (
            lambda part=part: load_outliers(config, part, folder),
            lambda part=part: load_context(folder, part, CLASSES),
        ):
            seen.clear()
            load()
            assert len(seen) == len(set(seen)) == len(NAMES)


def test_lists_of_numbers_are_packed_while_they_are_read(tmp_path):
    """Memory: eight bytes a coordinate, where lists of Python numbers take 32."""
    ring = np.random.default_rng(0).uniform(1, 50, 20_000).tolist()
    folder = write(tmp_path, *(one([ring], id=100 + number) for number in range(20)))
    tracemalloc.start()
    images = read_coco(folder)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(len(photo.objects) for photo in images) == len(NAMES) + 20
    assert kept < 20 * 20_000 * 8 * 1.5
