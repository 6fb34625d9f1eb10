# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Camera and node in two network namespaces: the wire between them is cut and mended."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

rclpy = pytest.importorskip('rclpy')

from bundles import write_tiny_bundle  # noqa: E402
from domains import isolate  # noqa: E402
from limits import HANGS, WAIT  # noqa: E402

pytestmark = [pytest.mark.ros, pytest.mark.slow]
NODE, CAMERA = f'node{os.getpid()}', f'camera{os.getpid()}'
PEER = """
import sys
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from ros_rig import image_message, photo
from sensor_msgs.msg import Image
rclpy.init(args=[])
peer = Node(sys.argv[1])
if sys.argv[1] == 'camera':
    camera = peer.create_publisher(Image, 'image', 1)
    peer.create_timer(0.1, lambda: camera.publish(image_message(photo(48, 64), (1, 1))))
    peer.create_subscription(Image, '/road_anomaly/mask', lambda _: print('mask', flush=True), 1)
else:
    def tell(message):
        for status in message.status:
            if status.name.endswith(': camera'):
                print(status.message, flush=True)
    peer.create_subscription(DiagnosticArray, '/diagnostics', tell, 10)
rclpy.spin(peer)
"""


def ip(*words):
    return subprocess.run(['ip', *words], capture_output=True, check=False).returncode


@pytest.fixture
def wire():
    """Two namespaces with a wire between them; skipped where the rights for that are missing."""
    if os.geteuid() or not shutil.which('ip') or ip('netns', 'add', NODE):
        pytest.skip('network namespaces take the program ip and rights that are missing here')
    try:
        ip('netns', 'add', CAMERA)
        if ip(
            'link',
            'add',
            'w0',
            'netns',
            NODE,
            'type',
            'veth',
            'peer',
            'name',
            'w0',
            'netns',
            CAMERA,
        ):
            pytest.skip('this kernel has no veth')
        for number, space in enumerate((NODE, CAMERA), 1):
            ip('-n', space, 'link', 'set', 'lo', 'up')
            ip('-n', space, 'link', 'set', 'w0', 'up')
            ip('-n', space, 'addr', 'add', f'10.77.0.{number}/24', 'dev', 'w0')
        yield
    finally:
        ip('netns', 'del', NODE)
        ip('netns', 'del', CAMERA)


@pytest.fixture
def run(tmp_path):
    """Return what starts a Python program in a namespace; it returns the place of its output."""
    environment = {
        **os.environ,
        'PYTHONPATH': os.pathsep.join([str(Path(__file__).parents[1] / 'helpers'), *sys.path]),
        'FASTDDS_BUILTIN_TRANSPORTS': 'UDPv4',  # shared memory needs no wire
    }
    isolate(environment)
    environment['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'SUBNET'
    processes = []

    def start(space, *words):
        log = tmp_path / f'{len(processes)}.log'
        command = ['ip', 'netns', 'exec', space, sys.executable, *words]
        with log.open('wb') as file:
            processes.append(subprocess.Popen(command, stdout=file, stderr=file, env=environment))
        return log

    yield start
    for process in processes[:1]:  # the node
        process.terminate()
    for process in processes[1:]:  # SIGTERM while they start is lost on them
        process.kill()
    for process in processes:
        process.wait(HANGS)


def told(log, words, begin=0):
    """Wait until a line behind the first `begin` holds the words; return the number of lines."""
    end = time.monotonic() + WAIT
    while True:
        lines = log.read_text().splitlines()
        if any(words in line for line in lines[begin:]):
            return len(lines)
        assert time.monotonic() < end, f'no {words!r} in {lines[-5:]}'
        time.sleep(0.1)


def test_a_network_that_is_cut_is_missed_and_taken_up_again(wire, run, tmp_path):
    bundle = write_tiny_bundle(tmp_path / 'tiny')
    parameters = [
        word
        for value in (f'bundle:={bundle}', 'roi.mode:=none', 'lazy_subscription:=false')
        for word in ('-p', value)
    ]
    run(NODE, '-m', 'ood_perception.ros.node', '--ros-args', *parameters)
    status, camera = run(NODE, '-c', PEER, 'watch'), run(CAMERA, '-c', PEER, 'camera')
    told(camera, 'mask')
    begin = told(status, 'ok')
    ip('-n', NODE, 'link', 'set', 'w0', 'down')
    told(status, 'the camera has gone silent', begin)
    begin = told(status, 'the camera is gone', begin)
    heard = len(camera.read_text().splitlines())
    ip('-n', NODE, 'link', 'set', 'w0', 'up')
    told(camera, 'mask', heard)
    told(status, 'ok', begin)
