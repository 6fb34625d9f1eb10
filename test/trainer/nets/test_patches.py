# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Patch labels by purity, the fall-back of thin classes, and the gathering of tokens."""

import numpy as np
import pytest

from ood_perception.errors import ConfigError, DataError

torch = pytest.importorskip('torch')
from feature_sets import make_feature_set  # noqa: E402

from trainer.features import FeatureSet  # noqa: E402
from trainer.nets import patches  # noqa: E402
from trainer.nets.patches import (  # noqa: E402
    ClassTokens,
    PatchSettings,
    deviations,
    divide,
    gather_tokens,
    patch_labels,
    select_patches,
)


def one_patch(counts, patch=10):
    """Return a label map of one patch with so many pixels of each id."""
    pixels = np.concatenate([np.full(n, value, np.uint8) for value, n in counts.items()])
    return np.random.default_rng(0).permutation(pixels).reshape(patch, patch)


@pytest.mark.parametrize(
    ('counts', 'label', 'share'),
    [
        ({0: 90, 1: 10}, 0, 0.9),
        ({2: 89, 255: 11}, 2, 0.89),
        ({1: 45, 255: 55}, 255, 0.55),
        ({2: 50, 1: 50}, 1, 0.5),
        ({255: 50, 1: 50}, 1, 0.5),
    ],
)
def test_label_is_the_commonest_value_void_included_and_ties_go_to_the_smallest(
    counts, label, share
):
    labels, shares = patch_labels(one_patch(counts), 10, 3)

    assert labels.item() == label
    assert shares.item() == pytest.approx(share)


def test_every_patch_of_an_image_agrees_with_counting():
    labels = np.random.default_rng(1).choice([0, 1, 2, 255], (28, 42)).astype(np.uint8)

    got, share = patch_labels(labels, 14, 3)

    for row in range(2):
        for column in range(3):
            block = labels[row * 14 : row * 14 + 14, column * 14 : column * 14 + 14]
            values, counts = np.unique(block, return_counts=True)
            assert got[row, column] == values[counts.argmax()]
            assert share[row, column] == pytest.approx(counts.max() / 196)


def test_an_id_of_no_class_is_refused_by_number():
    with pytest.raises(DataError, match=r'\[7\]'):
        patch_labels(np.full((14, 14), 7, np.uint8), 14, 3)


def thin_class_set(shares, images=30):
    """Class 1 covers the given share of one patch in each image, the rest is class 0."""
    labels = np.zeros((images, 20, 40), np.uint8)
    for photo, share in zip(labels, np.resize(shares, images), strict=True):
        photo[: round(10 * share), 30:] = 1
        photo[10:20, 30:][: round(10 * share)] = 1
    tokens = np.zeros((images, 2, 4, 3), np.float16)
    return FeatureSet(('p',) * images, {'tokens_0': tokens}, labels, 20, 40, 10, 'k')


@pytest.mark.parametrize(
    ('share', 'images', 'choice'),
    [(1.0, 30, 'pure'), (0.9, 30, 'pure'), (0.7, 30, 'loose'), (0.5, 30, 'none')],
)
def test_thin_classes_fall_back_to_half_then_to_no_model(share, images, choice):
    settings = PatchSettings(fewest_patches=50)
    selection = select_patches(thin_class_set([share], images), ['a', 'b'], settings)

    count = selection.counts[1]
    fitted = {'pure': count.pure, 'loose': count.loose, 'none': 0}[choice]
    assert count.choice == choice
    assert (selection.labels == 1).sum() == fitted
    assert 'b' in selection.report()


def test_too_few_images_count_like_too_few_patches():
    features = thin_class_set([1.0], images=19)

    selection = select_patches(features, ['a', 'b'], PatchSettings(fewest_patches=1))

    assert [count.choice for count in selection.counts] == ['none', 'none']
    assert (selection.labels == 255).all()
    for line in selection.report().splitlines():
        assert 'in 19 images' in line
        assert line.endswith('no model of its own, which takes 1 in 20 images')


def test_gathered_tokens_are_those_of_the_labelled_patches_sorted_by_image():
    features = make_feature_set(images=25)
    selection = select_patches(features, 'abc', PatchSettings(fewest_patches=1))

    gathered = gather_tokens(features, 'tokens_11', selection)

    for c, tokens in enumerate(gathered):
        expected = features.tokens['tokens_11'][selection.labels == c]
        np.testing.assert_array_equal(tokens.tokens, expected)
        chosen = features.tokens['tokens_11'][[4, 2]]
        wanted = [part[selection.labels[i] == c] for part, i in zip(chosen, (4, 2), strict=True)]
        np.testing.assert_array_equal(tokens.of_images([4, 2]), np.concatenate(wanted))


def test_tokens_of_large_classes_lie_in_a_file_and_are_the_same(monkeypatch):
    features = make_feature_set()
    settings = PatchSettings(fewest_patches=1, fewest_images=1)
    selection = select_patches(features, 'abc', settings)
    inside = gather_tokens(features, 'tokens_11', selection)
    monkeypatch.setattr(patches, '_IN_MEMORY', 0)
    outside = gather_tokens(features, 'tokens_11', selection)
    assert any(isinstance(one.tokens, np.memmap) for one in outside)
    for one, other in zip(inside, outside, strict=True):
        np.testing.assert_array_equal(one.tokens, other.tokens)


@pytest.mark.parametrize('rows', [3, 20_000])
def test_tokens_are_divided_by_the_deviations_of_all_classes_together(monkeypatch, rows):
    monkeypatch.setattr(patches, '_ROWS', rows)
    rng = np.random.default_rng(0)
    drawn = [rng.normal(3, [1, 9, 0], (count, 3)).astype(np.float16) for count in (50, 7, 0)]
    tokens = [ClassTokens(one.copy(), np.array([0, len(one)])) for one in drawn]
    scale = deviations(tokens)
    wanted = np.concatenate(drawn).astype(np.float64).std(0)
    np.testing.assert_allclose(scale[:2], wanted[:2], rtol=1e-3)
    assert scale[2] == pytest.approx(wanted.max() / 1000, rel=1e-3)  # it never varies
    divide(tokens, scale)
    for one, was in zip(tokens, drawn, strict=True):
        assert np.isfinite(one.tokens).all()
        np.testing.assert_allclose(one.tokens, was.astype(np.float32) / scale, rtol=2e-3)


def test_without_patches_there_is_nothing_to_standardise_by():
    with pytest.raises(DataError, match='no class has enough patches'):
        deviations([ClassTokens(np.empty((0, 3), np.float16), np.zeros(2, np.int64))])


def test_an_impossible_purity_is_refused():
    with pytest.raises(ConfigError, match=r'purity is 1\.5'):
        PatchSettings(purity=1.5)
