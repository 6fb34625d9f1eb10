# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Open-set labels, image scores and the triggered camera, in a real graph."""

import os

import cv2
import numpy as np
import pytest
from paths import ROOT

rclpy = pytest.importorskip('rclpy')
yaml = pytest.importorskip('yaml')

from bundles import write_tiny_bundle  # noqa: E402
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus  # noqa: E402
from ros_rig import FRAME_ID, FakeEngine, Rig, isolate, photo, use_fake_engine  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402

from ood_perception.parameters import table as parameters  # noqa: E402
from ood_perception.ros.diagnostics import WARN  # noqa: E402

pytestmark = pytest.mark.ros


@pytest.fixture(scope='module')
def bundle(tmp_path_factory):
    path = tmp_path_factory.mktemp('bundles') / 'tiny'
    classes = ('Road', 'Pavement')
    write_tiny_bundle(
        path,
        height=126,
        width=168,
        upsampling=7,
        compiled_classes=classes,
        in_distribution=classes,
    )
    return str(path)


@pytest.fixture
def rig(bundle, monkeypatch):
    isolate(os.environ)
    use_fake_engine(monkeypatch)
    rigs = []

    def make(**values):
        made = Rig((), **{'bundle': bundle, 'roi__mode': 'none', **values})
        rigs.append(made)
        return made.start()

    yield make
    for made in rigs:
        made.__exit__()


def pixels(message):
    return np.frombuffer(message.data, np.uint8).reshape(message.height, message.width)


def stamp(message):
    return message.header.stamp.sec, message.header.stamp.nanosec


def read(message):
    (status,) = message.status
    return status, {pair.key: float(pair.value) for pair in status.values}


def inspection_values():
    """Return config/inspection.yaml as values of the rig."""
    content = yaml.safe_load((ROOT / 'config' / 'inspection.yaml').read_text())
    flat = {}

    def walk(tree, prefix):
        for key, value in tree.items():
            if isinstance(value, dict):
                walk(value, f'{prefix}{key}.')
            else:
                flat[prefix + key] = value

    walk(content['/**']['ros__parameters'], '')
    return flat


def test_open_set_labels_name_the_unknown_and_what_was_not_looked_at(rig):
    rig = rig(roi__mode='polygon', roi__polygons=['0,0 1,0 1,0.75 0,0.75'])
    heard, mask = rig.listen('open_set_labels', Image), rig.listen('mask', Image)
    camera = rig.camera()
    sent = rig.send(camera)
    rig.wait(lambda: heard and mask, 'outputs')
    assert (*stamp(heard[0]), heard[0].header.frame_id) == (*sent, FRAME_ID)
    assert heard[0].encoding == 'mono8'
    labels, flags = pixels(heard[0]), pixels(mask[0])
    assert (labels[flags == 1] == 254).all()
    assert (labels[flags == 0] == 0).all(), 'the fake engine says class 0 everywhere'
    assert (labels[flags == 255] == 255).all()
    assert set(np.unique(labels)) == {0, 254, 255}
    assert rig.set(open_set__outside='labels').successful
    rig.send(camera)
    rig.wait(lambda: len(heard) == 2, 'a second map')
    assert set(np.unique(pixels(heard[1]))) == {0, 254}
    assert 'not_scored' in rig.set(open_set__outside='sky').reason


def test_image_score_judges_the_whole_image(rig):
    rig = rig(image_score__threshold=2.0)
    heard = rig.listen('image_score', DiagnosticArray)
    camera = rig.camera()
    sent = [rig.send(camera)]
    rig.wait(lambda: heard, 'the first score')
    sent.append(rig.send(camera, photo(red=False)))
    rig.wait(lambda: len(heard) == 2, 'the second score')
    assert [stamp(m) for m in heard] == sent
    assert heard[0].header.frame_id == FRAME_ID
    bad, values = read(heard[0])
    assert bad.level == DiagnosticStatus.WARN
    assert bad.name == '/road_anomaly: image'
    assert (values['surprisal'], values['threshold'], values['scored_share']) == (3.0, 2.0, 1.0)
    assert 0 < values['flagged_share'] < 0.2
    good, values = read(heard[1])
    assert (good.level, values['surprisal']) == (DiagnosticStatus.OK, 0.5)
    assert rig.set(image_score__top_share=1.0).successful
    rig.send(camera)
    rig.wait(lambda: len(heard) == 3, 'the third score')
    assert 0.5 < read(heard[2])[1]['surprisal'] < 1.0, 'the mean of 3 in the block and 0.5 around'
    assert rig.set(roi__ignore_polygons=['0,0 1,0 1,1 0,1']).successful
    rig.send(camera)
    rig.wait(lambda: len(heard) == 4, 'the fourth score')
    assert read(heard[3])[0].level == DiagnosticStatus.ERROR, 'what nobody looked at is not good'


def test_image_score_is_made_on_demand_only(rig, monkeypatch):
    from ood_perception.ros import outputs as output_messages

    monkeypatch.setattr(output_messages, 'inspect', lambda *_: pytest.fail('the score was made'))
    rig = rig()
    mask = rig.listen('mask', Image)
    rig.send(rig.camera())
    rig.wait(lambda: mask, 'a mask')


def test_a_triggered_camera_loses_no_frame_and_keeps_the_order(rig):
    """A burst comes while the engine is busy; every image is judged once, in order."""
    rig = rig(**{name.replace('.', '__'): v for name, v in inspection_values().items()})
    heard = rig.listen('image_score', DiagnosticArray)
    camera = rig.camera(reliability='reliable')
    rig.engine.gate.clear()
    sent = [rig.send(camera)]
    rig.wait(lambda: rig.engine.batches, 'the running engine')
    for number in range(40):
        sent.append(rig.send(camera, photo(red=number % 3 == 0)))
        rig.wait_counter('callbacks', number + 2)
    assert rig.status('camera', lambda s: s[2]['waiting'] == '40 of 64')
    rig.engine.gate.set()
    rig.wait(lambda: len(heard) == 41, 'all scores')
    assert [stamp(m) for m in heard] == sent
    found = [read(m)[1]['surprisal'] for m in heard]
    assert found == [3.0, *(3.0 if n % 3 == 0 else 0.5 for n in range(40))]
    counted = rig.counters()
    assert (counted.callbacks, counted.processed, counted.dropped) == (41, 41, 0)


def test_a_burst_in_one_go_arrives_whole(rig):
    """Nothing waits for the node between two images: DDS has to keep them, too."""
    rig = rig(frame_queue=32, image_reliability='reliable')
    heard = rig.listen('image_score', DiagnosticArray)
    reader = rig.node.session._inputs['']
    rig.wait(lambda: reader._images, 'the subscription')
    assert reader._images.qos_profile.depth == 32
    from ood_perception.ros.qos import input_profile

    camera = rig.peer.create_publisher(Image, 'image', input_profile('reliable', 32))
    rig.wait(camera.get_subscription_count, 'a match')
    sent = [rig.send(camera) for _ in range(24)]
    rig.wait(lambda: len(heard) == 24, 'all scores')
    assert [stamp(m) for m in heard] == sent


def test_a_full_queue_drops_the_oldest_and_diagnostics_warn(rig):
    rig = rig(frame_queue=3, image_reliability='reliable')
    heard = rig.listen('image_score', DiagnosticArray)
    camera = rig.camera(reliability='reliable')
    rig.engine.gate.clear()
    sent = [rig.send(camera)]
    rig.wait(lambda: rig.engine.batches, 'the running engine')
    for number in range(5):
        sent.append(rig.send(camera))
        rig.wait_counter('callbacks', number + 2)
    level, _, values = rig.status('camera', lambda s: 'queue of 3 is full' in s[1])
    assert (level, values['dropped']) == (WARN, '2')
    rig.engine.gate.set()
    rig.wait(lambda: len(heard) == 4, 'what is left')
    assert [stamp(m) for m in heard] == [sent[0], *sent[3:]]


def test_the_product_changes_without_a_compilation(rig):
    """All products are compiled at the start, so that one of them is chosen at once."""
    rig = rig()
    heard = rig.listen('image_score', DiagnosticArray)
    camera = rig.camera()
    assert set(rig.engine.compiled_classes) == {'Road', 'Pavement'}
    for product, vector in (('Road', [1.0, 0.0]), ('Pavement', [0.0, 1.0])):
        before = len(heard)
        assert rig.set(in_distribution=[product]).successful
        rig.send(camera)
        rig.wait(lambda before=before: len(heard) > before, 'a score')
        assert rig.engine.chosen[-1] == vector
    assert len(FakeEngine.made) == 1


def test_a_mask_file_limits_what_is_scored_and_a_wrong_one_is_refused(rig, tmp_path):
    belt = np.zeros((96, 128), np.uint8)
    belt[:, :20] = 255
    cv2.imwrite(str(tmp_path / 'belt.png'), belt)
    rig = rig()
    mask = rig.listen('mask', Image)
    camera = rig.camera()
    assert 'roi.masks is empty' in rig.set(roi__mode='mask').reason
    refused = rig.set(roi__mode='mask', roi__masks=[str(tmp_path / 'none.png')])
    assert 'cannot be read' in refused.reason
    assert rig.set(roi__mode='mask', roi__masks=[str(tmp_path / 'belt.png')]).successful
    rig.send(camera)
    rig.wait(lambda: mask, 'a mask')
    scored = pixels(mask[0]) != 255
    assert scored[:, :18].all()
    assert not scored[:, 22:].any()
    rig.send(camera, photo(96, 96))
    rig.wait_counter('bad', 1)
    assert 'belt.png has 128 x 96' in rig.status('camera', lambda s: 'belt' in s[1])[1]


def test_the_inspection_file_names_known_parameters_of_the_right_type():
    values = inspection_values()
    shown = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    for name, value in shown.items():
        assert type(value) is type(parameters.BY_NAME[name].default), name
    defaults = {spec.name: spec.default for spec in parameters.PARAMETERS}
    parameters.check_values({**defaults, **shown}, known_classes=())
    assert shown['frame_queue'] > 1
