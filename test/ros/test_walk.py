# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A frame goes from callback to mask through the files that docs/architecture.md lists."""

import os
import re
import threading
from pathlib import Path

import pytest
from paths import ROOT

rclpy = pytest.importorskip('rclpy')
pytest.importorskip('openvino')

from bundles import write_tiny_bundle  # noqa: E402
from ros_rig import Rig, isolate  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402

pytestmark = pytest.mark.ros
PACKAGE = ROOT / 'ood_perception'


def listed():
    """Return the files of the walk in docs/architecture.md, in order."""
    text = (ROOT / 'docs' / 'architecture.md').read_text(encoding='utf-8')
    section = text[text.index("## A frame's way") :].split('\n## ')[0]
    found = re.findall(r'(\d+)\. `([a-z_/]+\.py)`', section)
    assert [int(number) for number, _ in found] == list(range(1, len(found) + 1))
    return [file for _, file in found]


class Trace:
    """The package's files by the thread that calls into them, in the order of the first call."""

    def __init__(self):
        self.files, self.on = {}, False

    def __call__(self, frame, event, _):
        path = frame.f_code.co_filename
        if self.on and event == 'call' and path.startswith(f'{PACKAGE}{os.sep}'):
            name = str(Path(path).relative_to(PACKAGE))
            self.files.setdefault(threading.current_thread().name, {})[name] = None


@pytest.fixture
def trace():
    made = Trace()
    threading.setprofile(made)
    yield made
    threading.setprofile(None)


def test_a_frame_visits_the_files_that_the_architecture_names_and_in_that_order(tmp_path, trace):
    isolate(os.environ)
    bundle = write_tiny_bundle(tmp_path / 'tiny')
    with Rig(bundle=str(bundle), engine='openvino', precision='f32', threads=1) as rig:
        rig.start()
        masks, camera = rig.listen('mask', Image), rig.camera()
        rig.send(camera)
        rig.wait(lambda: masks, 'the first mask, which makes what is kept')
        trace.on = True
        rig.send(camera)
        rig.wait(lambda: len(masks) == 2, 'the mask')
        trace.on = False
    way = listed()
    assert len(way) <= 14
    worker = [file for file in trace.files['inference'] if file in way[2:]]
    # without held-out pixels in the bundle nothing is calibrated anew
    assert worker == [file for file in way[2:] if file != 'postprocess/calibration.py']
    executor = {file for name in trace.files if name != 'inference' for file in trace.files[name]}
    assert executor >= set(way[:2])
    assert 'ros/session.py' not in trace.files['inference'], 'the session only wires'
