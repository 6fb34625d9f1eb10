# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Messages and requests made to end the node's process, and signals that must."""

import os
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

import pytest

rclpy = pytest.importorskip('rclpy')

from bundles import write_tiny_bundle  # noqa: E402
from lifecycle_msgs.msg import Transition  # noqa: E402
from lifecycle_msgs.srv import ChangeState  # noqa: E402
from limits import HANGS, WAIT  # noqa: E402
from rcl_interfaces.msg import Parameter, ParameterValue  # noqa: E402
from rcl_interfaces.srv import SetParameters, SetParametersAtomically  # noqa: E402
from rclpy.node import Node  # noqa: E402
from rclpy.serialization import serialize_message  # noqa: E402
from ros_rig import client_of, image_message, isolate, photo  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402

pytestmark = pytest.mark.ros
# The real node with an engine that hangs while a file is there.
STEERED = """
import os, sys, time
from ood_perception.ros import model
from ros_rig import FakeEngine
class Engine(FakeEngine):
    def _run(self, *arguments):
        while os.path.exists({hang!r}):
            time.sleep(0.05)
        return super()._run(*arguments)
if {steered}:
    model.create_engine = Engine
from ood_perception.ros.node import main
sys.exit(main(sys.argv[1:]))
"""


class Process:
    """The node as a process, and a peer that attacks it."""

    def __init__(self, folder, *parameters, steered=False):
        isolate(os.environ, anew=True)
        self.hang, bundle = folder / 'hang', folder / 'tiny'
        if not bundle.exists():
            write_tiny_bundle(bundle, height=126, width=168, upsampling=7)
        values = (f'bundle:={bundle}', 'roi.mode:=none', *parameters)
        code = STEERED.format(hang=str(self.hang), steered=steered)
        command = [sys.executable, '-c', code, 'node', '--ros-args']
        path = os.pathsep.join([str(Path(__file__).parents[1] / 'helpers'), *sys.path])
        self.log = folder / 'log'
        with self.log.open('ab') as log:
            self.process = subprocess.Popen(
                [*command, *(word for value in values for word in ('-p', value))],
                stdout=log, stderr=log, env={**os.environ, 'PYTHONPATH': path},
            )  # fmt: skip
        rclpy.init(args=[])
        self.peer, self.masks, self._clients = Node('peer'), [], {}
        self.peer.create_subscription(Image, '/road_anomaly/mask', self.masks.append, 10)
        self.camera = self.peer.create_publisher(Image, 'image', 1)
        self.clock = self.peer.create_publisher(Clock, '/clock', 1)
        self._ended = False
        self._thread = threading.Thread(target=self._spin)
        self._thread.start()

    def _spin(self):
        while not self._ended:
            rclpy.spin_once(self.peer, timeout_sec=0.05)

    def works(self):
        """Whether a frame comes back."""
        end, before = time.monotonic() + WAIT, len(self.masks)
        while len(self.masks) == before:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end
            self.camera.publish(image_message(photo(), (100, 1)))
            time.sleep(0.1)
        return True

    def ask(self, kind, name, request):
        """Return the answer of one of the node's services."""
        if name not in self._clients:  # one each: forty that come and go may miss their server
            self._clients[name] = client_of(self.peer, kind, f'/road_anomaly/{name}')
        future = self._clients[name].call_async(request)
        end = time.monotonic() + WAIT
        while not future.done():
            assert time.monotonic() < end, 'no answer'
            time.sleep(0.02)
        return future.result()

    def set(self, name, **value):
        parameter = Parameter(name=name, value=ParameterValue(**value))
        answer = self.ask(
            SetParameters, 'set_parameters', SetParameters.Request(parameters=[parameter])
        )
        return answer.results[0]

    def end(self, number=signal.SIGTERM):
        """Return the exit status and how many seconds the end took."""
        start = time.monotonic()
        self.process.send_signal(number)
        return self.process.wait(HANGS), time.monotonic() - start

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._ended = True
        self._thread.join()
        self.peer.destroy_node()
        rclpy.try_shutdown()


@pytest.fixture
def start(tmp_path):
    made = []

    def make(*parameters, **options):
        made.append(Process(tmp_path, *parameters, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def header_only(width, height):
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind, data):
        content = kind + data
        return struct.pack('>I', len(data)) + content + struct.pack('>I', zlib.crc32(content))

    start = chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 0, 0, 0, 0))
    return b'\x89PNG\r\n\x1a\n' + start + chunk(b'IDAT', zlib.compress(b'')) + chunk(b'IEND', b'')


def test_no_request_and_no_message_ends_the_node(start, tmp_path):
    node = start('use_sim_time:=true')
    assert node.works()
    for number in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_CLEANUP, 77, 255):
        request = ChangeState.Request(transition=Transition(id=number))
        assert not node.ask(ChangeState, 'change_state', request).success
    refused = node.set('false_alarm_rate', type=99)
    assert not refused.successful
    assert '99 is not a valid' in refused.reason
    odd = Parameter(name='minimum_area', value=ParameterValue(type=200))
    request = SetParametersAtomically.Request(parameters=[odd])
    assert not node.ask(
        SetParametersAtomically, 'set_parameters_atomically', request
    ).result.successful
    for kind, value in ((3, float('nan')), (3, float('inf')), (0, None), (2, 5), (1, True)):
        field = {1: 'bool_value', 2: 'integer_value', 3: 'double_value'}.get(kind)
        given = {field: value} if field else {}
        for name in ('roi.mode', 'attitude.lines', 'bundle', 'no_such'):
            assert not node.set(name, type=kind, **given).successful
    (tmp_path / 'huge.png').write_bytes(header_only(60000, 60000))
    (tmp_path / 'large.png').write_bytes(b'\0' * (65 << 20))
    os.mkfifo(tmp_path / 'fifo')
    for file in ('~nosuchuser/x.png', '/dev/zero', 'huge.png', 'large.png', 'fifo', '.', 'none'):
        path = file if file[0] in '~/' else str(tmp_path / file)
        assert node.set('roi.masks', type=9, string_array_value=[path]).successful
        refused = node.set('roi.mode', type=4, string_value='mask')
        assert not refused.successful
        assert refused.reason.startswith('roi mask '), refused.reason
    content = bytearray(serialize_message(image_message(photo(), (1, 1))))
    content[content.find(b'front')] = 0xFF  # no UTF-8
    node.camera.publish(bytes(content))
    node.camera.publish(bytes(content[:60]))
    for seconds in (-5, 2**31 - 1, -(2**31), 0):
        message = Clock()
        message.clock.sec = seconds
        node.clock.publish(message)
        time.sleep(0.2)
    assert node.works()
    assert node.end()[0] == 0, node.log.read_text()


def test_eighty_kilobytes_of_polygons_do_not_stall_the_executor(start):
    import random

    node = start()
    assert node.works()
    draw = random.Random(0).random
    polygon = ' '.join(f'{draw():.3f},{draw():.3f}' for _ in range(80_000 // 12))
    assert node.set('roi.polygons', type=9, string_array_value=[polygon]).successful
    assert node.set('roi.mode', type=4, string_value='polygon').successful
    assert node.works()


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_node_though_the_engine_hangs(start, number):
    node = start(steered=True)
    assert node.works()
    node.hang.touch()
    node.camera.publish(image_message(photo(), (100, 1)))
    time.sleep(1.0)
    status, seconds = node.end(number)
    assert status == 1, 'it was not a clean end'
    assert seconds < 60, '5 s on a machine that does nothing else'
    assert 'ended by force: ' in node.log.read_text()
    assert 'inference hangs' in node.log.read_text()


def test_a_signal_ends_the_node_cleanly_in_a_frame_that_is_as_slow_as_others(start):
    node = start(steered=True)
    assert node.works()
    node.hang.touch()
    node.camera.publish(image_message(photo(), (100, 1)))
    time.sleep(4.0)
    node.hang.unlink()
    assert node.works()
    node.hang.touch()
    node.camera.publish(image_message(photo(), (100, 1)))
    time.sleep(1.0)
    status, _ = node.end()
    assert status == 0, node.log.read_text()
    assert 'hangs' not in node.log.read_text()


def test_no_child_outlives_the_node():
    """As a download of weights at the first start: it ends with the node."""
    code = """
import subprocess, sys
from ood_perception.ros.node import kill_children
child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])
kill_children()
print(child.wait())
"""
    ended = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, timeout=HANGS, check=True
    )
    assert int(ended.stdout) == -signal.SIGKILL
