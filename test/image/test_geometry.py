# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Geometry against closed forms, and its inverse over random sizes."""

import cv2
import numpy as np
import pytest

from ood_perception.errors import ConfigError, ImageError
from ood_perception.image import geometry as geo
from ood_perception.types import Geometry

SEEDS = range(30)


def random_case(seed):
    rng = np.random.default_rng(seed)
    camera = tuple(int(v) for v in rng.integers(20, 400, 2))
    patch, factor = 14, int(rng.integers(1, 8))
    patches = rng.integers(2, 12, 2)
    network = tuple(int(v) * patch for v in patches)
    grid = tuple(int(v) * factor for v in patches)
    policy = geo.POLICIES[seed % 3]
    anchor = float(rng.choice([0.0, 0.25, 0.5, 1.0]))
    return rng, geo.geometry_for(camera, network, policy, anchor), grid


def to_network(points, geometry):
    """Return points (x, y) of the camera image in network pixels."""
    scale, offset = (geometry.scale_x, geometry.scale_y), (geometry.offset_x, geometry.offset_y)
    return np.asarray(points) * scale + offset


def to_grid(points, geometry, grid):
    """Return points (x, y) of the camera image in grid cells."""
    return to_network(points, geometry) * (grid[1] / geometry.width, grid[0] / geometry.height)


def network_to_camera(points, geometry):
    """Return points (x, y) of the network input in camera pixels."""
    return geo.grid_to_camera(points, geometry, (geometry.height, geometry.width))


@pytest.mark.parametrize('seed', SEEDS)
def test_points_return_to_where_they_came_from(seed):
    rng, geometry, grid = random_case(seed)
    points = rng.uniform(-50, 450, (100, 2))
    there = to_network(points, geometry)
    np.testing.assert_allclose(network_to_camera(there, geometry), points, atol=1e-9)
    there = to_grid(points, geometry, grid)
    np.testing.assert_allclose(geo.grid_to_camera(there, geometry, grid), points, atol=1e-9)


@pytest.mark.parametrize('seed', SEEDS)
def test_policy_keeps_its_word(seed):
    _, geometry, _ = random_case(seed)
    corners = np.array([[0, 0], [geometry.camera_width, geometry.camera_height]])
    (left, top), (right, bottom) = to_network(corners, geometry)
    policy = geo.POLICIES[seed % 3]
    tolerance = 1e-9
    if policy == 'fit':
        assert left >= -tolerance
        assert top >= -tolerance
        assert right <= geometry.width + tolerance
        assert bottom <= geometry.height + tolerance
    if policy == 'fill':
        assert left <= tolerance
        assert top <= tolerance
        assert right >= geometry.width - tolerance
        assert bottom >= geometry.height - tolerance
    if policy == 'stretch':
        assert (left, top) == (0, 0)
        assert (right, bottom) == pytest.approx((geometry.width, geometry.height))
    else:
        pixels = max(geometry.camera_height, geometry.camera_width)
        assert geometry.scale_x / geometry.scale_y == pytest.approx(1, abs=0.6 / min(20, pixels))


def test_anchor_says_where_the_image_lies():
    for anchor, left in ((0.0, 0), (0.5, 160), (1.0, 320)):
        geometry = geo.geometry_for((720, 960), (378, 672), 'fit', anchor)
        assert geometry.offset_x == pytest.approx(left * 378 / 720)
        assert geometry.offset_y == 0
    cropped = geo.geometry_for((720, 960), (378, 672), 'fill', 1.0)
    assert cropped.offset_y == pytest.approx(-180 * 0.7)
    assert geo.camera_window(cropped) == (slice(180, 720), slice(0, 960))


def test_a_rounded_half_goes_to_the_right_and_to_the_bottom():
    odd = geo.geometry_for((11, 10), (11, 11))  # one column of padding for two sides
    assert (odd.offset_x, odd.offset_y) == (1, 0)
    cut = geo.geometry_for((10, 11), (10, 10), 'fill')  # one column too many
    assert geo.camera_window(cut) == (slice(0, 10), slice(0, 10))


def test_a_canvas_has_a_pixel_at_least():
    assert geo.geometry_for((1, 1000), (10, 1), 'fill').scale_x == 1  # a tenth of a column: one
    assert geo.geometry_for((1000, 1), (1, 10), 'fill').scale_y == 1


def test_default_camera_and_network_share_their_aspect():
    geometry = geo.geometry_for((1080, 1920), (378, 672))
    assert (geometry.scale_x, geometry.scale_y) == pytest.approx((0.35, 0.35))
    assert (geometry.offset_x, geometry.offset_y) == (0, 0)


@pytest.mark.parametrize('policy', geo.POLICIES)
@pytest.mark.parametrize('camera', [(200, 300), (97, 31), (64, 300), (756, 1344), (380, 1344)])
def test_a_gradient_keeps_its_values(policy, camera):
    # Any resize with the right centres maps a linear ramp to itself, borders apart.
    geometry = geo.geometry_for(camera, (140, 280), policy)
    ramp = np.linspace(20, 220, camera[1])[None, :] * np.ones((camera[0], 1))
    out = geo.to_network(np.round(ramp).astype(np.uint8), geometry)
    centres = np.stack([np.arange(280) + 0.5, np.full(280, 70.5)], axis=-1)
    x = network_to_camera(centres, geometry)[:, 0] - 0.5
    inside = (x > 2) & (x < camera[1] - 3)
    expected = np.interp(x, np.arange(camera[1]), ramp[0])
    assert np.abs(out[70][inside] - expected[inside]).max() < 1.6


def test_shrinking_averages_areas():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (160, 320, 3), dtype=np.uint8)
    out = geo.to_network(image, geo.geometry_for((160, 320), (20, 40)))
    mean = image.reshape(20, 8, 40, 8, 3).mean(axis=(1, 3))
    assert np.abs(out - mean).max() <= 1.6  # three roundings of half a level
    smooth = cv2.GaussianBlur(image, (0, 0), 4)
    direct = cv2.resize(smooth, (112, 56), interpolation=cv2.INTER_AREA)
    ours = geo.to_network(smooth, geo.geometry_for((160, 320), (56, 112)))
    assert np.abs(ours.astype(int) - direct).max() <= 2


def area_weights(count, length):
    """Return float (count, length): how much of each pixel lies in each of `count` equal cells."""
    edges = np.arange(count + 1) * (length / count)
    pixels = np.arange(length)
    low, high = np.maximum(edges[:-1, None], pixels), np.minimum(edges[1:, None], pixels + 1)
    return np.clip(high - low, 0, None) * (count / length)


def test_five_pixels_into_four_are_almost_their_areas_average():
    rng = np.random.default_rng(3)
    noise = rng.integers(0, 256, (540, 960, 3), dtype=np.uint8)
    image = cv2.GaussianBlur(noise, (0, 0), 1.5)
    down, across = area_weights(432, 540), area_weights(768, 960)
    mean = np.einsum('ij,jkc,lk->ilc', down, image.astype(float), across, optimize=True)
    out = geo.to_network(image, geo.geometry_for((540, 960), (432, 768)))
    assert np.abs(out - mean).max() < 0.1 * np.ptp(image)
    assert np.abs(out - mean).mean() < 1


def test_from_five_into_four_on_areas_are_averaged_and_up_to_there_samples_are_taken():
    noise = np.random.default_rng(4).integers(0, 256, (90, 180), dtype=np.uint8)
    out = geo.to_network(noise, geo.geometry_for((90, 180), (60, 120)))
    mean = area_weights(60, 90) @ noise @ area_weights(120, 180).T
    assert np.abs(out - mean).max() < 0.51
    line = np.zeros((40, 40), np.uint8)
    line[:, 0] = 200  # the first sample lies at 5/8: 1/8 of the way from the first centre
    for shape in ((32, 32), (40, 32)):
        out = geo.to_network(line, geo.geometry_for((40, 40), shape, 'stretch'))
        assert (out[:, 0] == 175).all()


def linear_weights(count, length):
    """Return float (count, length): the shares of pixels in samples between their centres."""
    places = np.clip((np.arange(count) + 0.5) * (length / count) - 0.5, 0, length - 1)
    return np.clip(1 - np.abs(places[:, None] - np.arange(length)), 0, None)


@pytest.mark.parametrize(
    ('camera', 'network', 'halvings'),
    [
        ((64, 96), (16, 24), 2),
        ((90, 64), (32, 32), 1),
        ((126, 132), (30, 33), 1),  # to an odd height
        ((63, 68), (20, 22), 0),
        ((63, 67), (20, 22), 0),
        ((64, 60), (16, 40), 0),
        ((30, 60), (48, 40), 0),
        ((40, 60), (48, 40), 0),
    ],
)
def test_axes_are_halved_together_then_averaged_or_sampled_each(camera, network, halvings):
    image = np.random.default_rng(6).integers(0, 256, camera, dtype=np.uint8)
    axes = []
    for few, many in zip(network, camera, strict=True):
        half = many >> halvings
        last = (area_weights if half > few else linear_weights)(few, half)
        axes.append(last @ area_weights(half, many))
    expected = axes[0] @ image @ axes[1].T
    for turn in (np.asarray, np.transpose):
        geometry = geo.geometry_for(turn(image).shape, turn(expected).shape, 'stretch')
        out = geo.to_network(np.ascontiguousarray(turn(image)), geometry)
        assert np.abs(out - turn(expected)).max() < 1.6  # three roundings of half a level


def test_resize_is_the_same_on_every_run_and_number_of_threads():
    image = np.random.default_rng(1).integers(0, 256, (1080, 1920, 3), dtype=np.uint8)
    geometry = geo.geometry_for((1080, 1920), (378, 672))
    threads = cv2.getNumThreads()
    first = geo.to_network(image, geometry)
    try:
        cv2.setNumThreads(1)
        np.testing.assert_array_equal(geo.to_network(image, geometry), first)
    finally:
        cv2.setNumThreads(threads)
    assert first.shape == (378, 672, 3)
    assert first.flags.c_contiguous


def test_padding_has_the_mean_colour_and_ignored_labels():
    geometry = geo.geometry_for((70, 70), (70, 140))
    out = geo.to_network(np.zeros((70, 70, 3), np.uint8), geometry)
    mean = np.round(np.multiply(255, (0.485, 0.456, 0.406)))  # of ImageNet
    assert (out[:, :35] == mean).all()
    assert (out[:, 35:105] == 0).all()
    assert (out[:, 105:] == mean).all()
    labels = geo.to_network(np.full((70, 70), 3, np.uint8), geometry, labels=True)
    assert (labels[:, 35:105] == 3).all()
    assert (np.delete(labels, np.s_[35:105], axis=1) == 255).all()


def test_an_image_may_be_cut_along_one_axis_and_padded_along_the_other():
    image = np.random.default_rng(5).integers(0, 99, (10, 10), dtype=np.uint8)
    padded = np.pad(image[3:7], ((0, 0), (2, 2)), constant_values=geo.IGNORED_LABEL)
    flat, tall = Geometry(10, 10, 4, 14, 1, 1, 2, -3), Geometry(10, 10, 14, 4, 1, 1, -3, 2)
    for labels in (True, False):
        out = geo.to_network(image, flat, labels)
        turned = geo.to_network(np.ascontiguousarray(image.T), tall, labels)
        np.testing.assert_array_equal(turned, out.T)
        np.testing.assert_array_equal(out[:, 2:-2], padded[:, 2:-2])
        np.testing.assert_array_equal(out[:, [0, 1, -2, -1]] == 255, labels)


@pytest.mark.parametrize('seed', SEEDS)
def test_labels_are_sampled_at_pixel_centres(seed):
    rng, geometry, grid = random_case(seed)
    labels = rng.integers(0, 20, (geometry.camera_height, geometry.camera_width), dtype=np.uint8)
    out = geo.to_network(labels, geometry, labels=True)
    centres = np.stack(np.meshgrid(np.arange(geometry.width), np.arange(geometry.height)), -1)
    points = network_to_camera(centres + 0.5, geometry)
    # A centre that falls on the border of two pixels may take either: leave those out.
    clear = (np.abs(points - np.round(points)) > 1e-6).all(axis=-1)
    x, y = np.floor(points).astype(int)[..., 0], np.floor(points).astype(int)[..., 1]
    inside = (x >= 0) & (y >= 0) & (x < geometry.camera_width) & (y < geometry.camera_height)
    expected = np.full(out.shape, 255)
    expected[inside] = labels[y[inside], x[inside]]
    np.testing.assert_array_equal(out[clear], expected[clear])
    rows = np.floor((np.arange(grid[0]) + 0.5) * geometry.height / grid[0] + 1e-9).astype(int)
    columns = np.floor((np.arange(grid[1]) + 0.5) * geometry.width / grid[1] + 1e-9).astype(int)
    np.testing.assert_array_equal(geo.labels_to_grid(out, grid), out[np.ix_(rows, columns)])


@pytest.mark.parametrize('seed', SEEDS)
def test_bilinear_inverse_follows_a_plane(seed):
    _, geometry, grid = random_case(seed)
    x = np.arange(grid[1], dtype=np.float32)
    y = np.arange(grid[0], dtype=np.float32)
    plane = 0.3 * x[None, :] - 0.2 * y[:, None] + 1
    out = geo.to_camera(plane, geometry)
    pixels = np.meshgrid(np.arange(geometry.camera_width), np.arange(geometry.camera_height))
    cells = to_grid(np.stack(pixels, -1) + 0.5, geometry, grid) - 0.5
    cells = np.clip(cells, 0, (grid[1] - 1, grid[0] - 1))
    assert out.dtype == np.float32
    assert out.flags.c_contiguous
    rows, columns = geo.camera_window(geometry)
    expected = (0.3 * cells[..., 0] - 0.2 * cells[..., 1] + 1)[rows, columns]
    np.testing.assert_allclose(out[rows, columns], expected, atol=2e-4)
    below, after = geometry.camera_height - rows.stop, geometry.camera_width - columns.stop
    around = ((rows.start, below), (columns.start, after))
    np.testing.assert_array_equal(out, np.pad(out[rows, columns], around, mode='edge'))


@pytest.mark.parametrize('seed', SEEDS)
def test_nearest_inverse_takes_the_cell_that_holds_the_pixel(seed):
    rng, geometry, grid = random_case(seed)
    cells = rng.integers(0, 255, grid, dtype=np.uint8)
    out = geo.to_camera_nearest(cells, geometry)
    given = np.zeros_like(out)
    assert geo.to_camera_nearest(cells, geometry, given) is given
    np.testing.assert_array_equal(given, out)
    pixels = np.meshgrid(np.arange(geometry.camera_width), np.arange(geometry.camera_height))
    points = to_grid(np.stack(pixels, -1) + 0.5, geometry, grid)
    clear = (np.abs(points - np.round(points)) > 1e-6).all(axis=-1)
    index = np.clip(np.floor(points).astype(int), 0, (grid[1] - 1, grid[0] - 1))
    np.testing.assert_array_equal(out[clear], cells[index[..., 1], index[..., 0]][clear])


def test_a_cell_a_pixel_goes_to_its_pixel():
    cells = np.arange(48).reshape(6, 8)
    geometry = geo.geometry_for((6, 8), (6, 8))
    np.testing.assert_array_equal(geo.to_camera_nearest(cells, geometry), cells)
    np.testing.assert_array_equal(geo.to_camera(cells.astype(np.float32), geometry), cells)


@pytest.mark.parametrize('seed', SEEDS)
def test_valid_cells_are_those_with_their_centre_in_the_image(seed):
    _, geometry, grid = random_case(seed)
    valid = geo.grid_valid(geometry, grid)
    centres = np.stack(np.meshgrid(np.arange(grid[1]), np.arange(grid[0])), -1) + 0.5
    points = geo.grid_to_camera(centres, geometry, grid)
    size = np.array([geometry.camera_width, geometry.camera_height])
    clear = ((np.abs(points) > 1e-6) & (np.abs(points - size) > 1e-6)).all(axis=-1)
    expected = ((points >= 0) & (points < size)).all(axis=-1)
    np.testing.assert_array_equal(valid[clear], expected[clear])
    # The cells of the network input together cover the canvas.
    rows, columns = geo.camera_window(geometry)
    seen = (rows.stop - rows.start) * (columns.stop - columns.start)
    area = geo.camera_area_of_cell(geometry, grid)
    assert area * valid.size == pytest.approx(
        1 / (geometry.scale_x * geometry.scale_y) * geometry.width * geometry.height
    )
    assert area * valid.size >= seen * (1 - 1e-9)


def test_a_centre_on_the_images_edge_belongs_to_the_left_and_to_the_top():
    for network, cells in (((70, 140), (1, 2)), ((140, 70), (2, 1))):
        geometry = geo.geometry_for((70, 70), network)  # 35 pixels of padding on two sides
        assert geo.grid_valid(geometry, cells).ravel().tolist() == [True, False]
        valid = geo.grid_valid(geometry, network)
        assert valid.sum() == 70 * 70
        assert geo.camera_area_of_cell(geometry, cells) == 70 * 70


@pytest.mark.parametrize('policy', ['fit', 'fill'])
@pytest.mark.parametrize('anchor', [0.0, 0.5, 1.0])
@pytest.mark.parametrize('camera', [(720, 960), (540, 1920)])
def test_an_output_of_another_size_shows_the_same_view(camera, anchor, policy):
    geometry = geo.geometry_for(camera, (360, 640), policy, anchor)
    assert geo.for_output(geometry, camera) == geometry
    for y, x in ((0.5, 0.5), (2, 1), (0.5, 2)):
        other = geo.for_output(geometry, (int(camera[0] * y), int(camera[1] * x)))
        assert (other.camera_height, other.camera_width) == (camera[0] * y, camera[1] * x)
        assert (other.height, other.width) == (360, 640)
        assert other.scale_y == pytest.approx(geometry.scale_y / y)
        assert other.scale_x == pytest.approx(geometry.scale_x / x)
        assert other.offset_y == pytest.approx(geometry.offset_y)
        assert other.offset_x == pytest.approx(geometry.offset_x)


def test_of_an_output_as_thin_as_what_is_cut_a_pixel_is_left():
    geometry = geo.geometry_for((720, 960), (14, 672), 'fill')  # 20 of 720 rows are seen
    assert geo.for_output(geometry, (2, 960)).scale_y == 14
    geometry = geo.geometry_for((960, 720), (672, 14), 'fill')
    assert geo.for_output(geometry, (960, 2)).scale_x == 14


def test_intrinsics_scale_with_pixel_centres():
    k = [1000, 0, 959.5, 0, 1000, 539.5, 0, 0, 1]
    scaled = geo.scaled_intrinsics(k, 0.5, 0.5).reshape(3, 3)
    np.testing.assert_allclose(scaled, [[500, 0, 479.5], [0, 500, 269.5], [0, 0, 1]])
    p = [1000, 0, 959.5, -120, 0, 1000, 539.5, 0, 0, 0, 1, 0]
    scaled = geo.scaled_intrinsics(p, 0.25, 0.5).reshape(3, 4)
    # A point projects to the same place of the resized image.
    point = np.array([0.3, -0.2, 5.0, 1.0])
    x, y, depth = np.reshape(p, (3, 4)) @ point
    u, v, w = scaled @ point
    assert (u / w + 0.5, v / w + 0.5) == pytest.approx(
        ((x / depth + 0.5) * 0.25, (y / depth + 0.5) * 0.5)
    )


def test_wrong_arguments_are_refused_by_name():
    with pytest.raises(ConfigError, match=r"'zoom'.*fit, fill, stretch"):
        geo.geometry_for((10, 10), (14, 14), 'zoom')
    with pytest.raises(ConfigError, match=r'anchor 1\.5'):
        geo.geometry_for((10, 10), (14, 14), 'fit', 1.5)
    with pytest.raises(ConfigError, match=r'anchor -0\.5'):
        geo.geometry_for((10, 10), (14, 14), 'fit', -0.5)
    for sizes in (((0, 10), (14, 14)), ((10, 10), (14, 0))):
        with pytest.raises(ConfigError, match='empty'):
            geo.geometry_for(*sizes)
    assert geo.geometry_for((1, 1), (1, 1)).scale_x == 1
    geometry = geo.geometry_for((10, 20), (14, 28))
    shapes = ((20, 10, 3), (10, 20, 4), (10, 20, 1))
    images = [np.zeros(shape, np.uint8) for shape in shapes]
    for image in (*images, np.zeros((10, 20, 3), np.float32)):
        with pytest.raises(ImageError, match='expected uint8'):
            geo.to_network(image, geometry)


def test_a_canvas_of_a_hundred_million_pixels_is_the_largest():
    assert geo.geometry_for((10_000, 10_000), (14, 14)).scale_x == 14 / 10_000
    one_more = (17, 5_882_353)
    for camera, policy in ((one_more, 'stretch'), ((1, 10_001), 'fit')):
        with pytest.raises(ImageError, match='too large'):
            geo.geometry_for(camera, (14, 14), policy)
