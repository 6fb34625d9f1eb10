# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The live form: the real node over real DDS gives the offline masks for every frame it took."""

import json
import os
import subprocess
import sys
import time

import pytest

pytest.importorskip('rosbags')
pytest.importorskip('rclpy')

from bag_files import COMPRESSED, DELAY, FRONT, LEFT, START, two_cameras, write_bag
from bundles import write_tiny_bundle
from limits import HANGS
from paths import need_data
from ros_rig import isolate

from ood_perception.cli.evaluate_bag import FINE, evaluate_bag
from ood_perception.errors import ConfigError
from ood_perception.ros import dds
from ood_perception.ros.tools.live_comparison import _parser, main, player_command

pytestmark = pytest.mark.ros
NODE = [sys.executable, '-m', 'ood_perception.ros.node', '--ros-args']


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    isolate(os.environ)
    for variable, value in dds.environment(dds.LARGE_IMAGES).items():
        monkeypatch.setenv(variable, value)


@pytest.fixture(scope='module')
def bundle(tmp_path_factory):
    return write_tiny_bundle(tmp_path_factory.mktemp('bundles') / 'tiny', height=98, width=126)


@pytest.fixture
def node(bundle):
    """Start the node; it ends with the test."""
    started = []

    def start(*remaps, **values):
        values = {
            'bundle': bundle, 'threads': 1, 'use_sim_time': True, 'roi.mode': 'none', **values
        }  # fmt: skip
        words = [w for key, value in values.items() for w in ('-p', f'{key}:={value}')]
        words += [w for rule in remaps for w in ('-r', rule)]
        started.append(subprocess.Popen([*NODE, *words], stderr=subprocess.DEVNULL))

    yield start
    for process in started:
        process.terminate()
    for process in started:
        process.wait(HANGS)


def offline(bag, bundle, out, *options):
    arguments = [str(bag), '--bundle', str(bundle), '--threads', '1', '--roi-mode', 'none']
    assert evaluate_bag([*arguments, '--out', str(out), *options]) == FINE
    return out


def compare(bag, offline_folder, tmp_path, *options):
    """Return (exit status, live.json)."""
    folders = ['--offline', str(offline_folder), '--out', str(tmp_path / 'live')]
    status = main([str(bag), *folders, '--wait', '60', *options])
    return status, json.loads((tmp_path / 'live' / 'live.json').read_text())


@pytest.mark.slow
def test_live_masks_equal_offline_masks_for_two_cameras(node, bundle, tmp_path):
    """Twelve frames, one camera raw, one compressed: none differs, and what is lost is counted."""
    bag = write_bag(tmp_path / 'bag', two_cameras(6), 'mcap', 'message')
    node(
        'front/image:=/front/image_raw', 'left/image:=/left/image_raw', cameras="['front','left']"
    )
    folder = offline(bag, bundle, tmp_path / 'offline')
    status, record = compare(bag, folder, tmp_path, '--rate', '0.2')
    assert status == 0
    assert record['equal']
    for camera in record['cameras']:
        assert camera['offline'] == 6
        assert camera['live'] >= 3, 'a node with time to spare takes most frames'
        assert camera['equal'] == camera['live'] == 6 - camera['dropped']
        assert camera['different'] == camera['foreign'] == 0
        counted = record['node'][f'camera {camera["camera"]}']
        assert int(counted['processed']) == camera['live']
    assert 'all equal' in (tmp_path / 'live' / 'live.html').read_text()


@pytest.mark.slow
def test_frames_that_come_too_fast_are_dropped_and_the_others_still_equal(node, bundle, tmp_path):
    messages = [m for m in two_cameras(40) if m[0] == FRONT]
    bag = write_bag(tmp_path / 'bag', messages)
    node('image:=/front/image_raw')
    folder = offline(bag, bundle, tmp_path / 'offline')
    status, record = compare(bag, folder, tmp_path, '--rate', '100')
    (camera,) = record['cameras']
    assert status == 0
    assert camera['dropped'] > 0, '250 frames a second are more than anybody takes'
    assert camera['live'] + camera['dropped'] == 40
    assert camera['equal'] == camera['live'] > 0


@pytest.mark.slow
def test_other_settings_live_than_offline_are_found_out(node, bundle, tmp_path):
    bag = write_bag(tmp_path / 'bag', [m for m in two_cameras(4) if m[0] == LEFT])
    node('image:=/left/image_raw', transport='compressed', false_alarm_rate=0.9)
    folder = offline(bag, bundle, tmp_path / 'offline', '--false-alarm-rate', '0.0001')
    status, record = compare(bag, folder, tmp_path, '--rate', '0.5', '--transport', 'compressed')
    (camera,) = record['cameras']
    assert status == 1
    assert camera['different'] > 0
    assert camera['stamps_that_differ'][0] in range(START, START + 10**9)


@pytest.mark.slow
def test_the_foreign_bag_live(node, bundle, tmp_path):
    """Message-compressed, without metadata.yaml: no other player takes it."""
    bag = need_data('bags') / 'amber_soccer_goal_12.mcap'
    node('image:=/camera/image_raw')
    evaluate = ['--evaluate', '--bundle', str(bundle), '--threads', '1', '--roi-mode', 'none']
    status, record = compare(bag, tmp_path / 'offline', tmp_path, '--rate', '0.1', *evaluate)
    assert status == 0
    assert record['cameras'][0]['live'] == 2


def test_a_node_that_is_not_there_is_named(bundle, tmp_path, capsys):
    bag = write_bag(tmp_path / 'bag', two_cameras(1))
    folder = offline(bag, bundle, tmp_path / 'offline')
    words = ['--offline', str(folder), '--out', str(tmp_path / 'live'), '--wait', '1']
    assert main([str(bag), *words, '--ros-args', '--log-level', 'error']) == 1
    assert '/road_anomaly was not ready after 1 s' in capsys.readouterr().err
    assert not (tmp_path / 'live').exists()


@pytest.mark.parametrize(
    ('options', 'words'),
    [(['--offline', 'nowhere'], 'report.json'), (['--rate', '0'], '--rate 0')],
)
def test_what_cannot_be_compared_is_one_line(tmp_path, capsys, options, words):
    arguments = [str(tmp_path), '--out', str(tmp_path), *options]
    if '--offline' not in options:
        arguments += ['--offline', str(tmp_path)]
    assert main(arguments) == 1
    assert words in capsys.readouterr().err


def test_ros2_bag_play_is_asked_for_what_it_can():
    cameras = [{'camera': 'left', 'topic': LEFT, 'type': COMPRESSED}]
    common = ['bag', '--offline', 'a', '--out', 'b', '--player', 'ros2', '--rate', '2']
    command = player_command(_parser().parse_args([*common, '--transport', 'compressed']), cameras)
    assert command[:4] == ['ros2', 'bag', 'play', 'bag']
    assert command[-2:] == ['--topics', LEFT]
    assert '--clock' in command
    assert command[command.index('--rate') + 1] == '2'
    with pytest.raises(ConfigError, match='take --player own'):
        player_command(_parser().parse_args(common), cameras)


def test_the_player_publishes_what_was_recorded(tmp_path):
    """Bytes and order as in the bag, /clock never backwards and as far as the last log time."""
    rclpy = pytest.importorskip('rclpy')
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.node import Node
    from rclpy.qos import QoSProfile, ReliabilityPolicy
    from rosgraph_msgs.msg import Clock
    from sensor_msgs.msg import Image

    messages = [m for m in two_cameras(12) if m[0] == FRONT]
    bag = write_bag(tmp_path / 'bag', messages, 'sqlite3', 'message')
    rclpy.init(args=[])
    try:
        ear, frames, times = Node('ear'), [], []
        reliable = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)
        ear.create_subscription(Image, FRONT, frames.append, reliable, raw=True)
        best = QoSProfile(depth=500, reliability=ReliabilityPolicy.BEST_EFFORT)
        ear.create_subscription(Clock, '/clock', times.append, best)
        executor = SingleThreadedExecutor()
        executor.add_node(ear)
        command = [
            sys.executable,
            '-m',
            'ood_perception.ros.tools.bag_player',
            str(bag),
            '--rate',
            '2',
        ]
        player = subprocess.Popen(command)
        end = time.monotonic() + HANGS
        while (player.poll() is None or len(frames) < 12) and time.monotonic() < end:
            executor.spin_once(timeout_sec=0.05)
        assert player.wait(HANGS) == 0
    finally:
        rclpy.try_shutdown()
    assert frames == [data for *_, data in messages]
    clock = [t.clock.sec * 10**9 + t.clock.nanosec for t in times]
    assert clock == sorted(clock)
    assert clock[-1] == messages[-1][2] == START + 11 * 10**8 + DELAY
    assert len(clock) > 30


def test_ros_reads_what_the_result_bag_holds(bundle, tmp_path):
    """The messages as rclpy's own deserialisation sees them: rosbags wrote them."""
    from rclpy.serialization import deserialize_message
    from sensor_msgs.msg import Image

    from ood_perception.bags.problems import Problems
    from ood_perception.bags.reading import Bag, Limits

    bag = write_bag(tmp_path / 'bag', [m for m in two_cameras(2) if m[0] == FRONT])
    folder = offline(bag, bundle, tmp_path / 'offline')
    kinds = {'/road_anomaly/score': ('32FC1', 4), '/road_anomaly/mask': ('mono8', 1)}
    with Bag(folder / 'result', Problems('fail'), Limits(), tmp_path) as result:
        messages = list(result.messages(kinds))
    assert len(messages) == 4
    for message in messages:
        image = deserialize_message(message.data, Image)
        encoding, size = kinds[message.topic]
        assert (image.height, image.width, image.encoding) == (96, 128, encoding)
        assert (image.step, len(image.data)) == (128 * size, 96 * 128 * size)
        assert image.header.frame_id == 'front_optical'
        stamp = image.header.stamp.sec * 10**9 + image.header.stamp.nanosec
        assert stamp == message.time_ns - DELAY
