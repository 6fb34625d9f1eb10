# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Objects are pasted where there is ground, larger where it is near."""

from __future__ import annotations

import numpy as np

from ood_perception.adapt.pasting import objects, with_objects


def pasted(ground, seed):
    image = np.full((*ground.shape, 3), 90, np.uint8)
    return image, *with_objects(image, ground, np.random.default_rng(seed))


def test_every_object_of_the_demo_is_cut_out():
    assert len(objects()) == 4
    assert all(mask.any() and image.shape[:2] == mask.shape for image, mask in objects())


def test_they_stand_on_the_ground_and_only_they_change_the_image():
    ground = np.zeros((300, 400), bool)
    ground[150:, 50:350] = True
    for seed in range(20):
        image, made, mask = pasted(ground, seed)
        assert mask.any()
        assert (made[~mask] == image[~mask]).all()
        assert (image == 90).all(), 'the clean image was changed'


def test_near_ones_are_larger():
    near, far = np.zeros((300, 400), bool), np.zeros((300, 400), bool)
    near[100:, 200], far[100:, 200] = True, True
    heights = {}
    for seed in range(60):
        _, _, mask = pasted(near, seed)
        rows = np.flatnonzero(mask.any(1))
        heights[int(rows[-1])] = mask.any(1).sum()
    places = sorted(heights)
    assert heights[places[-1]] > heights[places[0]]


def test_without_ground_nothing_is_pasted():
    _, made, mask = pasted(np.zeros((30, 40), bool), 0)
    assert not mask.any()
    assert (made == 90).all()
