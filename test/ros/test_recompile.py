# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Another class set under a stream of frames: the head alone is compiled, and no frame is lost."""

import os
import threading
import time

import pytest

rclpy = pytest.importorskip('rclpy')
pytest.importorskip('openvino')

from bundles import donor_of, write_tiny_bundle  # noqa: E402
from ros_rig import WAIT, Rig, isolate  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402

from ood_perception.engines import openvino  # noqa: E402

pytestmark = pytest.mark.ros
DURING, AFTER = 6, 4  # frames while the head is held back, and after the swap


@pytest.fixture
def compilations(monkeypatch):
    """Return (stages compiled so far, a gate that holds heads back while it is clear)."""
    names, gate = [], threading.Event()
    gate.set()
    compiled = openvino.StreamedStage._compiled

    def recorded(self, streams):
        names.append(self._stage.name)
        if self._stage.name == 'head':
            assert gate.wait(WAIT)
        return compiled(self, streams)

    monkeypatch.setattr(openvino.StreamedStage, '_compiled', recorded)
    yield names, gate
    gate.set()


@pytest.fixture
def rig(tmp_path, monkeypatch):
    isolate(os.environ)
    monkeypatch.setenv('OOD_PERCEPTION_CACHE', str(tmp_path / 'cache'))
    path = write_tiny_bundle(
        tmp_path / 'tiny', compiled_classes=('Road', 'Pavement', 'Sky'), external_weights=True
    )
    with Rig(
        bundle=str(path),
        weights=str(donor_of(path)),
        engine='openvino',
        precision='f32',
        threads=1,
        in_distribution=['Road'],
        roi__mode='none',
    ) as made:
        yield made.start()


def test_no_frame_is_lost_and_no_backbone_is_compiled_while_the_classes_change(rig, compilations):
    compiled, gate = compilations
    masks, camera = rig.listen('mask', Image), rig.camera()
    sent = []

    def stream(count):
        """Send frames, each once the one before it came back, as a camera in step would."""
        for _ in range(count):
            sent.append(rig.send(camera))
            rig.wait(lambda: len(masks) == len(sent), f'the mask of frame {len(sent)}')

    stream(2)
    model = rig.node.session.model
    first, before = model.pipeline.engine, list(compiled)
    gate.clear()
    assert rig.set(in_distribution=['Road', 'Sky']).successful
    rig.wait(lambda: 'head' in compiled[len(before) :], 'the compilation')
    stream(DURING)
    assert model.pipeline.engine is first
    assert model.pipeline.settings.in_distribution == ('Road',)
    assert rig.status('engine', lambda s: 'Road, Sky' in s[1])

    gate.set()
    end = time.monotonic() + WAIT
    while model.pipeline.engine is first:
        stream(1)
        assert time.monotonic() < end, 'the new engine never came'
    stream(AFTER)

    assert model.pipeline.engine.compiled_classes == ('Road', 'Sky')
    assert 'backbone' not in compiled[len(before) :]
    stamps = [(m.header.stamp.sec, m.header.stamp.nanosec) for m in masks]
    assert stamps == sent
    counters = rig.counters()
    assert (counters.processed, counters.dropped, counters.failed) == (len(sent), 0, 0)


def test_the_backbone_is_the_same_compiled_object(rig, compilations):
    model = rig.node.session.model
    first = model.pipeline.engine
    backbone = first._compiled[0]._models[1]

    assert rig.set(in_distribution=['Sky']).successful
    rig.wait(lambda: model.pipeline.engine is not first, 'the swap')

    assert model.pipeline.engine._compiled[0]._models[1] is backbone
    assert model.pipeline.engine._compiled[0]._batches[1] is not None
    assert 'backbone' not in compilations[0]
