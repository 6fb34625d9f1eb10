# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""LaRS metrics worked by hand, and against scipy's morphology on random scenes."""

from __future__ import annotations

import numpy as np
import pytest
from server_images import from_coloured

from ood_perception.errors import DataError
from ood_perception.metrics.lars import (
    coloured,
    lars_frame,
    lars_metrics,
    lars_samples,
    with_obstacles,
)

OBSTACLE, WATER, SKY, VOID = 0, 1, 2, 255
BOAT = 11  # a dynamic category


def scene(height=60, width=80):
    """Sky above a quay (static obstacle, rows 10-19) above water with a 4 x 4 boat."""
    semantic = np.full((height, width), WATER, np.uint8)
    semantic[:10], semantic[10:20] = SKY, OBSTACLE
    panoptic = np.zeros((height, width, 3), np.uint8)
    panoptic[semantic == WATER, 0], panoptic[semantic == SKY, 0] = 3, 5
    panoptic[10:20, :, 0] = 1
    semantic[40:44, 40:44] = OBSTACLE
    panoptic[40:44, 40:44] = (BOAT, 2, 1)
    number = BOAT + 256 * 2 + 65536
    return semantic, panoptic, {number: BOAT, 1: 1, 3: 3, 5: 5}


def test_a_perfect_prediction():
    semantic, panoptic, segments = scene()
    got = lars_metrics([lars_frame(semantic, semantic, panoptic, segments)])
    for name in ('quality', 'edge_accuracy', 'precision', 'recall', 'f1', 'mean_iou', 'edge_iou'):
        assert got[name] == 1.0, name
    assert got['false_positive_rate'] == 0.0


@pytest.mark.parametrize(('rows', 'found'), [(4, 1), (3, 1), (2, 0)])
def test_an_obstacle_is_found_from_seven_tenths_on(rows, found):
    semantic, panoptic, segments = scene()
    prediction = semantic.copy()
    prediction[40 + rows : 44, 40:44] = WATER  # 16, 12 or 8 of 16 pixels are left
    got = lars_frame(prediction, semantic, panoptic, segments)
    assert (got.found, got.missed) == (found, 1 - found)


def test_found_counts_pixels_within_three_of_the_obstacle():
    semantic, panoptic, segments = scene()
    for shift, found in ((3, 1), (4, 0)):
        prediction = np.where(semantic == OBSTACLE, WATER, semantic).astype(np.uint8)
        prediction[40:44, 40 + 3 + shift] = OBSTACLE  # 4 pixels a column
        prediction[40:44, 40 - shift] = OBSTACLE
        prediction[40 - shift, 40:44] = OBSTACLE  # 12 pixels, all `shift` outside the segment
        assert lars_frame(prediction, semantic, panoptic, segments).found == found


def test_pixels_of_static_obstacles_do_not_find_a_dynamic_one():
    """A boat of two rows moored at the quay: the quay's pixels beside it do not count for it."""
    semantic, panoptic, segments = scene()
    panoptic[40:44, 40:44], semantic[40:44, 40:44] = (3, 0, 0), WATER
    semantic[20:22, 40:44], panoptic[20:22, 40:44] = OBSTACLE, (BOAT, 2, 1)
    prediction = semantic.copy()
    prediction[20:22, 40:44] = WATER
    got = lars_frame(prediction, semantic, panoptic, segments)
    assert (got.found, got.missed) == (0, 1)


def test_every_stray_pixel_in_open_water_is_a_false_alarm():
    semantic, panoptic, segments = scene()
    prediction = semantic.copy()
    prediction[32, 5] = prediction[33, 6] = OBSTACLE  # diagonal: one component
    prediction[50, 70] = OBSTACLE
    prediction[22, 60] = OBSTACLE  # 10 pixels of the quay: not judged
    prediction[59, 79] = OBSTACLE  # in the corner: the border of the image does not erode
    got = lars_frame(prediction, semantic, panoptic, segments)
    assert got.alarms == 3
    assert got.water_alarms == 4
    metrics = lars_metrics([got])
    assert (metrics['precision'], metrics['recall']) == (0.25, 1.0)
    assert metrics['f1'] == pytest.approx(0.4)
    assert metrics['quality'] == pytest.approx(0.4 * metrics['mean_iou'])
    assert metrics['false_positive_rate'] == 4 / got.water_pixels


def test_the_water_edge_by_hand():
    """Within 5 pixels of the other side: rows 15-19 of the quay and 20-24 of the water."""
    semantic, panoptic, segments = scene()
    prediction = semantic.copy()
    prediction[17:20] = WATER
    got = lars_frame(prediction, semantic, panoptic, segments)
    assert (got.edge_pixels, got.edge_correct) == (10 * 80, 7 * 80)
    # obstacle right on 2 rows, water on 5: min / (area - max)
    assert (got.edge_intersection, got.edge_union) == (2 * 80, 10 * 80 - 5 * 80)
    metrics = lars_metrics([got])
    assert (metrics['edge_accuracy'], metrics['edge_iou']) == (0.7, 0.4)


def test_near_a_dynamic_obstacle_the_edge_is_not_judged():
    semantic, panoptic, segments = scene()
    semantic[24:28, 40:44], panoptic[24:28, 40:44] = OBSTACLE, (BOAT, 2, 1)
    semantic[40:44, 40:44], panoptic[40:44, 40:44] = WATER, (3, 0, 0)
    got = lars_frame(semantic, semantic, panoptic, segments)
    # dilated by 7 x 7 the boat covers rows 21-30, columns 37-46: 4 rows x 10 of the edge
    assert got.edge_pixels == 10 * 80 - 4 * 10


def test_mean_iou_by_hand_leaves_ignored_pixels_out():
    semantic = np.array([[OBSTACLE, OBSTACLE, WATER, SKY, VOID, VOID]], np.uint8)
    panoptic = np.zeros((1, 6, 3), np.uint8)
    prediction = np.array([[OBSTACLE, WATER, WATER, SKY, SKY, OBSTACLE]], np.uint8)
    got = lars_metrics([lars_frame(prediction, semantic, panoptic, {})])
    assert (got['iou_obstacle'], got['iou_water'], got['iou_sky']) == (0.5, 0.5, 1.0)
    assert got['mean_iou'] == pytest.approx(2 / 3)


def random_scene(seed):
    """Return (prediction, semantic, panoptic, segments) with touching segments of all kinds."""
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(24, 70, 2))
    panoptic = np.zeros((*shape, 3), np.uint8)
    panoptic[..., 0] = 3
    panoptic[: shape[0] // 4, :, 0] = 5
    segments = {}
    for number in range(rng.integers(1, 7)):
        category = int(rng.choice([1, 1, 11, 14, 17, 19, 18]))
        y, x = (int(rng.integers(0, size - 2)) for size in shape)
        colour = (category, number if category > 1 else 0, 7 if category > 1 else 0)
        panoptic[y : y + rng.integers(1, 25), x : x + rng.integers(1, 25)] = colour
        segments[colour[0] + 256 * colour[1] + 65536 * colour[2]] = category
    table = np.full(256, OBSTACLE, np.uint8)
    table[3], table[5] = WATER, SKY
    semantic = table[panoptic[..., 0]]
    prediction = np.where(rng.random(shape) < 0.1, rng.integers(0, 3, shape), semantic)
    semantic = np.where(rng.random(shape) < 0.02, VOID, semantic)
    return prediction.astype(np.uint8), semantic.astype(np.uint8), panoptic, segments


def by_scipy(prediction, semantic, panoptic, segments):
    """Return the counts with scipy's morphology on the whole image."""
    ndimage = pytest.importorskip('scipy.ndimage')

    def grow(mask, size):
        return ndimage.binary_dilation(mask, np.ones((size, size)))

    numbers = panoptic.astype(int) @ [1, 256, 65536]
    static, water = panoptic[..., 0] == 1, semantic == WATER
    obstacle = prediction == OBSTACLE
    near, found, missed = np.zeros(water.shape, bool), 0, 0
    for number, category in segments.items():
        if category in {11, 12, 13, 14, 15, 16, 17, 19}:
            dilated = grow(numbers == number, 7)
            near |= dilated
            hit = (obstacle & ~static & dilated).sum() > 0.7 * (numbers == number).sum()
            found, missed = found + hit, missed + (not hit)
    edge = grow(static, 11) & grow(water, 11) & (static | water) & ~near
    on = [(edge & (semantic == c) & (prediction == c)).sum() for c in (OBSTACLE, WATER)]
    eroded = ndimage.binary_erosion(water, np.ones((21, 21)), border_value=1)
    false = obstacle & eroded
    return {
        'found': found,
        'missed': missed,
        'alarms': ndimage.label(false, np.ones((3, 3)))[1],
        'edge_correct': (edge & (prediction == semantic)).sum(),
        'edge_pixels': edge.sum(),
        'edge_intersection': min(on),
        'edge_union': edge.sum() - max(on),
        'water_alarms': false.sum(),
        'water_pixels': eroded.sum(),
    }


def test_counts_equal_scipys_morphology_on_random_scenes():
    for seed in range(220):
        case = random_scene(seed)
        got = lars_frame(*case)
        for name, value in by_scipy(*case).items():
            assert getattr(got, name) == value, (seed, name)


def test_class_iou_equals_torchmetrics():
    torch = pytest.importorskip('torch')
    oracle = pytest.importorskip('torchmetrics.functional.classification')
    for seed in range(40):
        prediction, semantic, panoptic, segments = random_scene(seed)
        got = lars_metrics([lars_frame(prediction, semantic, panoptic, segments)])
        pair = (torch.from_numpy(a.astype(np.int64)) for a in (prediction, semantic))
        wanted = oracle.multiclass_jaccard_index(*pair, num_classes=3, ignore_index=255)
        assert got['mean_iou'] == pytest.approx(float(wanted), abs=1e-6)  # float32 there


def test_samples_are_the_metrics_of_the_drawn_frames():
    frames = [lars_frame(*random_scene(seed)) for seed in range(4)]
    samples = lars_samples(frames, np.array([[2.0, 0.0, 1.0, 1.0]]))
    wanted = lars_metrics([frames[0], frames[0], frames[2], frames[3]])
    for name, values in samples.items():
        assert values[0] == pytest.approx(wanted[name], abs=1e-12)


def test_edge_cases_give_what_the_documentation_says():
    void = lars_frame(*(np.full((3, 3), VOID, np.uint8),) * 2, np.zeros((3, 3, 3), np.uint8), {})
    got = lars_metrics([void])
    assert (got['precision'], got['recall'], got['f1']) == (0, 0, 0)
    for name in ('quality', 'mean_iou', 'edge_accuracy', 'edge_iou', 'false_positive_rate'):
        assert np.isnan(got[name]), name
    full = lars_frame(*(scene()[0], *scene()))
    assert lars_metrics([full, void]) == lars_metrics([full])


def test_predictions_are_resized_with_nearest():
    semantic, panoptic, segments = scene()
    double = np.repeat(np.repeat(semantic, 2, 0), 2, 1)
    assert lars_metrics([lars_frame(double, semantic, panoptic, segments)])['quality'] == 1.0


def test_colours_of_the_server_go_both_ways():
    labels = np.array([[OBSTACLE, WATER, SKY, VOID]], np.uint8)
    photo = coloured(labels)
    assert photo[0].tolist() == [[247, 195, 37], [41, 167, 224], [90, 75, 164], [0, 0, 0]]
    np.testing.assert_array_equal(from_coloured(photo), labels)


def test_flagged_pixels_become_obstacles():
    labels = np.array([[WATER, SKY, OBSTACLE]], np.uint8)
    assert with_obstacles(labels, np.array([[True, False, False]])).tolist() == [[0, 2, 0]]


def test_bad_input_is_named():
    semantic, panoptic, segments = scene()
    with pytest.raises(DataError, match='do not match'):
        lars_frame(semantic, semantic, panoptic[..., 0], segments)
    with pytest.raises(DataError, match='no frames'):
        lars_metrics([])
