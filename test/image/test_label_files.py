# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Label images are read as ids, however many bits they take; what is no label is refused."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from label_files import png_of, write_set
from PIL import Image

from ood_perception.errors import DataError
from ood_perception.image.image_files import decode_label, label_files, need_anomaly, read_label

SHAPE = (13, 21)


def ids_of(bits):
    most = min(1 << bits, 256)
    return np.random.default_rng(bits).integers(0, most, SHAPE).astype(np.uint8)


@pytest.mark.parametrize('interlaced', [False, True])
@pytest.mark.parametrize('clear', [-1, 1])
@pytest.mark.parametrize(
    ('bits', 'palette'), [(b, p) for b in (1, 2, 4, 8, 16) for p in (False, True) if b + p < 17]
)
def test_a_png_gives_its_ids(bits, palette, clear, interlaced):
    ids = ids_of(bits)
    content = png_of(ids, bits, palette, interlaced, clear)
    got = decode_label(content, 'x.png')
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, ids)


@pytest.mark.parametrize('form', ['BMP', 'TIFF', 'GIF', 'PNG'])
@pytest.mark.parametrize('mode', ['1', 'L', 'P'])
def test_other_lossless_formats_give_their_ids(form, mode):
    ids = ids_of(1 if mode == '1' else 4)
    if mode == '1':
        image = Image.fromarray(ids > 0)
    else:
        image = Image.fromarray(ids)
        if mode == 'P':
            image.putpalette([(i * 37) % 256 for i in range(48)])
    content = io.BytesIO()
    image.save(content, form)
    stretched = 255 if (mode, form) == ('1', 'GIF') else 1  # Pillow writes GIFs in eight bits
    np.testing.assert_array_equal(decode_label(content.getvalue(), 'x'), ids * stretched)


@pytest.mark.parametrize('bits', [2, 4])
def test_a_tiff_of_few_bits_gives_its_ids(bits):
    ids = ids_of(bits)[:, :20]
    rows = b''.join(
        int(''.join(format(int(v), f'0{bits}b') for v in row), 2).to_bytes(20 * bits // 8, 'big')
        for row in ids
    )
    tags = {256: 20, 257: 13, 258: bits, 259: 1, 262: 1, 273: 8, 277: 1, 278: 13, 279: len(rows)}
    entries = b''.join(
        np.array([tag, 4], '<u2').tobytes() + np.array([1, value], '<u4').tobytes()
        for tag, value in tags.items()
    )
    start = np.array([8 + len(rows)], '<u4').tobytes()
    count = np.array([len(tags)], '<u2').tobytes()
    content = b'II*\0' + start + rows + count + entries + bytes(4)
    np.testing.assert_array_equal(decode_label(content, 'x.tif'), ids)


def encoded(pixels, suffix):
    return cv2.imencode(suffix, pixels)[1].tobytes()


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        (
            encoded(np.zeros((3, 4, 3), np.uint8), '.png'),
            r'shape \(3, 4, 3\); expected one',
        ),
        (encoded(np.full((3, 4), 256, np.uint16), '.png'), 'uint16 with values from 256 to 256'),
        (encoded(np.zeros((3, 4), np.uint8), '.jpg'), 'is a JPEG, which changes ids'),
        (png_of(ids_of(8))[:60], 'broken'),
        (png_of(ids_of(8))[:-30], 'broken'),
        (b'', 'broken'),
        (b'\0\5\x16\7no image', 'broken'),
    ],
)
def test_what_is_no_label_is_refused_by_name(tmp_path, content, words):
    path = tmp_path / 'mask.png'
    path.write_bytes(content)
    with pytest.raises(DataError, match=words) as caught:
        read_label(path)
    assert str(path) in str(caught.value)


def test_a_label_of_several_images_is_refused():
    pages = [Image.fromarray(ids_of(4) * value) for value in (1, 2)]
    content = io.BytesIO()
    pages[0].save(content, 'TIFF', save_all=True, append_images=pages[1:])
    with pytest.raises(DataError, match='holds 2 images'):
        decode_label(content.getvalue(), 'x.tif')


def test_label_files_are_found_in_any_format_and_case(tmp_path, caplog):
    for name in ('a.PNG', 'b.tif', '._a.PNG', 'Thumbs.db', 'c.jpg'):
        (tmp_path / name).write_bytes(b'')
    assert {stem: path.name for stem, path in label_files(tmp_path).items()} == {
        'a': 'a.PNG', 'b': 'b.tif',
    }  # fmt: skip
    assert '1 files are not read as labels, such as c.jpg' in caplog.text
    (tmp_path / 'a.bmp').write_bytes(b'')
    with pytest.raises(DataError, match=r'a\.PNG and a\.bmp'):
        label_files(tmp_path)
    assert label_files(tmp_path / 'none') == {}


def test_labels_without_an_anomaly_are_refused_with_their_ids():
    normal, ignored, anomaly = (np.full((2, 3), value, np.uint8) for value in (0, 255, 7))
    with pytest.raises(DataError, match=r'of 2 .* anomaly \(7\), they hold 0, 255; .*255 means'):
        need_anomaly([normal, ignored], [7], 'labels')
    with pytest.raises(DataError) as caught:
        need_anomaly([normal], [7], 'labels')
    assert '255' not in str(caught.value)
    read = iter([ignored, anomaly, normal])
    need_anomaly(read, [7], 'labels')
    assert len(list(read)) == 1, 'none is read after the first anomaly'


@pytest.mark.parametrize('bits', [1, 2, 4, 8])
@pytest.mark.parametrize('palette', [False, True])
def test_an_anomaly_set_reads_masks_of_few_bits(tmp_path, bits, palette):
    pytest.importorskip('torch')
    from trainer.datasets import open_set
    from trainer.evaluation.sets import Extras, checked_set

    mask = ids_of(1)
    write_set(tmp_path, {'a_0.png': png_of(mask, bits, palette)}, SHAPE)
    data = checked_set(open_set(f'anomaly_folders={tmp_path}', tmp_path), Extras())
    np.testing.assert_array_equal(data.read(0)[1], mask)


def test_a_set_of_0_and_255_is_an_error_and_255_beside_1_is_ignored(tmp_path):
    pytest.importorskip('torch')
    from trainer.datasets import open_set
    from trainer.evaluation.sets import Extras, checked_set

    mask = ids_of(1)
    masks = {'a_0.png': png_of(mask * 255), 'a_1.png': png_of(mask * 255)}
    name = f'anomaly_folders={write_set(tmp_path, masks, SHAPE)}'
    with pytest.raises(DataError, match=r'anomaly_folders: none of 2 .* 255 means ignored here'):
        checked_set(open_set(name, tmp_path), Extras())
    (tmp_path / 'labels' / 'a_1.png').write_bytes(png_of(mask))
    data = checked_set(open_set(name, tmp_path), Extras())
    np.testing.assert_array_equal(data.read(0)[1], mask * 255)
    with pytest.raises(DataError, match=r'^1 images of anomaly_folders'):
        checked_set(open_set(name, tmp_path), Extras(limit=1))


@pytest.mark.parametrize('bits', [1, 8])
def test_a_products_mask_may_have_one_bit(tmp_path, bits):
    pytest.importorskip('torch')
    from trainer.datasets import open_set

    mask = ids_of(1)
    pixels = encoded(np.zeros((*SHAPE, 3), np.uint8), '.png')
    for name, content in (
        ('train/good/0.png', pixels),
        ('test/scratch/0.png', pixels),
        ('ground_truth/scratch/0_mask.png', png_of(mask * (1 if bits == 1 else 255), bits)),
    ):
        (tmp_path / 'belt' / name).parent.mkdir(parents=True)
        (tmp_path / 'belt' / name).write_bytes(content)
    np.testing.assert_array_equal(open_set(f'mvtec/belt={tmp_path}', tmp_path).read(0)[1], mask)
