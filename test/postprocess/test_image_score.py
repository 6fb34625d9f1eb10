# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Image scores, the threshold that flawless images give, and open-set labels."""

import math
from dataclasses import replace

import numpy as np
import pytest

from ood_perception.errors import ConfigError
from ood_perception.image.geometry import geometry_for
from ood_perception.postprocess import output_maps as open_set
from ood_perception.postprocess.image_score import image_surprisal, image_threshold, inspect
from ood_perception.postprocess.mask import surprisal_threshold
from ood_perception.postprocess.output_maps import OutputMaps
from ood_perception.types import Detection, Frame


def detection(surprisal, labels=None, scored=None, rate=0.01):
    """Return a detection whose grid is a tenth of the camera image."""
    surprisal = np.asarray(surprisal, np.float32)
    rows, columns = surprisal.shape
    scored = np.ones((rows, columns), bool) if scored is None else scored
    labels = np.zeros((rows, columns), np.uint8) if labels is None else labels
    size = (rows * 10, columns * 10)
    mask = scored & (surprisal >= surprisal_threshold(rate))
    frame = Frame(np.zeros((*size, 3), np.uint8))
    geometry = geometry_for(size, size)
    return Detection(frame, surprisal, labels, scored, mask, (), geometry, rate)


@pytest.mark.parametrize('share', [0.0, 1e-9, 0.01, 0.3, 1.0])
@pytest.mark.parametrize('seed', range(5))
def test_image_score_is_the_mean_of_the_sorted_top(seed, share):
    rng = np.random.default_rng(seed)
    surprisal = rng.gamma(1, 1, (13, 17)).astype(np.float32)
    scored = rng.random((13, 17)) < 0.6
    ranked = sorted(surprisal[scored].tolist(), reverse=True)
    count = max(1, math.ceil(share * len(ranked)))
    expected = sum(ranked[:count]) / count
    assert image_surprisal(surprisal, scored, share) == pytest.approx(expected, rel=1e-6)


def test_what_lies_outside_the_region_does_not_count():
    surprisal = np.full((4, 4), 0.5)
    surprisal[0, 0] = 9.0
    scored = np.ones((4, 4), bool)
    scored[0, 0] = False
    judged = inspect(detection(surprisal, scored=scored))
    assert (judged.surprisal, judged.scored, judged.flagged) == (0.5, 15 / 16, 0.0)
    nothing = inspect(detection(surprisal, scored=np.zeros((4, 4), bool)))
    assert math.isnan(nothing.surprisal)
    assert (nothing.scored, nothing.flagged) == (0.0, 0.0)
    for share in (-0.1, 1.1):
        with pytest.raises(ConfigError, match='from 0 to 1'):
            image_surprisal(np.zeros((2, 2), np.float32), np.ones((2, 2), bool), share)


@pytest.mark.parametrize(('count', 'rate'), [(19, 0.05), (39, 0.05), (50, 0.1), (9, 0.1)])
def test_the_threshold_keeps_its_rate_over_exchangeable_images(count, rate):
    """
    Leave each of n + 1 scores out in turn: exactly the targeted number is rejected, not one more.

    That average over the places of the new image is what exchangeability makes a probability.
    """
    scores = np.random.default_rng(1).permutation(np.arange(count + 1.0))
    rejected = sum(
        scores[i] >= image_threshold(np.delete(scores, i), rate) for i in range(count + 1)
    )
    assert rejected == math.floor((count + 1) * rate + 1e-9)


def test_ties_and_bad_input_of_the_threshold():
    assert image_threshold([2.0] * 19, 0.05) > 2.0, 'a score seen on flawless parts passes'
    with pytest.raises(ConfigError, match='at least 19'):
        image_threshold([1.0] * 18, 0.05)
    with pytest.raises(ConfigError, match='inside'):
        image_threshold([1.0], 0.0)
    with pytest.raises(ConfigError, match='not finite'):
        image_threshold([1.0, math.nan], 0.5)


def test_open_set_labels_hold_class_unknown_or_not_scored():
    surprisal = np.array([[0.1, 3.0, 3.0], [0.1, 0.1, 3.0]])
    labels = np.array([[0, 1, 2], [3, 253, 1]], np.uint8)
    scored = np.array([[1, 1, 0], [1, 1, 0]], bool)
    found = detection(surprisal, labels, scored)
    cells = open_set.open_set_cells(found)
    assert cells.tolist() == [[0, 254, 255], [3, 253, 255]]
    assert open_set.open_set_cells(found, 'labels').tolist() == [[0, 254, 2], [3, 253, 1]]
    assert found.labels.tolist() == labels.tolist(), 'the detection is not written to'
    with pytest.raises(ConfigError, match='not_scored'):
        open_set.open_set_cells(found, 'sky')
    names = open_set.open_set_names(['water', 'sky'])
    assert names == {0: 'water', 1: 'sky', 254: 'unknown', 255: 'not scored'}


def test_an_obstacle_by_its_class_alone_keeps_its_class():
    found = detection([[0.1, 3.0]], np.array([[4, 4]], np.uint8))
    found = replace(found, mask=np.ones((1, 2), bool))
    assert open_set.open_set_cells(found).tolist() == [[4, 254]]


def test_the_open_set_map_repeats_its_cells_and_agrees_with_the_mask():
    rng = np.random.default_rng(0)
    found = detection(rng.gamma(1, 1.5, (6, 8)), rng.integers(0, 5, (6, 8)).astype(np.uint8))
    maps = OutputMaps(found)
    pixels = maps.image('open_set_labels')
    np.testing.assert_array_equal(
        pixels, np.kron(open_set.open_set_cells(found), np.ones((10, 10), np.uint8))
    )
    np.testing.assert_array_equal(pixels == open_set.UNKNOWN, maps.image('mask') == 1)
