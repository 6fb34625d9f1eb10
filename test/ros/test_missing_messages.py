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


def test_what_is_not_published_is_a_warning(rig, monkeypatch, capfd):
    absent = SimpleNamespace(Detection2DArray=None)
    monkeypatch.setattr(outputs, 'vision', absent)
    unpublished = outputs.Output(None, outputs.OUTPUTS['obstacles'].build)
    monkeypatch.setitem(outputs.OUTPUTS, 'obstacles', unpublished)
    rig = rig()
    level, message, values = rig.status('outputs', lambda s: True)
    assert level == WARN
    assert message == values['missing']
    for name in ABSENT:
        assert name in message
        assert not rig.peer.count_publishers(f'/road_anomaly/{name}')
    assert 'apt install' in message
    assert message in capfd.readouterr().err, 'in the log, too'
    mask = rig.listen('mask', Image)
    rig.send(rig.camera())
    rig.wait(lambda: mask, 'a mask all the same')
    assert rig.status('engine', lambda s: s[2].get('state') == 'ready')[0] == OK
    assert 'mask' in rig.status('outputs', lambda s: s[2]['subscribed'])[2]['subscribed']
