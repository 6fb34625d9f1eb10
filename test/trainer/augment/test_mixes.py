# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Mixes: exact pixels and masks, places and sizes, and what blending may touch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip('torch', reason='the trainer needs torch')
pytest.importorskip('transformers')

from miniature_recipes import write_data

from ood_perception.errors import ConfigError
from trainer.augment.cutouts import Cutout
from trainer.augment.mixes import draw_mixes
from trainer.augment.pasting import OUTLIER, MixSettings, mix_objects
from trainer.augment.views import ViewSettings, draw_views
from trainer.data.images import IGNORED, read_label, write_png
from trainer.datasets import load_images


def cutout(size=64):
    rgba = np.full((size, size, 4), 255, np.uint8)
    rgba[..., :3] = (200, 10, 10)
    rgba[: size // 4, :, 3] = 0
    return Cutout(rgba, 'image', 'thing')


def test_pasted_pixels_border_and_mask_are_exact():
    image, labels = np.zeros((120, 512, 3), np.uint8), np.full((120, 512), 3, np.uint8)
    settings = MixSettings(scale=1.0, border=2)
    mixed, truth = mix_objects(
        image, labels, [cutout()], np.random.default_rng(0), settings, magnification=1.3
    )
    # 64 pixels at 2048 wide are 16 at 512, three quarters of them solid
    assert (truth == OUTLIER).sum() == 16 * 12
    np.testing.assert_array_equal(truth == OUTLIER, mixed[..., 0] == 200)
    assert (mixed[truth != OUTLIER] == 0).all()
    assert (truth == IGNORED).sum() == 20 * 16 - 16 * 12
    assert set(np.unique(truth)) == {3, OUTLIER, IGNORED}


def test_no_object_is_smaller_than_a_patch_at_the_network():
    image, labels = np.zeros((120, 256, 3), np.uint8), np.zeros((120, 256), np.uint8)
    settings = MixSettings(scale=0.1, border=0)
    _, truth = mix_objects(
        image, labels, [cutout()], np.random.default_rng(0), settings, magnification=2.0
    )
    columns = (truth == OUTLIER).any(0).sum()
    assert columns * 2.0 == pytest.approx(14, abs=1)


def test_an_object_larger_than_the_image_is_left_out():
    image, labels = np.zeros((10, 40, 3), np.uint8), np.zeros((10, 40), np.uint8)
    settings = MixSettings(scale=100.0)
    _, truth = mix_objects(image, labels, [cutout()], np.random.default_rng(0), settings, 1.0)
    assert not truth.any()


def test_objects_stand_on_the_classes_that_are_asked_for():
    labels = np.zeros((120, 256), np.uint8)
    labels[80:100] = 7
    for seed in range(20):
        rng = np.random.default_rng(seed)
        image = np.zeros((120, 256, 3), np.uint8)
        _, truth = mix_objects(image, labels, [cutout()], rng, MixSettings(), 1.0, (7,))
        rows, columns = np.nonzero(truth == OUTLIER)
        assert labels[rows.max(), (columns.min() + columns.max()) // 2] == 7


def test_without_ground_to_stand_on_nothing_is_pasted():
    image, labels = np.zeros((60, 80, 3), np.uint8), np.zeros((60, 80), np.uint8)
    rng = np.random.default_rng(0)
    mixed, truth = mix_objects(image, labels, [cutout()], rng, MixSettings(), 1.0, (7,))
    assert not truth.any()
    assert not mixed.any()


def test_blending_changes_colours_near_the_edge_and_no_label():
    image, labels = np.full((120, 512, 3), 90, np.uint8), np.zeros((120, 512), np.uint8)
    drawn = {}
    for name, feather in (('hard', 0.0), ('soft', 0.6)):
        settings = MixSettings(border=2, feather=feather)
        rng = np.random.default_rng(4)
        drawn[name] = mix_objects(image, labels, [cutout()], rng, settings, 1.3)
    np.testing.assert_array_equal(drawn['hard'][1], drawn['soft'][1])
    changed = (drawn['hard'][0] != drawn['soft'][0]).any(2)
    assert changed.any()
    assert (drawn['soft'][1][changed] != 0).all()  # object and ignored border alone


def test_recolouring_moves_the_mean_colour_to_the_place():
    image, labels = np.full((120, 512, 3), 90, np.uint8), np.zeros((120, 512), np.uint8)
    rng = np.random.default_rng(4)
    mixed, truth = mix_objects(image, labels, [cutout()], rng, MixSettings(recolour=0.5), 1.3)
    np.testing.assert_allclose(mixed[truth == OUTLIER], [[145, 50, 50]] * 192, atol=1)


def test_the_least_size_holds_where_an_image_is_padded(tmp_path):
    write_data(tmp_path)
    images = load_images('folders', tmp_path, 'train')
    height = images.read(0)[0].shape[0]
    settings = MixSettings(4, 1.0, scale=0.01, border=0)
    view = ViewSettings(scale=(1.0, 1.0), flip=0.0)
    square = Cutout(np.full((64, 64, 4), 255, np.uint8), 'image', 'thing')
    # twice the image's height, padded on the sides: seven of its pixels are 14 there
    mixes = draw_mixes(images, [square], settings, view, (2 * height, 8 * height), 'fit')
    for index in range(4):
        assert (mixes.read(index)[1] == OUTLIER).sum() == 7 * 7


def test_drawn_lists_read_labels_as_their_source_does(tmp_path):
    """Labels that are colours, or ids of one source among several: a mix knows neither."""
    write_data(tmp_path)
    plain = load_images('folders', tmp_path, 'train')
    colors = np.random.default_rng(5).integers(0, 256, (256, 3), dtype=np.uint8)
    for path in plain.labels:  # the same labels, each id as a colour
        write_png(path, colors[read_label(path)])
    ids = {int(i): known for i, known in enumerate(plain.classes.table()) if known >= 0}
    codes = tuple((tuple(colors[i].tolist()), int(known)) for i, known in ids.items())
    coloured = replace(plain, classes=replace(plain.classes, label_colors=codes))
    still = ViewSettings(views=2, scale=(1.0, 1.0), flip=0.0)
    settings = MixSettings(len(plain), 1e-9)  # as good as never
    mixes = draw_mixes(coloured, [cutout()], settings, still, (98, 98))
    views = draw_views(coloured, still)
    for index, name in enumerate(mixes.names):
        place = plain.names.index(name.partition('@')[0])
        np.testing.assert_array_equal(mixes.read(index)[1], coloured.read(place)[1])
        np.testing.assert_array_equal(views.read(2 * place + 1)[1], coloured.read(place)[1])
    assert coloured.encoding() in mixes.encoding()
    assert views.encoding() == coloured.encoding()


def test_wrong_blending_is_refused():
    with pytest.raises(ConfigError, match='feather 1 with border 0'):
        MixSettings(border=0, feather=1.0)
