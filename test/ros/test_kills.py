# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The node killed at any moment of its first start: the next one starts, from what is there."""

import os
import shutil
import time

import pytest

rclpy = pytest.importorskip('rclpy')

from bundles import donor_of, write_tiny_bundle  # noqa: E402
from killing import killed_at_random  # noqa: E402
from lifecycle_msgs.msg import State  # noqa: E402
from lifecycle_msgs.srv import GetState  # noqa: E402
from limits import WAIT  # noqa: E402
from rclpy.node import Node  # noqa: E402
from ros_rig import isolate  # noqa: E402

pytestmark = [pytest.mark.ros, pytest.mark.slow]


@pytest.fixture
def peer():
    isolate(os.environ, anew=True)
    rclpy.init(args=[])
    node = Node('peer')
    yield node
    node.destroy_node()
    rclpy.try_shutdown()


def active(peer):
    """Wait until the node, which may come and go meanwhile, is active."""
    end = time.monotonic() + WAIT
    while time.monotonic() < end:
        client = peer.create_client(GetState, '/road_anomaly/get_state')
        if client.wait_for_service(1.0):
            answer = client.call_async(GetState.Request())
            rclpy.spin_until_future_complete(peer, answer, timeout_sec=1.0)
            if answer.done() and answer.result().current_state.id == State.PRIMARY_STATE_ACTIVE:
                peer.destroy_client(client)
                return True
        peer.destroy_client(client)
        time.sleep(0.1)
    raise AssertionError('the node does not become active')


def test_node(tmp_path, monkeypatch, peer):
    """From a .zip without weights: unpacking, completion, the trial and the engine's cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('OOD_PERCEPTION_CACHE', str(tmp_path / 'cache'))
    donor = donor_of(write_tiny_bundle('tiny', external_weights=True)).resolve()
    shutil.make_archive('tiny', 'zip', 'tiny')
    values = {'bundle': tmp_path / 'tiny.zip', 'weights': donor, 'precision': 'f32'}
    words = ['--ros-args', *(w for k, v in values.items() for w in ('-p', f'{k}:={v}'))]
    program = ('ood_perception.ros.node', 'main')
    killed_at_random(program, words, lambda: active(peer), caches=['cache'], ends=False)
