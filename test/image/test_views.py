# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Further views of a frame: where a crop lies, and what its scores do to those of the whole."""

from __future__ import annotations

import numpy as np
import pytest

from ood_perception.image.geometry import camera_window, geometry_for, to_network
from ood_perception.image.views import ViewSpec, merged, view_geometry, view_problem

NETWORK, GRID = (56, 112), (28, 56)


@pytest.mark.parametrize('size', [(576, 1024), (480, 640), (200, 1000), (1024, 2048), (57, 113)])
@pytest.mark.parametrize('center', [(0.5, 0.56), (0.0, 0.0), (1.0, 1.0)])
def test_a_crop_is_cut_from_the_image_and_resized(size, center):
    view = ViewSpec('far', center[0], center[1], 0.5)
    geometry = view_geometry(view, size, NETWORK)
    rows, columns = camera_window(geometry)
    assert columns.stop - columns.start == round(0.5 * size[1])
    assert 0 <= rows.start < rows.stop <= size[0]
    assert 0 <= columns.start < columns.stop <= size[1]
    middle = ((columns.start + columns.stop) / 2, (rows.start + rows.stop) / 2)
    if center == (0.5, 0.56) and size[0] > 250:
        np.testing.assert_allclose(middle, np.multiply(center, size[::-1]), atol=1)
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    cut = np.ascontiguousarray(image[rows, columns])
    whole = geometry_for(cut.shape[:2], NETWORK, 'stretch')
    np.testing.assert_array_equal(to_network(image, geometry), to_network(cut, whole))


def scene(size):
    """Geometries of the whole image and of its middle half, and smooth scores of a plane."""
    geometries = [geometry_for(size, NETWORK), view_geometry(ViewSpec('far'), size, NETWORK)]
    maps = []
    for geometry in geometries:
        x = (np.arange(GRID[1]) + 0.5) * 2
        camera_x = (x - geometry.offset_x) / geometry.scale_x
        y = (np.arange(GRID[0]) + 0.5) * 2
        camera_y = (y - geometry.offset_y) / geometry.scale_y
        plane = 1 + camera_x[None] / size[1] + 2 * camera_y[:, None] / size[0]
        maps.append(plane.astype(np.float32))
    return geometries, maps


@pytest.mark.parametrize('size', [(576, 1024), (480, 640), (512, 2048)])
def test_two_views_of_one_scene_agree_where_they_meet(size):
    geometries, (whole, crop) = scene(size)
    np.testing.assert_allclose(merged(whole, [crop], geometries), whole, atol=0.02)
    above = merged(whole, [crop + 1], geometries)
    inside = above > whole + 0.5
    # as many cells as the crop covers of the canvas, none outside of it
    scale = geometries[1].scale_x / geometries[0].scale_x
    assert inside.mean() == pytest.approx(1 / scale**2, rel=0.12)
    np.testing.assert_allclose(above[inside], whole[inside] + 1, atol=0.02)
    np.testing.assert_array_equal(above[~inside], whole[~inside])


def test_nothing_becomes_less_anomalous_by_a_second_look():
    geometries, (whole, crop) = scene((576, 1024))
    np.testing.assert_array_equal(merged(whole, [crop - 9], geometries), whole)
    assert merged(whole, [], geometries[:1]) is whole


def test_views_that_cannot_be_are_named():
    assert view_problem((ViewSpec('a'), ViewSpec('b', 0, 1, 1))) == ''
    assert 'no two the same' in view_problem((ViewSpec('a'), ViewSpec('a')))
    assert "view 'a'" in view_problem((ViewSpec('a', width=0.0),))
    assert "view 'a'" in view_problem((ViewSpec('a', center_y=1.5),))
