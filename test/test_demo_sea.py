# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The rendered sea: labels that fit the picture, the same in every run, small when packed."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from ood_perception.demo.sea import OBSTACLE, SEA_SCENES, SKY, WATER, SeaScene, render_sea


@pytest.mark.parametrize('scene', SEA_SCENES)
def test_sky_is_above_water_and_things_are_on_it(scene):
    view = render_sea(scene)
    assert view.image.shape == (*scene.size, 3)
    assert view.image.dtype == view.labels.dtype == np.uint8
    assert set(np.unique(view.labels)) == {OBSTACLE, WATER, SKY}
    assert (view.labels[0] == SKY).all()
    assert (view.labels[-1] == WATER).all()
    share = (view.labels == OBSTACLE).mean()
    assert 0.002 < share < 0.05


def test_the_horizon_lies_where_the_scene_puts_it():
    level = render_sea(SeaScene(1, size=(200, 300), horizon=0.25, ship=(0.5, 10))).labels
    np.testing.assert_array_equal((level[:, 0] == SKY).sum(), 51)  # rows 0 to 50 = 0.25 x 200
    rolled = render_sea(SeaScene(1, size=(200, 300), horizon=0.5, roll=0.1)).labels
    left, right = ((rolled[:, column] == SKY).sum() for column in (0, 299))
    assert right - left == pytest.approx(np.tan(0.1) * 299, abs=1)


def test_it_is_the_same_again_and_another_seed_is_another_sea():
    again, first = render_sea(SEA_SCENES[0]), render_sea(SEA_SCENES[0])
    np.testing.assert_array_equal(again.image, first.image)
    other = render_sea(SeaScene(SEA_SCENES[0].seed + 1))
    assert (other.image != first.image).mean() > 0.2


def test_it_packs_well():
    raw = render_sea(SEA_SCENES[0]).image.tobytes()
    assert len(zlib.compress(raw, 9)) < len(raw) / 8
