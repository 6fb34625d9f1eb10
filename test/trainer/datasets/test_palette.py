# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Label files: palette indices survive, broken files are named."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from ood_perception.errors import DataError

pytest.importorskip('torch')

from ood_perception.image.image_files import read_label
from trainer.data.images import read_image


@pytest.fixture
def ids():
    return np.random.default_rng(3).integers(0, 66, (37, 53), dtype=np.uint8)


@pytest.mark.parametrize('same_colours', [False, True])
def test_a_palette_png_gives_its_indices(tmp_path, ids, same_colours):
    image = pytest.importorskip('PIL.Image')
    photo = image.fromarray(ids).convert('P')
    photo.putdata(ids.ravel().tolist())
    # A palette with one colour for all ids: no way back from the colours.
    palette = np.random.default_rng(0).integers(0, 256, 768)
    photo.putpalette([7] * 768 if same_colours else palette.tolist())
    photo.save(tmp_path / 'p.png')
    np.testing.assert_array_equal(read_label(tmp_path / 'p.png'), ids)
    assert read_image(tmp_path / 'p.png').shape == (37, 53, 3)


def test_a_grey_png_gives_its_values(tmp_path, ids):
    cv2.imwrite(str(tmp_path / 'g.png'), ids)
    np.testing.assert_array_equal(read_label(tmp_path / 'g.png'), ids)


@pytest.mark.parametrize('suffix', ['.png', '.jpg', '.webp'])
@pytest.mark.parametrize('share', [0.0, 0.4, 0.97])
def test_a_cut_image_is_named(tmp_path, suffix, share):
    path = tmp_path / f'cut{suffix}'
    pixels = np.random.default_rng(1).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    cv2.imwrite(str(path), pixels)
    assert read_image(path).shape == pixels.shape
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match=rf'image .*cut\{suffix} is broken'):
        read_image(path)


def test_a_jpeg_that_lost_a_packet_is_refused(tmp_path):
    noise = np.random.default_rng(3).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    content = cv2.imencode('.jpg', noise)[1].tobytes()
    lost = content[: len(content) // 2] + content[-2:]  # the end marker is there
    (tmp_path / 'lost.jpg').write_bytes(lost)
    with pytest.raises(DataError, match=r'lost\.jpg is broken'):
        read_image(tmp_path / 'lost.jpg')


def test_a_missing_or_coloured_label_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r'label file .*none\.png is missing'):
        read_label(tmp_path / 'none.png')
    cv2.imwrite(str(tmp_path / 'c.png'), np.zeros((3, 4, 3), np.uint8))
    with pytest.raises(DataError, match=r'c\.png is uint8 with shape \(3, 4, 3\)'):
        read_label(tmp_path / 'c.png')
