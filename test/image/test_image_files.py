# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Which files are images, and that every entrance reads their pixels as they are stored."""

from __future__ import annotations

import io
import json
import logging

import numpy as np
import pytest
from label_files import png_of, turned, write_set
from PIL import Image

from ood_perception.bags.metadata import find_files, is_bag
from ood_perception.demo.sources import open_source
from ood_perception.errors import ConfigError, DataError
from ood_perception.image.image_files import image_tree, list_images, read_image
from ood_perception.postprocess.roi_files import load_mask

ORIENTATIONS = range(1, 9)
LITTER = ('._a.png', '.DS_Store', 'Thumbs.db', 'desktop.ini')


def halves(height=16, width=24):
    """Left and upper parts that differ, so that no turn leaves the image as it is."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2] = (200, 60, 20)
    pixels[:, : width // 3, 2] = 220
    return pixels


@pytest.mark.parametrize('orientation', ORIENTATIONS)
@pytest.mark.parametrize(('form', 'near'), [('JPEG', 60), ('PNG', 0), ('WEBP', 0)])
def test_an_orientation_is_not_applied(tmp_path, form, near, orientation):
    path = tmp_path / f'turned.{form.lower()}'
    path.write_bytes(turned(halves(), form, orientation))
    got = read_image(path)
    assert got.shape == halves().shape
    assert np.abs(got.astype(int) - halves()).mean() <= near / 10
    shown = next(open_source(str(tmp_path), 1).images())
    np.testing.assert_array_equal(shown.image, got)


@pytest.mark.parametrize('orientation', [3, 6])
def test_a_tiff_that_has_to_be_turned_is_refused(tmp_path, orientation):
    path = tmp_path / 'turned.tif'
    for value, fine in ((1, True), (orientation, False)):
        Image.fromarray(halves()).save(path, tiffinfo={274: value})
        if fine:
            np.testing.assert_array_equal(read_image(path), halves())
        else:
            with pytest.raises(DataError, match=f'turned.tif is a TIFF with orientation {value}'):
                read_image(path)


@pytest.mark.parametrize('orientation', [3, 6])
def test_training_images_and_their_masks_are_not_turned(tmp_path, orientation):
    pytest.importorskip('torch')
    from trainer.datasets import SETS

    mask = (halves()[..., 0] > 0).astype(np.uint8)
    write_set(tmp_path, {'a.png': turned(mask, 'PNG', orientation)}, mask.shape)
    (tmp_path / 'images/a.png').write_bytes(turned(halves(), 'PNG', orientation))
    image, labels = SETS['anomaly_folders'].images(tmp_path, '').read(0)
    np.testing.assert_array_equal(image, halves())
    np.testing.assert_array_equal(labels, mask)


def test_masks_of_the_region_are_ids_and_not_turned(tmp_path):
    mask = (halves()[..., 0] > 0).astype(np.uint8)
    path = tmp_path / 'belt.png'
    for content in (turned(mask, 'PNG', 6), png_of(mask, 1), png_of(mask, 4, palette=True)):
        path.write_bytes(content)
        np.testing.assert_array_equal(load_mask(path).scored, mask > 0)
    path.write_bytes(turned(mask * 255, 'JPEG', 1))
    with pytest.raises(ConfigError, match='is a JPEG'):
        load_mask(path)


def test_everyday_images_and_cut_outs_are_not_turned(tmp_path):
    pytest.importorskip('torch')
    from trainer.augment.cutouts import PARTS, load_cutouts, part_of
    from trainer.augment.outlier_sources import load_context, load_cutout_files
    from trainer.data.images import ClassMap

    (tmp_path / 'images').mkdir()
    (tmp_path / 'images/a.png').write_bytes(turned(halves(60, 80), 'PNG', 6))
    coco = {
        'images': [{'id': 1, 'file_name': 'a.png', 'height': 60, 'width': 80}],
        'annotations': [{'id': 1, 'image_id': 1, 'category_id': 1,
                         'segmentation': [[5, 5, 60, 5, 60, 50, 5, 50]]}],
        'categories': [{'id': 1, 'name': 'box'}],
    }  # fmt: skip
    (tmp_path / 'instances.json').write_text(json.dumps(coco))
    part = part_of('a.png')
    (cutout,) = load_cutouts(tmp_path, part)
    np.testing.assert_array_equal(cutout.rgba[..., :3], halves(60, 80)[5:51, 5:61])
    image, _ = load_context(tmp_path, part, ClassMap(('x',), ((0, 0, 0),), {0: 0})).read(0)
    np.testing.assert_array_equal(image, halves(60, 80))
    rgba = np.dstack([halves(), np.full((16, 24), 255, np.uint8)])
    (tmp_path / 'cut').mkdir()
    (tmp_path / 'cut/b.PNG').write_bytes(turned(rgba, 'PNG', 3))
    (tmp_path / 'cut/.b.png').write_bytes(b'hidden')
    (found,) = load_cutout_files(tmp_path / 'cut', part_of('b.PNG'))
    np.testing.assert_array_equal(found.rgba[..., :3], halves())
    assert len(PARTS) == 2


def test_images_of_every_format_are_read(tmp_path):
    names = ['a.JPG', 'b.jfif', 'c.jpe', 'd.PNG', 'e.tif', 'f.TIFF', 'g.ppm', 'h.gif', 'i.bmp',
             'j.webp', 'k.pgm', 'l.pnm']  # fmt: skip
    for name in names:
        pixels = halves()[..., 0] if name.endswith('.pgm') else halves()
        form = 'PPM' if name.endswith(('.pnm', '.ppm', '.pgm')) else None
        Image.fromarray(pixels).save(tmp_path / name, form)
    for name in LITTER:
        (tmp_path / name).write_bytes(b'\0\5\x16\7')
    (tmp_path / '.ipynb_checkpoints').mkdir()
    assert [path.name for path in list_images(tmp_path)] == sorted(names)
    for path in list_images(tmp_path):
        got = read_image(path).astype(int)
        assert np.abs(got[..., 0] - halves()[..., 0]).mean() < 6, path.name
    assert len(list(open_source(str(tmp_path), 99).images())) == len(names)


def test_other_files_beside_images_are_told_and_links_to_nothing_are_named(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    for name in ('a.png', 'b.heic', 'c.txt'):
        (tmp_path / name).write_bytes(b'')
    assert [path.name for path in list_images(tmp_path)] == ['a.png']
    assert '2 files are not read as images, such as b.heic' in caplog.text
    (tmp_path / 'd.png').symlink_to(tmp_path / 'nowhere.png')
    assert [path.name for path in list_images(tmp_path)] == ['a.png', 'd.png']
    with pytest.raises(DataError, match=r'd\.png is missing or cannot be read'):
        read_image(tmp_path / 'd.png')


def test_an_animation_is_no_image(tmp_path):
    frames = [Image.fromarray(np.full((8, 8), value, np.uint8)) for value in (0, 255)]
    frames[0].save(tmp_path / 'x.gif', save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match=r'x\.gif holds 2 images'):
        read_image(tmp_path / 'x.gif')


def test_hidden_folders_and_bags_are_no_folders_and_bags(tmp_path):
    for name in ('b/x.png', '.ipynb_checkpoints/x.png', '__MACOSX/x.png', 'x.png'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b'')
    found = [str(path.relative_to(tmp_path)) for path in image_tree(tmp_path)]
    assert found == ['x.png', 'b/x.png']
    (tmp_path / 'bag').mkdir()
    (tmp_path / 'bag/._drive_0.mcap').write_bytes(b'\0\5\x16\7')
    assert not is_bag(tmp_path / 'bag')
    (tmp_path / 'bag/drive_0.mcap').write_bytes(b'')
    assert [path.name for path in find_files(tmp_path / 'bag').files] == ['drive_0.mcap']


def test_no_layout_takes_hidden_files_or_folders(tmp_path):
    pytest.importorskip('torch')
    from trainer.datasets import open_set

    content = io.BytesIO()
    Image.fromarray(halves()).save(content, 'PNG')
    for product in ('belt', '.belt', '__MACOSX'):
        for part in ('train/good', 'test/good'):
            folder = tmp_path / product / part
            folder.mkdir(parents=True)
            for name in ('000.png', '._000.png'):
                (folder / name).write_bytes(content.getvalue())
        (tmp_path / product / 'test/.ipynb_checkpoints').mkdir()
    assert len(open_set(f'mvtec/belt={tmp_path}', tmp_path)) == 1
    with pytest.raises(DataError, match='it holds belt;'):
        open_set(f'mvtec/other={tmp_path}', tmp_path)


def test_labels_and_images_are_paired_or_told(tmp_path, caplog):
    pytest.importorskip('torch')
    from trainer.datasets import SETS

    mask = png_of(np.eye(6, dtype=np.uint8))
    write_set(tmp_path, {'a.png': mask, 'b.PNG': mask, 'c.png': mask}, (6, 6))

    def load():
        return SETS['anomaly_folders'].images(tmp_path, '')

    assert len(load()) == 3
    (tmp_path / 'images/c.png').rename(tmp_path / 'images/c.tif')
    assert [path.name for path in load().images] == ['a.png', 'b.png', 'c.tif']
    (tmp_path / 'images/c.tif').rename(tmp_path / 'images/c.heic')
    with pytest.raises(DataError, match=r'c\.heic has the label .*c\.png, but is not read'):
        load()
    (tmp_path / 'images/c.heic').unlink()
    assert len(load()) == 2
    assert '1 labels have no image, such as c.png' in caplog.text
    (tmp_path / 'labels/b.PNG').unlink()
    with pytest.raises(DataError, match=r'the first is .*b\.png'):
        load()
