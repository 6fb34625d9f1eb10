# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The node on a boat: images, CameraInfo and Imu in, places out, against geometry by hand."""

import math
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from paths import ROOT

rclpy = pytest.importorskip('rclpy')
yaml = pytest.importorskip('yaml')

from bundles import ODD, color_of, write_tiny_bundle  # noqa: E402
from limits import HANGS  # noqa: E402
from ros_rig import FRAME_ID, Rig, isolate, stamped  # noqa: E402
from sensor_msgs.msg import CameraInfo, Image, Imu, LaserScan, PointCloud2  # noqa: E402

from ood_perception.ros.diagnostics import ERROR, OK, WARN  # noqa: E402

pytestmark = pytest.mark.ros
HEIGHT, WIDTH = 252, 336
FOCAL = 300.0
POSE = ['0.5,0.1,1.5 0,0.1,0']
EDGE = 98  # the first row of water
KINDS = {7: '<f4', 8: '<f8', 5: '<i4', 2: 'u1'}


@pytest.fixture(scope='module')
def bundle(tmp_path_factory):
    path = tmp_path_factory.mktemp('bundles') / 'sea'
    classes = ('obstacle', 'water', 'sky')
    write_tiny_bundle(
        path, height=HEIGHT, width=WIDTH, upsampling=7, classes=classes, in_distribution=classes,
        ground_classes=('water',),
    )  # fmt: skip
    return str(path)


def boat_parameters():
    """The shipped parameter file, as the launch file hands it over."""
    tree = yaml.safe_load((ROOT / 'config' / 'maritime_obstacle.yaml').read_text())
    values = {}

    def flatten(branch, prefix=''):
        for key, value in branch.items():
            if isinstance(value, dict):
                flatten(value, f'{prefix}{key}__')
            else:
                values[prefix + key] = value

    flatten(tree['/**']['ros__parameters'])
    return values


@pytest.fixture
def rig(bundle):
    """Return a maker of nodes with the boat's parameter file and a real engine."""
    isolate(os.environ)
    rigs = []

    def make(**values):
        # the strict rate: between two colours of this bundle lies a third, a little anomalous
        given = {'bundle': bundle, 'engine': 'onnxruntime', 'threads': 1, 'camera__poses': POSE}
        given['false_alarm_rate'] = 5e-5
        given['lazy_subscription'] = False  # the camera comes before the listeners
        made = Boat(**{**boat_parameters(), **given, **values})
        rigs.append(made)
        return made.start()

    yield make
    for made in rigs:
        made.__exit__()


class Boat(Rig):
    """A rig with a camera, its CameraInfo and an IMU."""

    def start(self):
        super().start()
        self.images = self.camera()
        self.infos = self.peer.create_publisher(CameraInfo, 'camera_info', 1)
        self.wait(self.infos.get_subscription_count, 'camera_info')
        self.imu = self.peer.create_publisher(Imu, 'imu', 10)
        if self.node.get_parameter('attitude.source').value == 'imu':
            self.wait(self.imu.get_subscription_count, 'imu')
        return self

    def calibrate(self, info=None):
        self.infos.publish(camera_info() if info is None else info)
        reader = self.node.session._inputs['']
        expected = (camera_info() if info is None else info).k[0]
        self.wait(
            lambda: reader.camera_info is not None and reader.camera_info.k[0] == expected,
            'the CameraInfo',
        )

    def frame(self, pixels=None, boat=None):
        """Publish an Imu and an image of one stamp; return once the image is processed."""
        done = self.counters().processed
        if boat is not None:
            message = stamped(Imu(), (100, self._count + 1))
            fields = ('x', 'y', 'z', 'w')
            for name, value in zip(fields, quaternion(*boat), strict=True):
                setattr(message.orientation, name, value)
            history = self.node.session.ranging._history._samples
            before = len(history)
            self.imu.publish(message)
            self.wait(lambda: len(history) > before, 'the Imu message')
        self.send(self.images, sea() if pixels is None else pixels)
        self.wait_counter('processed', done + 1)


def quaternion(roll, pitch, yaw):
    """Textbook product of three half-angle rotations, z y x."""
    (sr, cr), (sp, cp), (sy, cy) = ((math.sin(a / 2), math.cos(a / 2)) for a in (roll, pitch, yaw))
    return (
        sr * cp * cy - cr * sp * sy,
        cr * sp * cy + sr * cp * sy,
        cr * cp * sy - sr * sp * cy,
        cr * cp * cy + sr * sp * sy,
    )


def camera_info(focal=FOCAL, model='plumb_bob'):
    info = CameraInfo(width=WIDTH, height=HEIGHT, distortion_model=model, d=[0.0] * 5)
    info.k = [
        focal,
        0.0,
        (WIDTH - 1) / 2,
        0.0,
        focal,
        (HEIGHT - 1) / 2,
        0.0,
        0.0,
        float(focal > 0),
    ]
    return info


def sea(buoy=(140, 126, 42, 42)):
    """Sky, water from row EDGE on, and a known obstacle of x, y, width, height."""
    image = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    image[:EDGE] = color_of('sky')
    image[EDGE:] = color_of('water')
    if buoy is not None:
        x, y, width, height = buoy
        image[y : y + height, x : x + width] = color_of('obstacle')
    return image


def rows_of(cloud):
    """Read a PointCloud2 by its own description."""
    dtype = np.dtype(
        {
            'names': [field.name for field in cloud.fields],
            'formats': [KINDS[field.datatype] for field in cloud.fields],
            'offsets': [field.offset for field in cloud.fields],
            'itemsize': cloud.point_step,
        }
    )
    assert cloud.row_step == cloud.width * cloud.point_step == len(cloud.data)
    return np.frombuffer(bytes(cloud.data), dtype)


def contact_in(mask):
    """The middle of the lowest row of the mask image, in edge coordinates."""
    pixels = np.frombuffer(mask.data, np.uint8).reshape(mask.height, mask.width) == 1
    row = np.flatnonzero(pixels.any(axis=1)).max()
    return np.flatnonzero(pixels[row]).mean() + 0.5, row + 1.0


def by_hand(x, y, roll=0.0, pitch=0.0):
    """Bearing, elevation, distance and point (base frame) of a pixel, camera at POSE."""
    right, down = (x - WIDTH / 2) / FOCAL, (y - HEIGHT / 2) / FOCAL
    body = np.array([1.0, -right, -down])
    tilt = 0.1
    base = np.array(
        [
            math.cos(tilt) * body[0] + math.sin(tilt) * body[2],
            body[1],
            -math.sin(tilt) * body[0] + math.cos(tilt) * body[2],
        ]
    )
    position = np.array([0.5, 0.1, 1.5])
    about_x = np.array(
        [[1, 0, 0], [0, math.cos(roll), -math.sin(roll)], [0, math.sin(roll), math.cos(roll)]]
    )
    about_y = np.array(
        [[math.cos(pitch), 0, math.sin(pitch)], [0, 1, 0], [-math.sin(pitch), 0, math.cos(pitch)]]
    )
    world = about_y @ about_x  # heading zero: bearings are from the bow
    ray, camera = world @ base, world @ position
    reach = camera[2] / -ray[2]
    distance = reach * math.hypot(ray[0], ray[1])
    elevation = math.atan2(ray[2], math.hypot(ray[0], ray[1]))
    return math.atan2(ray[1], ray[0]), elevation, distance, position + reach * base


@pytest.mark.parametrize('boat', [(0.0, 0.0, 0.0), (0.08, -0.04, 2.5)])
def test_a_buoy_has_the_place_that_geometry_gives(rig, boat):
    rig = rig(camera__base_frame='base_link', plane__largest_ratio=10.0)
    points, mask = rig.listen('obstacle_points', PointCloud2), rig.listen('mask', Image)
    contact_points, scan = rig.listen('contact_points', PointCloud2), rig.listen('scan', LaserScan)
    rig.calibrate()
    for _ in range(3):  # announced after 3 of 5
        rig.frame(boat=boat)
    rig.wait(lambda: len(points) == len(scan) == len(contact_points) == len(mask) == 3, 'outputs')
    assert len(rows_of(points[0])) == 0
    (row,) = rows_of(points[-1])
    bearing, elevation, distance, point = by_hand(*contact_in(mask[-1]), *boat[:2])
    assert row['bearing'] == pytest.approx(bearing, abs=1e-6)
    assert row['elevation'] == pytest.approx(elevation, abs=1e-6)
    assert row['distance'] == pytest.approx(distance, rel=1e-6)
    np.testing.assert_allclose([row['x'], row['y'], row['z']], point, atol=1e-5)
    assert (row['status'], row['at_edge'], row['track']) == (0, 0, 1)
    assert 0 < row['distance_sigma'] < distance
    assert row['bearing_left'] > row['bearing'] > row['bearing_right']
    assert points[-1].header.frame_id == scan[-1].header.frame_id == 'base_link'
    assert (points[-1].header.stamp.sec, points[-1].header.stamp.nanosec) == (100, 3)
    near = rows_of(contact_points[-1])
    assert (near['kind'] == 0).sum() > 5
    assert np.isfinite(near['x']).all()
    level = np.nanmin(scan[-1].ranges)
    assert level == pytest.approx(distance, abs=1.0)
    assert np.isinf(scan[-1].ranges).sum() > 20
    _, _, values = rig.status('places', lambda s: s[0] == OK)
    assert values['attitude_source'] == 'imu'


def test_points_are_in_the_images_frame_when_no_other_is_named(rig):
    rig = rig(persistence__window=1, persistence__required=1, plane__largest_ratio=10.0)
    points, mask = rig.listen('obstacle_points', PointCloud2), rig.listen('mask', Image)
    rig.calibrate()
    rig.frame(boat=(0.0, 0.0, 0.0))
    rig.wait(lambda: points and mask, 'outputs')
    (row,) = rows_of(points[0])
    x, y = contact_in(mask[0])
    assert points[0].header.frame_id == FRAME_ID
    assert row['track'] == -1
    assert row['x'] / row['z'] == pytest.approx((x - WIDTH / 2) / FOCAL, abs=1e-6)
    assert row['y'] / row['z'] == pytest.approx((y - HEIGHT / 2) / FOCAL, abs=1e-6)
    assert '/road_anomaly/scan' not in dict(rig.peer.get_topic_names_and_types())


def test_edge_points_lie_on_the_waters_edge(rig):
    rig = rig()
    edge = rig.listen('edge_points', PointCloud2)
    rig.calibrate()
    rig.frame(boat=(0.0, 0.0, 0.0))
    rig.wait(lambda: edge, 'the edge')
    rows = rows_of(edge[0])
    assert len(rows) == WIDTH // 2
    np.testing.assert_allclose(rows['u'], 2 * np.arange(len(rows)) + 0.5)
    assert np.abs(rows['v'] + 0.5 - EDGE).max() <= 14, 'within a patch'
    assert set(rows['kind']) == {1}, 'open: sky above'
    expected = [by_hand(u + 0.5, v + 0.5)[0] for u, v in zip(rows['u'], rows['v'], strict=True)]
    np.testing.assert_allclose(rows['bearing'], expected, atol=1e-6)


def test_without_an_imu_there_are_bearings_alone_and_the_reason(rig):
    rig = rig(persistence__window=1, persistence__required=1)
    points, contact_points = (
        rig.listen('obstacle_points', PointCloud2),
        rig.listen('contact_points', PointCloud2),
    )
    mask = rig.listen('mask', Image)
    rig.calibrate()
    rig.frame()
    rig.wait(lambda: points and mask and contact_points, 'outputs')
    (row,) = rows_of(points[0])
    assert row['status'] == 2
    assert np.isnan([row['distance'], row['x']]).all()
    assert row['bearing'] == pytest.approx(by_hand(*contact_in(mask[0]))[0], abs=1e-6)
    assert len(rows_of(contact_points[0])) == 0
    status = rig.status('places', lambda s: s[0] == WARN)
    assert 'no Imu message has arrived on /imu' in status[1]
    rig.frame(boat=(0.0, 0.0, 0.0))
    rig.status('places', lambda s: s[0] == OK)
    rig._count = 900_000_000  # an image almost a second after the last Imu message
    rig.frame()
    status = rig.status('places', lambda s: s[0] == WARN)
    assert 'from the image' in status[1]


@pytest.mark.parametrize(
    ('info', 'words'),
    [
        (camera_info(0.0), 'not calibrated'),
        (camera_info(FOCAL + 1, 'kalibr'), "'kalibr'"),
        (CameraInfo(width=99, height=99, k=[5.0, 0, 1, 0, 5.0, 1, 0, 0, 1]), '99x99'),
    ],
)
def test_an_unusable_camera_info_is_one_error_and_the_node_goes_on(rig, info, words):
    rig = rig(persistence__window=1, persistence__required=1)
    points, mask = rig.listen('obstacle_points', PointCloud2), rig.listen('mask', Image)
    rig.calibrate(info)
    for _ in range(2):
        rig.frame(boat=(0.0, 0.0, 0.0))
    rig.wait(lambda: len(mask) == 2, 'masks')
    status = rig.status('places', lambda s: s[0] == ERROR)
    assert 'no bearings' in status[1]
    assert words in status[1]
    assert not points
    assert rig.counters().failed == 0
    rig.calibrate()
    rig.frame(boat=(0.0, 0.0, 0.0))
    rig.wait(lambda: points, 'points')
    rig.status('places', lambda s: s[0] == OK)


def test_without_camera_info_the_node_says_so(rig):
    rig = rig()
    rig.listen('obstacle_points', PointCloud2)
    mask = rig.listen('mask', Image)
    rig.frame(boat=(0.0, 0.0, 0.0))
    rig.wait(lambda: mask, 'a mask')
    assert (
        'no CameraInfo has arrived on /camera_info'
        in rig.status('places', lambda s: s[0] == ERROR)[1]
    )


def test_nobody_who_wants_no_places_hears_of_them(rig):
    rig = rig()
    mask = rig.listen('mask', Image)
    rig.frame()
    rig.wait(lambda: mask, 'a mask')
    rig.status('engine', lambda s: True)
    assert 'places' not in rig._statuses


def test_the_horizon_by_the_imu_ends_the_region(rig):
    """Source imu, no tilt: the horizon lies f tan(0.1) above the middle, the margin higher."""
    rig = rig(roi__mode='below_horizon', attitude__sigma=0.005)
    mask = rig.listen('mask', Image)
    rig.calibrate()
    rig.frame(boat=(0.0, 0.0, 0.0))
    rig.wait(lambda: mask, 'a mask')
    pixels = np.frombuffer(mask[0].data, np.uint8).reshape(HEIGHT, WIDTH)
    first = (pixels != 255).argmax(axis=0)
    expected = HEIGHT / 2 - FOCAL * math.tan(0.1 + 3 * 0.005)
    assert np.abs(first - expected).max() <= 2.0


def test_what_is_surely_too_small_is_no_obstacle(rig):
    rig = rig(
        persistence__window=1, persistence__required=1, minimum_size=0.0, minimum_area=0.0,
        attitude__sigma=0.0, plane__height_sigma=0.0, plane__largest_ratio=10.0,
    )  # fmt: skip
    points, mask = rig.listen('obstacle_points', PointCloud2), rig.listen('mask', Image)
    rig.calibrate()
    glint = sea()
    glint[210:224, 28:42] = ODD
    rig.frame(glint, boat=(0.0, 0.0, 0.0))
    rig.wait(lambda: points and mask, 'outputs')
    rows = rows_of(points[0])
    assert len(rows) == 2
    widths = 2 * np.tan((rows['bearing_left'] - rows['bearing_right']) / 2) * rows['distance']
    limit = float(np.sqrt(widths.min() * widths.max()))
    assert widths.max() > 1.5 * limit
    assert rig.set(minimum_size=limit).successful
    rig.wait(lambda: rig.node.session.ranging._values['minimum_size'] == limit, 'the parameter')
    rig.frame(glint, boat=(0.0, 0.0, 0.0))
    rig.wait(lambda: len(points) == len(mask) == 2, 'outputs')
    (left,) = rows_of(points[1])
    assert left['bearing'] == rows['bearing'][widths.argmax()]
    pixels = np.frombuffer(mask[1].data, np.uint8).reshape(HEIGHT, WIDTH)
    assert not (pixels[205:230, 20:50] == 1).any()


@pytest.mark.parametrize(
    ('values', 'words'),
    [
        ({'attitude__source': 'gps'}, 'level, imu, line, edge'),
        ({'attitude__source': 'line'}, 'attitude.lines is empty'),
        ({'camera__poses': ['1,2']}, 'x,y,z in metres'),
        ({'camera__poses': ['rear: 1,2,3']}, "cameras ['rear']"),
        ({'attitude__lines': ['0.4']}, 'left and right end'),
        ({'attitude__imu_rpy': 'up'}, 'radians'),
        ({'obstacle_classes': ['whale']}, 'whale'),
    ],
)
def test_unusable_values_are_refused(rig, values, words):
    result = rig(attitude__source='none').set(**values)
    assert not result.successful
    assert words in result.reason


def test_other_sources_of_attitude(rig):
    """Level, a given line and the sea's edge agree where all are right: the edge is row 98."""
    rig = rig(
        persistence__window=1, persistence__required=1, attitude__source='level',
        plane__largest_ratio=10.0,
    )  # fmt: skip
    points = rig.listen('obstacle_points', PointCloud2)
    edge = rig.listen('edge_points', PointCloud2)
    rig.calibrate()
    row = HEIGHT / 2 - FOCAL * math.tan(0.1)  # where a level boat sees the horizon, without dip
    photo = sea()
    photo[: int(row)] = color_of('sky')
    distances = {}
    for number, source in enumerate(('level', 'line', 'edge'), 1):
        share = row / HEIGHT
        line = [f'{share},{share}']
        assert rig.set(attitude__source=source, attitude__lines=line).successful
        places = rig.node.session.ranging
        rig.wait(lambda s=source, p=places: p._values['attitude.source'] == s, source)
        rig.frame(photo)
        rig.wait(lambda n=number: len(points) == len(edge) == n, 'points')
        (found,) = rows_of(points[-1])
        assert found['status'] == 0, source
        distances[source] = found['distance']
    assert distances['line'] == pytest.approx(distances['level'], rel=0.02), 'but for the dip'
    assert distances['edge'] == pytest.approx(distances['level'], rel=0.2), 'but for the cells'


def test_each_camera_has_its_own_pose(bundle):
    isolate(os.environ)
    values = {**boat_parameters(), 'bundle': bundle, 'engine': 'onnxruntime', 'threads': 1}
    values |= {
        'cameras': ['bow', 'stern'],
        'camera__poses': ['bow: 0.5,0.1,1.5 0,0.1,0', f'stern: 0,0,3 0,0.1,{math.pi}'],
        'attitude__source': 'level', 'plane__largest_ratio': 10.0, 'false_alarm_rate': 5e-5,
        'persistence__window': 1, 'persistence__required': 1,
    }  # fmt: skip
    with Rig(**values) as rig:
        rig.start()
        found = {}
        for name in ('bow', 'stern'):
            points = rig.listen(f'{name}/obstacle_points', PointCloud2)
            images = rig.camera(f'{name}/image')
            infos = rig.peer.create_publisher(CameraInfo, f'{name}/camera_info', 1)
            rig.wait(infos.get_subscription_count, 'camera_info')
            infos.publish(camera_info())
            reader = rig.node.session._inputs[name]
            rig.wait(lambda r=reader: r.camera_info is not None, 'the CameraInfo')
            rig.send(images, sea())
            rig.wait(lambda p=points: p, 'points')
            (found[name],) = rows_of(points[0])
            values = rig.status(f'places {name}', lambda s: s[0] == OK)[2]
            assert float(values['camera_height_m']) == {'bow': 1.5, 'stern': 3.0}[name]
    turned = found['stern']['bearing'] - found['bow']['bearing']
    assert abs(turned) == pytest.approx(math.pi, abs=1e-6)
    assert found['stern']['distance'] == pytest.approx(2 * found['bow']['distance'], rel=1e-5)


def test_cleanup_and_configure_listens_to_the_imu_again(rig):
    rig = rig(persistence__window=1, persistence__required=1)
    node = rig.node
    assert node.trigger_deactivate() == node.trigger_cleanup()
    rig.wait(lambda: not rig.imu.get_subscription_count(), 'no subscription to imu')
    assert node.autostart(), node.start_error
    rig.wait(rig.imu.get_subscription_count, 'imu')
    assert rig.set(attitude__source='level').successful
    rig.wait(lambda: not rig.imu.get_subscription_count(), 'no subscription to imu')


def test_the_shipped_parameter_file_starts_a_process(bundle):
    """As the launch file hands it over: the file, then what was said on the command line."""
    isolate(os.environ)
    file = str(ROOT / 'config' / 'maritime_obstacle.yaml')
    given = [f'bundle:={bundle}', 'engine:=onnxruntime', f'camera.poses:={POSE}']
    command = [sys.executable, '-m', 'ood_perception.ros.node', '--ros-args']
    command += ['-r', '__node:=maritime_obstacle', '--params-file', file]
    command += [word for value in given for word in ('-p', value)]
    node = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said = []
    for line in node.stdout:
        said.append(line)
        if 'active: bundle' in line or 'cannot' in line:
            node.send_signal(signal.SIGINT)
            break
    said.append(node.communicate(timeout=HANGS)[0])
    assert node.returncode == 0, said
    assert 'active: bundle' in ''.join(said)
