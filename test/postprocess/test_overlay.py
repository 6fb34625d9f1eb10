# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What the overlay must show, by its pixels."""

import cv2
import numpy as np
import pytest

from ood_perception.errors import ConfigError
from ood_perception.image.geometry import camera_window, geometry_for
from ood_perception.postprocess import overlay as ov
from ood_perception.postprocess.mask import make_mask, obstacles_of
from ood_perception.types import Detection, Frame

GRID = (54, 96)
PLAIN = ov.OverlayOptions(boxes=False, region=False, legend=False)


def detection_of(size=(270, 480), policy='fit', rate=0.01):
    image = np.full((*size, 3), 100, dtype=np.uint8)
    surprisal = np.zeros(GRID, dtype=np.float32)
    surprisal[30:, :] = 0.5
    surprisal[40:44, 40:50] = 4
    scored = np.zeros(GRID, dtype=bool)
    scored[30:] = True
    geometry = geometry_for(size, (378, 672), policy)
    mask, components = make_mask(surprisal, scored, rate)
    obstacles = obstacles_of(components, geometry)
    labels = np.zeros(GRID, dtype=np.uint8)
    return Detection(Frame(image), surprisal, labels, scored, mask, obstacles, geometry, rate)


def test_heat_stays_inside_the_region_and_rises_with_surprisal():
    detection = detection_of()
    before = detection.frame.image.copy()
    photo = ov.draw_overlay(detection, PLAIN)
    assert photo.shape == before.shape
    assert photo.dtype == np.uint8
    np.testing.assert_array_equal(detection.frame.image, before)
    assert (photo[:145] == 100).all()  # five pixels a cell, the region begins at row 150
    change = np.abs(photo.astype(int) - 100).max(axis=2)
    assert change[160, 100] > 0
    assert change[210, 225] > 2 * change[160, 100]
    red, green, _ = photo[210, 225]
    assert red > 100 > green


def test_no_opacity_leaves_the_image():
    detection = detection_of()
    options = ov.OverlayOptions(opacity=0.0, boxes=False, region=False, legend=False)
    photo = ov.draw_overlay(detection, options)
    outline = (photo == ov.OBSTACLE_COLOR).all(axis=2)
    assert (photo[~outline] == 100).all()
    rows, columns = np.nonzero(outline)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (200, 219, 200, 249)


def test_boxes_region_and_legend_are_drawn_when_asked():
    detection = detection_of()
    photo = ov.draw_overlay(detection, ov.OverlayOptions(legend=False))
    assert (photo[220, 200:250] == ov.BOX_COLOR).all()
    assert (photo[150] == ov.REGION_COLOR).all()
    legend = ov.draw_overlay(detection, ov.OverlayOptions())
    assert (legend[:60] != photo[:60]).any()
    np.testing.assert_array_equal(legend[150:], photo[150:])


def test_nothing_is_drawn_where_a_cropping_network_does_not_look():
    detection = detection_of((300, 400), 'fill')
    rows, _ = camera_window(detection.geometry)
    photo = ov.draw_overlay(detection, PLAIN)
    assert rows.stop < 300
    assert (photo[rows.stop + 1 :] == 100).all()
    assert (photo[rows.stop - 10] != 100).any()


@pytest.mark.parametrize('size', [(1, 1), (20, 30), (64, 48), (1080, 1920)])
@pytest.mark.parametrize('policy', ['fit', 'fill', 'stretch'])
def test_every_size_can_be_drawn(size, policy):
    photo = ov.draw_overlay(detection_of(size, policy, rate=0.0123))
    assert photo.shape == (*size, 3)


def test_the_mask_in_colours_shows_what_the_mask_says():
    colored = ov.color_mask(np.array([[0, 1, 255, 7]], np.uint8))
    normal, obstacle, not_scored, other = colored[0].astype(int)
    assert colored.shape == (1, 4, 3)
    assert [tuple(c) for c in (normal, obstacle, not_scored)] == list(ov.MASK_COLORS.values())
    assert not other.any()
    named = {'red': obstacle, 'green': normal, 'grey': not_scored}
    assert obstacle.argmax() == 0, 'red'
    assert normal.argmax() == 1, 'green'
    for one, color in named.items():
        assert color.max() >= 40, f'{one} can be told from black'
        for two, another in named.items():
            assert one == two or np.abs(color - another).max() > 80, f'{one} and {two}'


@pytest.mark.parametrize('rate', [0.05, 0.01, 1e-4])
def test_the_threshold_is_in_the_middle_of_the_scores_colours(rate):
    threshold = -np.log10(rate)
    surprisal = np.array([[0, 0.5, 0.97, 1.03, 2, 9, np.nan]], np.float32) * np.float32(threshold)
    colored = ov.color_score(surprisal, rate)[0].astype(int)
    red, green, blue = colored.T
    assert colored[0].argmax() == 1, 'green at 0'
    assert colored[1].min() == blue[1] < 20, 'yellow half way'
    assert green[2] - green[3] > 60, 'orange turns red at the threshold'
    assert red[3] > 250
    np.testing.assert_array_equal(colored[4], colored[5], 'above twice the threshold all is one')
    assert tuple(colored[6]) == ov.NOT_SCORED_COLOR


def test_jpeg_keeps_the_colours():
    photo = np.zeros((32, 32, 3), dtype=np.uint8)
    photo[:] = (200, 60, 20)
    data = ov.encode_jpeg(photo, 95)
    assert data.ndim == 1
    decoded = cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    assert np.abs(decoded.astype(int) - photo).max() <= 4


def test_wrong_opacity_is_refused():
    with pytest.raises(ConfigError, match=r'opacity 1\.5'):
        ov.OverlayOptions(opacity=1.5)
