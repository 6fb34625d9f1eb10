# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Without vision_msgs the node runs, and says in log and diagnostics what it does not publish."""

from types import SimpleNamespace

import pytest

rclpy = pytest.importorskip('rclpy')

from sensor_msgs.msg import Image  # noqa: E402

from ood_perception.ros import outputs  # noqa: E402
from ood_perception.ros.diagnostics import OK, WARN  # noqa: E402

pytestmark = pytest.mark.ros
ABSENT = ('obstacles', 'mask_info', 'label_info', 'open_set_label_info')


class Logger:
    """Takes warnings down."""

    def __init__(self):
        self.warnings = []

    def warning(self, text, **_):
        self.warnings.append(text)

    info = error = fatal = lambda *_, **__: None


def test_what_is_not_published_is_a_warning(rig, monkeypatch):
    absent = SimpleNamespace(Detection2DArray=None)
    monkeypatch.setattr(outputs, 'vision', absent)
    unpublished = outputs.Output(None, outputs.OUTPUTS['obstacles'].build)
    monkeypatch.setitem(outputs.OUTPUTS, 'obstacles', unpublished)
    rig, logger = rig(start=False), Logger()
    monkeypatch.setattr(rig.node, 'get_logger', lambda: logger)
    rig.start()
    level, message, values = rig.status('outputs', lambda s: True)
    assert level == WARN
    assert message == values['missing']
    for name in ABSENT:
        assert name in message
        assert not rig.peer.count_publishers(f'/road_anomaly/{name}')
    assert 'apt install' in message
    assert logger.warnings == [message], 'in the log, too, once'
    mask = rig.listen('mask', Image)
    rig.send(rig.camera())
    rig.wait(lambda: mask, 'a mask all the same')
    assert rig.status('engine', lambda s: s[2].get('state') == 'ready')[0] == OK
    assert 'mask' in rig.status('outputs', lambda s: s[2]['subscribed'])[2]['subscribed']
