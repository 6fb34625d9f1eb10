# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A fleet hears on ~/calibration_health what /diagnostics says of every camera's calibration."""

import os

import numpy as np
import pytest

pytest.importorskip('rclpy')

from bundles import write_tiny_bundle
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from ros_rig import Rig, image_message, isolate
from sensor_msgs.msg import Image

from ood_perception.loader import CalibrationMonitors
from ood_perception.postprocess import drift

pytestmark = pytest.mark.ros


def test_the_health_of_the_calibration_is_published_and_warns(tmp_path, monkeypatch):
    isolate(os.environ)
    monkeypatch.setattr(drift, '_WINDOW', 3)
    bundle = write_tiny_bundle(tmp_path / 'tiny')
    with Rig(bundle=str(bundle), engine='openvino', precision='f32', threads=1) as rig:
        rig.start()
        masks, health = rig.listen('mask', Image), []
        topic = '/road_anomaly/calibration_health'
        rig.peer.create_subscription(DiagnosticArray, topic, health.append, 10)
        camera = rig.camera()
        rig.wait(lambda: health, 'health before a frame')
        assert health[0].status[0].message == 'no frame yet'
        dark = np.zeros((84, 112, 3), np.uint8)
        for number in range(1, 9):
            camera.publish(image_message(dark, (100 + number, 0)))
            rig.wait(lambda number=number: len(masks) >= number, 'the mask')
        warned = [DiagnosticStatus.WARN]
        rig.wait(lambda: [health[-1].status[0].level] == warned, 'the warning')
        status = health[-1].status[0]
        assert 'calibration' in status.name
        assert 'dark' in status.message
        assert {pair.key for pair in status.values} >= {'flagged', 'target', 'ground', 'evidence'}
        told = rig.status('calibration', lambda one: one[0] == DiagnosticStatus.WARN)
        assert told[1] == status.message


def test_a_monitor_that_fails_costs_no_frame(tmp_path, monkeypatch):
    def failing(self, pipeline, detection):
        raise ValueError('no such statistics')

    isolate(os.environ)
    monkeypatch.setattr(CalibrationMonitors, 'add', failing)
    bundle = write_tiny_bundle(tmp_path / 'tiny')
    with Rig(bundle=str(bundle), engine='openvino', precision='f32', threads=1) as rig:
        rig.start()
        logged, log = [], rig.node.log
        monkeypatch.setattr(rig.node, 'log', lambda *said: (logged.append(said), log(*said)))
        masks, camera = rig.listen('mask', Image), rig.camera()
        for number in (1, 2):
            camera.publish(image_message(np.zeros((84, 112, 3), np.uint8), (100 + number, 0)))
            rig.wait(lambda number=number: len(masks) >= number, 'the mask')
        said = ('error', 'calibration health: ValueError: no such statistics')
        rig.wait(lambda: said in logged, 'what the log says')
        (report,) = rig.node.session.queue.reports()
        assert (report.counters.processed, report.counters.failed) == (2, 0)
