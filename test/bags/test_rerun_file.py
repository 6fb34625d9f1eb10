# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A replay for Rerun: read back by Rerun's own reader; without rerun-sdk a clear refusal."""

import sys

import numpy as np
import pytest
from ranged_scenes import SCENE, THING, view
from ranged_scenes import detection as ranged

from ood_perception.bags.rerun_file import TIMELINE, RerunFile, load_rerun
from ood_perception.errors import DependencyError
from ood_perception.image.geometry import geometry_for
from ood_perception.postprocess.mask import make_mask, obstacles_of
from ood_perception.postprocess.output_maps import OutputMaps
from ood_perception.postprocess.tracking import Tracked
from ood_perception.ranging.ranges import ranged_detections
from ood_perception.types import Detection, Frame

START = 1_700_000_000_000_000_000


def test_without_rerun_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, 'rerun', None)
    with pytest.raises(DependencyError, match=r'extra rerun.*rerun-sdk>='):
        load_rerun()


def detection_of(camera, surprisal):
    """Return a frame of 120 x 160 pixels with a box of 30 x 20 at x 40, y 60 of this surprisal."""
    grid = np.full((24, 32), 0.5, np.float32)
    grid[12:16, 8:14] = surprisal
    scored = np.ones(grid.shape, bool)
    scored[:4] = False
    geometry = geometry_for((120, 160), (120, 160))
    mask, components = make_mask(grid, scored, 0.01)
    frame = Frame(np.full((120, 160, 3), 90, np.uint8), camera)
    labels = np.zeros(grid.shape, np.uint8)
    obstacles = obstacles_of(components, geometry)
    return Detection(frame, grid, labels, scored, mask, obstacles, geometry, 0.01)


class NoRanges:
    """As BagRanges without a CameraInfo."""

    possible = False

    def of(self, *_):
        return None


class SomeRanges:
    """As BagRanges, the second frame without."""

    possible = True

    def __init__(self):
        self.left = [
            ranged_detections(found, SCENE, view(0.2)) for found in (ranged(thing), ranged())
        ]
        self.left.insert(1, None)

    def of(self, *_):
        return self.left.pop(0)


def thing(labels):
    labels[24:32, 30:36] = THING


def test_ranges_are_points_in_the_base_frame_and_go_where_nothing_is_known(tmp_path):
    pytest.importorskip('rerun', reason='needs rerun-sdk')
    path, ranges = tmp_path / 'frames.rrd', SomeRanges()
    expected = ranges.left[0]
    with RerunFile(path, [''], ranges) as file:
        for number in range(3):
            detection = ranged(thing)
            time = START + number * 10**9
            file.add(Tracked(detection, ()), OutputMaps(detection), SCENE, time)
    rows = read(path)
    first, second, third = (values for _, values in rows['/camera/ground/obstacles'])
    np.testing.assert_allclose(first['Points3D:positions'], expected.obstacles.points, rtol=1e-6)
    assert first['Points3D:labels'][0].startswith(f'{expected.obstacles.distance[0]:.1f} m')
    assert not second['Points3D:positions'], 'or the viewer would show the first ones still'
    assert not third['Points3D:positions']
    contact_points = [
        values['Points3D:positions'] for _, values in rows['/camera/ground/contacts']
    ]
    assert [len(points) > 0 for points in contact_points] == [True, False, False]
    nearest = [values['Scalars:scalars'] for _, values in rows['/camera/nearest/metres']]
    assert nearest[0] == pytest.approx(expected.obstacles.distance)
    assert np.isnan(nearest[1]).all()


def test_everything_is_on_one_time_line(tmp_path):
    pytest.importorskip('rerun', reason='needs rerun-sdk')
    path = tmp_path / 'frames.rrd'
    with RerunFile(path, ['front', ''], NoRanges()) as file:
        for number, (camera, surprisal) in enumerate((('front', 3.0), ('', 1.0), ('front', 4.0))):
            detection = detection_of(camera, surprisal)
            tracks = (7,) if detection.obstacles else ()
            time = START + number * 10**9
            file.add(Tracked(detection, tracks), OutputMaps(detection), SCENE, time)
    rows = read(path)
    for root, times in (('/front', [0, 2]), ('/camera', [1])):
        for name in ('image', 'image/obstacles', 'overlay', 'score', 'mask', 'flagged/share'):
            seen = sorted(time for time, _ in rows[f'{root}/{name}'])
            assert seen == [START + second * 10**9 for second in times], f'{root}/{name}'
    share = rows['/front/flagged/share'][0][1]['Scalars:scalars']
    assert share == [pytest.approx(24 / (20 * 32))]
    assert rows['/front/surprisal/threshold'][0][1]['Scalars:scalars'] == [2.0]
    boxes = rows['/front/image/obstacles'][0][1]
    assert boxes['Boxes2D:labels'] == ['#7 3.00']
    assert boxes['Boxes2D:centers'] == [[40 + 15, 60 + 10]]
    assert boxes['Boxes2D:half_sizes'] == [[15, 10]]
    assert not rows['/camera/image/obstacles'][0][1]['Boxes2D:labels']
    mask = np.frombuffer(bytes(rows['/front/mask'][0][1]['SegmentationImage:buffer'][0]), np.uint8)
    np.testing.assert_array_equal(
        np.unique(mask, return_counts=True)[1][0], 120 * 160 * 5 / 6 - 600
    )


def read(path):
    """Return {entity: [(nanoseconds, {component: values})]} of a file's recording."""
    reader = pytest.importorskip('rerun.chunk', reason='this rerun-sdk reads no files').RrdReader
    rows = {}
    for chunk in reader(path).stream():
        if chunk.is_static or not str(chunk.entity_path).startswith(('/front', '/camera')):
            continue
        batch = chunk.to_record_batch()
        for number in range(batch.num_rows):
            values = {
                name: batch.column(name)[number].as_py()
                for name in batch.schema.names
                if ':' in name
            }
            time = batch.column(TIMELINE)[number].value
            rows.setdefault(str(chunk.entity_path), []).append((time, values))
    return {entity: sorted(found, key=lambda row: row[0]) for entity, found in rows.items()}
