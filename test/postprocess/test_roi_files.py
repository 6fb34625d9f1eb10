# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The drawn region of interest against closed forms, and the images that it refuses."""

import cv2
import numpy as np
import pytest
from bundles import write_tiny_bundle

from ood_perception.bundle.store import load_bundle
from ood_perception.engines import create_engine
from ood_perception.engines.base import EngineOptions
from ood_perception.errors import ConfigError, ImageError
from ood_perception.image.geometry import geometry_for
from ood_perception.pipeline import Pipeline, Settings
from ood_perception.postprocess.roi import RoiSettings, fixed_region
from ood_perception.postprocess.roi_files import (
    RegionMask,
    load_mask,
    load_masks,
    mask_cells,
    mask_files,
    parse_polygons,
    polygon_problem,
)
from ood_perception.types import Frame

GRID = (12, 20)


def write(path, pixels):
    assert cv2.imwrite(str(path), pixels)
    return path


def left_half(height, width):
    pixels = np.zeros((height, width), np.uint8)
    pixels[:, : width // 2] = 7
    return pixels


@pytest.mark.parametrize('size', [(120, 200), (60, 100), (12, 20), (1200, 2000)])
def test_a_mask_of_any_size_covers_the_same_cells(tmp_path, size):
    mask = load_mask(write(tmp_path / 'belt.png', left_half(*size)))
    geometry = geometry_for((120, 200), (120, 200))
    expected = np.zeros(GRID, bool)
    expected[:, :10] = True
    np.testing.assert_array_equal(mask_cells(mask, geometry, GRID), expected)


@pytest.mark.parametrize('policy', ['fit', 'fill', 'stretch'])
@pytest.mark.parametrize('camera', [(480, 640), (100, 300), (333, 211)])
def test_each_cell_takes_the_mask_pixel_under_its_centre(policy, camera):
    """The oracle walks over cells with the geometry's documented formula."""
    rng = np.random.default_rng(0)
    mask = RegionMask('m', rng.random((camera[0] // 2, camera[1] // 2)) < 0.5)
    geometry = geometry_for(camera, (84, 140), policy)
    settings = RoiSettings('mask', masks={'': mask})
    region = fixed_region(settings, 'any', geometry, GRID)
    for row in range(GRID[0]):
        for column in range(GRID[1]):
            x = ((column + 0.5) * 140 / GRID[1] - geometry.offset_x) / geometry.scale_x
            y = ((row + 0.5) * 84 / GRID[0] - geometry.offset_y) / geometry.scale_y
            inside = 0 <= x < camera[1] and 0 <= y < camera[0]
            if not inside:
                assert not region[row, column]
                continue
            place = (
                int(y / camera[0] * mask.scored.shape[0]),
                int(x / camera[1] * mask.scored.shape[1]),
            )
            assert region[row, column] == mask.scored[place]


def test_a_mask_of_a_pixel_a_cell_is_the_region():
    pixels = np.random.default_rng(1).random(GRID) < 0.5
    pixels[[0, -1], [0, -1]] = ~pixels[[1, -2], [0, -1]]  # unlike the rows beside them
    cells = mask_cells(RegionMask('m', pixels), geometry_for((120, 200), (120, 200)), GRID)
    np.testing.assert_array_equal(cells, pixels)


def test_each_camera_has_its_own_mask_and_ignored_polygons_still_count(tmp_path):
    geometry = geometry_for((120, 200), (120, 200))
    files = [
        f'top: {write(tmp_path / "a.png", left_half(120, 200))}',
        str(write(tmp_path / 'b.png', np.full((12, 20), 255, np.uint8))),
    ]
    upper = ((0.0, 0.0), (1.0, 0.0), (1.0, 0.5), (0.0, 0.5))
    settings = RoiSettings(
        'mask', masks=load_masks('roi.masks', files), ignore_polygons={'': (upper,)}
    )
    top, side = (fixed_region(settings, name, geometry, GRID) for name in ('top', 'side'))
    assert side[6:].all()
    assert top[6:, :10].all()
    assert not top[:, 10:].any()
    assert not top[:6].any()
    assert not side[:6].any()


def test_files_that_are_no_mask_are_refused_with_the_reason(tmp_path):
    text = tmp_path / 'belt.txt'
    text.write_text('belt')
    cases = [
        (tmp_path / 'none.png', 'cannot be read'),
        (text, 'decoded'),
        (write(tmp_path / 'rgb.png', np.ones((4, 4, 3), np.uint8)), 'one grey channel'),
        (write(tmp_path / 'deep.png', np.full((4, 4), 300, np.uint16)), 'uint16'),
        (write(tmp_path / 'zero.png', np.zeros((4, 4), np.uint8)), 'nothing would be scored'),
    ]
    for path, words in cases:
        with pytest.raises(ConfigError, match=words) as caught:
            load_mask(path)
        assert path.name in str(caught.value)
    with pytest.raises(ConfigError, match='one file for a camera'):
        load_masks('roi.masks', [str(text), str(text)])
    with pytest.raises(ConfigError, match='no mask is given'):
        RoiSettings('mask')


def test_a_mask_file_of_64_mib_is_read_and_no_larger_one(tmp_path):
    path = tmp_path / 'large.png'
    for size, words in ((64 << 20, 'decoded'), ((64 << 20) + 1, 'at most 64 MiB')):
        with path.open('wb') as file:
            file.truncate(size)
        with pytest.raises(ConfigError, match=words):
            load_mask(path)
    with pytest.raises(ConfigError, match='no regular file'):
        load_mask(tmp_path)


def test_a_mask_in_memory_stays_as_its_file_is(tmp_path):
    path = write(tmp_path / 'belt.png', np.array([[0, 1], [255, 0]], np.uint8))
    mask = load_mask(path)
    assert mask.scored.tolist() == [[False, True], [True, False]]
    with pytest.raises(ValueError, match='read-only'):
        mask.scored[0, 0] = True


@pytest.mark.parametrize(('rows', 'fits'), [(118, False), (119, True), (121, True), (122, False)])
def test_a_mask_may_be_a_pixel_off_its_cameras_aspect(rows, fits):
    mask = RegionMask('belt.png', np.ones((rows, 400), bool))
    geometry = geometry_for((60, 200), (60, 200))
    if fits:
        assert mask_cells(mask, geometry, GRID).all()
    else:
        with pytest.raises(ImageError, match='its aspect may not'):
            mask_cells(mask, geometry, GRID)


def test_mask_files_are_read_camera_by_camera():
    entries = ['top: /data/a: b.png', ' ', ' c:d.png ', ' side : e.png']
    found = mask_files('roi.masks', entries)
    assert found == {'top': '/data/a: b.png', '': 'c:d.png', 'side': 'e.png'}
    for wrong in (['top: '], ['side: a.png', ' side : b.png']):
        with pytest.raises(ConfigError, match=f'roi.masks has {wrong[-1]!r}: write one file'):
            mask_files('roi.masks', wrong)


def test_polygons_are_read_camera_by_camera():
    left, right = '0,0 0.5,0 0.5,1', '0.5,0 1,0 1,1'
    entries = [f'/top/cam: {left}', ' ', right, f' /top/cam :{right}']
    found = parse_polygons('roi.polygons', entries)
    one, other = ((0, 0), (0.5, 0), (0.5, 1)), ((0.5, 0), (1, 0), (1, 1))
    assert found == {'/top/cam': (one, other), '': (other,)}
    assert polygon_problem(one) == ''
    for entry in ('0,0 1,0', '0,0 1,0 1', '0,0 1,0 1,-0.1', '0,0 1,0 1,1.1', '0,0 1,0 1,x'):
        with pytest.raises(ConfigError, match=f'roi.polygons has {entry!r}'):
            parse_polygons('roi.polygons', [entry])


@pytest.mark.parametrize(
    ('size', 'fits'), [((96, 128), True), ((72, 96), True), ((96, 96), False)]
)
def test_an_image_of_another_aspect_is_refused_and_the_next_one_served(tmp_path, size, fits):
    write_tiny_bundle(tmp_path / 'bundle')
    bundle = load_bundle(tmp_path / 'bundle')
    mask = RegionMask('belt.png', np.ones((192, 256), bool))
    settings = Settings(roi=RoiSettings('mask', masks={'': mask}))
    with create_engine(bundle, EngineOptions(threads=1)) as engine:
        pipeline = Pipeline(bundle, engine, settings)
        shape = (*size, 3)
        first, second = pipeline.run_each(
            [Frame(np.zeros(shape, np.uint8)), Frame(np.zeros((96, 128, 3), np.uint8))]
        )
    assert isinstance(first, ImageError) != fits
    if not fits:
        assert 'belt.png has 256 x 192' in str(first)
    assert second.scored.any()
