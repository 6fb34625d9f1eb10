# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The node in a real graph: what comes in, what goes out, and what is counted."""

import threading
from dataclasses import replace

import cv2
import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy')

from image_messages import array, header  # noqa: E402
from ros_rig import (  # noqa: E402
    FRAME_ID,
    WAIT,
    FakeEngine,
    image_message,
    photo,
)
from sensor_msgs.msg import CameraInfo, CompressedImage, Image  # noqa: E402
from std_msgs.msg import Float64  # noqa: E402
from visualization_msgs.msg import ImageMarker, MarkerArray  # noqa: E402

from ood_perception.errors import EngineError  # noqa: E402
from ood_perception.postprocess.calibration import HeldOutSample  # noqa: E402
from ood_perception.postprocess.overlay import MASK_COLORS  # noqa: E402
from ood_perception.ros.diagnostics import ERROR, OK, WARN  # noqa: E402

pytestmark = pytest.mark.ros
IMAGES = (
    'score',
    'surprisal',
    'confidence',
    'mask',
    'labels',
    'overlay',
    'mask_image',
    'score_image',
)
DRAWN = ('overlay', 'mask_image', 'score_image')


def test_every_output_has_the_inputs_header_and_size_and_they_agree(rig):
    rig = rig()
    heard = {name: rig.listen(name, Image) for name in IMAGES}
    for name in DRAWN:
        heard[f'{name}/compressed'] = rig.listen(f'{name}/compressed', CompressedImage)
    markers = rig.listen('obstacle_markers', MarkerArray)
    lines = rig.listen('obstacle_annotations', ImageMarker)
    latency = rig.listen('debug/inference_ms', Float64)
    stamp = rig.send(rig.camera())
    rig.wait(lambda: all(heard.values()) and markers and lines and latency, 'all outputs')
    for name, messages in heard.items():
        assert header(messages[0]) == (*stamp, FRAME_ID), name
    maps = {name: array(heard[name][0]) for name in IMAGES}
    assert {m.shape[:2] for m in maps.values()} == {(96, 128)}
    red = photo()[..., 0] > 200
    inner = cv2.erode(red.astype(np.uint8), np.ones((9, 9))) > 0
    outer = cv2.dilate(red.astype(np.uint8), np.ones((15, 15))) == 0
    assert maps['mask'][inner].min() == 1
    assert maps['mask'][outer].max() == 0
    np.testing.assert_allclose(maps['score'], 1 - 10.0 ** -maps['surprisal'], atol=1e-6)
    assert (maps['confidence'][inner] == 153).all(), 'round(255 * 3 / 5)'
    for name in DRAWN:
        jpeg = cv2.imdecode(np.frombuffer(heard[f'{name}/compressed'][0].data, np.uint8), 1)
        assert np.abs(jpeg[..., ::-1].astype(int) - maps[name]).mean() < 8
    for value, color in MASK_COLORS.items():
        shown = (maps['mask_image'] == color).all(axis=2)
        np.testing.assert_array_equal(shown, maps['mask'] == value)
    assert (maps['score_image'][inner, 0] > maps['score_image'][outer, 0].max()).all(), 'redder'
    assert len(markers[0].markers) == 3, 'clear, rectangle, caption'
    assert header(markers[0].markers[1]) == (*stamp, FRAME_ID)
    assert header(lines[0]) == (*stamp, FRAME_ID)
    rows, columns = np.nonzero(maps['mask'] == 1)
    ends = {(point.x, point.y) for point in lines[0].points}
    np.testing.assert_allclose(min(ends), (columns.min(), rows.min()), atol=1)
    np.testing.assert_allclose(max(ends), (columns.max() + 1, rows.max() + 1), atol=1)


def test_outside_the_region_nothing_is_scored(rig):
    rig = rig(roi__mode='polygon', roi__polygons=['0,0.5 1,0.5 1,1 0,1'])
    score, mask = rig.listen('score', Image), rig.listen('mask', Image)
    confidence = rig.listen('confidence', Image)
    rig.send(rig.camera())
    rig.wait(lambda: score and mask and confidence, 'outputs')
    outside = array(mask[0]) == 255
    assert outside[:40].all()
    assert not outside[56:].any()
    np.testing.assert_array_equal(np.isnan(array(score[0])), outside)
    assert not array(confidence[0])[outside].any()


def test_one_remap_serves_the_compressed_topic_as_well(rig):
    rig = rig(remaps=['image:=/cam/image_raw'], transport='compressed')
    mask = rig.listen('mask', Image)
    camera = rig.camera('/cam/image_raw/compressed', CompressedImage)
    message = CompressedImage(format='jpeg')
    message.data.frombytes(cv2.imencode('.jpg', photo()[..., ::-1])[1].tobytes())
    stamp = rig.send(camera, message=message)
    rig.wait(lambda: mask, 'a mask')
    assert header(mask[0]) == (*stamp, FRAME_ID)
    assert (array(mask[0]) == 1).any()


def test_cameras_that_wait_together_share_a_batch_and_one_engine(rig):
    names = ['front', 'left', 'right']
    rig = rig(cameras=names)
    heard = {name: rig.listen(f'{name}/mask', Image) for name in names}
    cameras = {name: rig.camera(f'{name}/image') for name in names}
    rig.engine.gate.clear()
    rig.send(cameras['front'])
    rig.wait(lambda: rig.engine.batches, 'the first frame in the engine')
    sizes = {'front': (96, 128), 'left': (48, 64), 'right': (60, 160)}
    sent = {name: rig.send(cameras[name], photo(*sizes[name])) for name in names}
    rig.wait(lambda: all(rig.counters(n).callbacks for n in names), 'callbacks')
    rig.wait(lambda: rig.counters('front').callbacks == 2, 'the second front frame')
    rig.engine.gate.set()
    rig.wait(lambda: len(heard['front']) == 2 and heard['left'] and heard['right'], 'masks')
    assert rig.engine.batches == [1, 3]
    assert len(FakeEngine.made) == 1
    for name in names:
        assert header(heard[name][-1]) == (*sent[name], FRAME_ID)
        assert array(heard[name][-1]).shape == sizes[name]


def test_mode_and_pinning_of_the_threads_reach_the_engine(rig):
    engine = rig(engine_mode='throughput', pin_threads='never').engine
    assert (engine.options.mode, engine.options.pin_threads) == ('throughput', False)


def test_dropped_frames_are_counted_and_the_newest_survives(rig):
    rig = rig()
    mask = rig.listen('mask', Image)
    camera = rig.camera()
    rig.engine.gate.clear()
    rig.send(camera)
    rig.wait(lambda: rig.engine.batches, 'the running engine')
    for number in range(6):
        last = rig.send(camera)
        rig.wait_counter('callbacks', number + 2)
    rig.engine.gate.set()
    rig.wait_counter('processed', 2)
    counted = rig.counters()
    assert (counted.callbacks, counted.processed, counted.dropped) == (7, 2, 5)
    rig.wait(lambda: len(mask) == 2, 'two masks')
    assert header(mask[-1]) == (*last, FRAME_ID)


def test_without_subscribers_nothing_is_computed(rig):
    rig = rig(lazy_subscription=False)
    rig.send(rig.camera())
    rig.wait_counter('callbacks', 1)
    level, _, _ = rig.status('camera', lambda s: 'nobody subscribes' in s[1])
    assert (rig.counters().skipped, rig.engine.batches) == (1, [])
    assert level == OK


def test_the_log_says_what_lasts_and_what_serves(rig, monkeypatch):
    def complete(bundle, _, progress):
        progress('downloading the weights')
        return bundle

    monkeypatch.setattr('ood_perception.loader.complete', complete)
    rig, logged = rig(start=False), []
    monkeypatch.setattr(rig.node, 'log', lambda *words: logged.append(words))
    rig.start()
    (_, begun), (severity, served) = logged
    assert begun == 'downloading the weights'
    assert severity == 'info'
    for words in ('tiny on fake', 'precision f32', '168x126', 'normal: Road', '/image while some'):
        assert words in served
    assert rig.set(lazy_subscription=False).successful
    assert rig.node.session.summary.endswith('listening to /image')


def test_only_subscribed_outputs_are_made(rig, monkeypatch):
    from ood_perception.postprocess.output_maps import IMAGES

    rig = rig()
    unmade = replace(IMAGES['score'], write=lambda *_: pytest.fail('score was made'))
    monkeypatch.setitem(IMAGES, 'score', unmade)
    mask = rig.listen('mask', Image)
    rig.send(rig.camera())
    rig.wait(lambda: mask, 'a mask')


def test_enable_stops_and_starts_the_work(rig):
    rig = rig()
    rig.listen('mask', Image)
    camera = rig.camera()
    assert rig.enable(False).success
    rig.send(camera)
    rig.wait_counter('skipped', 1)
    assert 'enable' in rig.status('camera', lambda s: 'enable' in s[1])[1]
    assert rig.enable(True).success
    rig.send(camera)
    rig.wait_counter('processed', 1)
    assert rig.engine.batches == [1]


def test_parameters_change_the_next_mask_and_wrong_ones_are_refused(rig):
    rig = rig()
    mask = rig.listen('mask', Image)
    camera = rig.camera()

    def flagged():
        before = len(mask)
        rig.send(camera)
        rig.wait(lambda: len(mask) > before, 'a mask')
        return int((array(mask[-1]) == 1).sum())

    assert flagged() > 0
    assert rig.set(false_alarm_rate=1e-4).successful, 'surprisal 3 is no alarm at 1e-4'
    assert flagged() == 0
    refused = rig.set(false_alarm_rate=1.0)
    assert not refused.successful
    assert '(0, 1)' in refused.reason
    assert 'above false_alarm_rate' in rig.set(hysteresis_rate=0.5).reason
    assert rig.set(false_alarm_rate=0.01, minimum_area=1e6).successful
    assert flagged() == 0
    assert rig.set(minimum_area=0.0, roi__ignore_polygons=['0,0 1,0 1,1 0,1']).successful
    assert flagged() == 0
    assert (array(mask[-1]) == 255).all()
    assert 'lava' in rig.set(in_distribution=['lava']).reason
    assert 'cannot change' in rig.set(bundle='/elsewhere').reason
    assert rig.node.get_parameter('false_alarm_rate').value == 0.01


def test_whole_numbers_are_taken_for_numbers(rig):
    rig = rig(minimum_area=1000000, frame_queue=2.0)
    mask = rig.listen('mask', Image)
    rig.send(rig.camera())
    rig.wait(lambda: mask, 'a mask')
    assert not (array(mask[-1]) == 1).any()
    assert rig.set(minimum_area=0).successful
    assert rig.set(hysteresis_rate=0, frame_timeout=3).successful
    stored = rig.node.get_parameter('minimum_area').value
    assert (stored, type(stored)) == (0.0, float)
    assert rig.node.get_parameter('frame_queue').value == 2
    refused = rig.set(minimum_area='large')
    assert not refused.successful
    assert refused.reason == "minimum_area is 'large', expected a number"


def test_describing_a_parameter_tells_what_its_empty_list_stands_for(rig):
    rig = rig()
    shown = rig.node.describe_parameter('in_distribution').additional_constraints
    classes = ', '.join(rig.node.session.model.classes)
    assert shown == f"classes: {classes}; ['']: Road"
    assert rig.node.describe_parameter('obstacle_classes').additional_constraints.endswith('none')
    assert rig.set(in_distribution=['Pavement']).successful, 'told, not enforced by rclpy'


def test_a_region_is_set_in_the_order_that_the_refusal_names(rig):
    rig = rig()
    refused = rig.set(roi__mode='polygon')
    assert not refused.successful
    assert 'set roi.polygons first' in refused.reason
    assert rig.set(roi__polygons=['0,0.5 1,0.5 1,1 0,1']).successful
    assert rig.set(roi__mode='polygon').successful
    refused = rig.set(roi__polygons=[''])
    assert not refused.successful
    assert 'another roi.mode' in refused.reason


def test_few_held_out_pixels_are_told_and_bound_the_rates_that_may_be_set(rig, monkeypatch):
    own = np.random.default_rng(0).random((400, 2))
    truth = np.repeat([0, 1], [350, 50])
    sample = HeldOutSample(('Road', 'Pavement'), own, truth, np.ones(400))
    monkeypatch.setattr(
        'ood_perception.pipeline.read_samples', lambda b: {b.manifest.heads[0].name: sample}
    )
    rig = rig(in_distribution=['Road'])
    _, told, values = rig.status('engine', lambda s: s[0] == WARN and 'pixels' in s[1])
    assert '350 held-out pixels' in told
    assert values['state'] == 'ready'
    refused = rig.set(false_alarm_rate=0.001)
    assert not refused.successful
    assert '350 held-out pixels cannot bound a false alarm rate of 0.001' in refused.reason
    assert rig.node.get_parameter('false_alarm_rate').value == 0.01
    assert rig.set(false_alarm_rate=0.02).successful


def modelled_but_not_compiled(rig):
    known = rig.node.session.model.manifest.heads[0].compiled_classes
    return next(name for name in known if name not in rig.engine.compiled_classes)


def test_other_classes_are_compiled_in_the_background_and_swapped_in(rig):
    rig = rig()
    mask = rig.listen('mask', Image)
    camera, first = rig.camera(), rig.engine
    (one,) = first.compiled_classes
    other = modelled_but_not_compiled(rig)
    assert rig.set(in_distribution=[one, other]).successful
    rig.wait(lambda: first.closed, 'the swap')
    assert set(rig.engine.options.compiled_classes) == {one, other}
    rig.send(camera)
    rig.wait(lambda: mask, 'a mask')
    assert rig.engine.chosen == [[1.0, 1.0]]
    assert rig.set(in_distribution=[other]).successful
    assert len(FakeEngine.made) == 2, 'a compiled class needs no new engine'
    rig.send(camera)
    rig.wait_counter('processed', 2)
    assert rig.engine.chosen[-1] == [float(n == other) for n in rig.engine.compiled_classes]
    assert 'no model' in rig.set(in_distribution=['Sky']).reason
    status = rig.status('engine', lambda s: s[2].get('in_distribution') == other)
    assert status[0] == OK


def test_classes_that_cannot_be_compiled_leave_the_old_ones_at_work(rig, monkeypatch):
    from ood_perception.ros import model

    rig = rig()
    rig.listen('mask', Image)
    camera, other = rig.camera(), modelled_but_not_compiled(rig)

    def refuse(*_):
        raise EngineError('no room for the head: free some memory')

    monkeypatch.setattr(model, 'create_engine', refuse)
    assert rig.set(in_distribution=[other]).successful
    level, message, _ = rig.status('engine', lambda s: 'no room' in s[1])
    assert level == WARN
    assert 'stay in use' in message
    rig.send(camera)
    rig.wait_counter('processed', 1)


BAD_FRAMES = {
    'step': ({'step': 5}, 'step 5'),
    'data': ({'data': b'1234'}, '4 bytes'),
    'encoding': ({'encoding': '32FC1'}, '32FC1'),
    'empty': ({'height': 0}, 'empty'),
    'huge': ({'height': 20000, 'width': 20000}, 'megapixels'),
}


@pytest.mark.parametrize('case', BAD_FRAMES)
def test_bad_frames_are_counted_told_and_survived(rig, case):
    fields, words = BAD_FRAMES[case]
    rig = rig()
    mask = rig.listen('mask', Image)
    camera = rig.camera()
    message = image_message(photo(), (1, 1))
    for name, value in fields.items():
        setattr(message, name, value)
    rig.send(camera, message=message)
    rig.wait_counter('bad', 1)
    level, text, values = rig.status('camera', lambda s: 'rejected' in s[1])
    assert level == ERROR
    assert words in text
    assert values['bad'] == '1'
    rig.send(camera)
    rig.wait(lambda: mask, 'the mask of a good frame')
    assert rig.counters().callbacks == 2


def test_undecodable_jpeg_is_counted(rig):
    rig = rig(transport='compressed')
    rig.listen('mask', Image)
    camera = rig.camera('image/compressed', CompressedImage)
    message = CompressedImage(format='jpeg')
    message.data.frombytes(cv2.imencode('.jpg', photo())[1].tobytes()[:-50])
    rig.send(camera, message=message)
    rig.wait_counter('bad', 1)


def test_size_and_encoding_may_change_in_mid_stream(rig):
    rig = rig()
    mask, score = rig.listen('mask', Image), rig.listen('score', Image)
    camera = rig.camera()
    shapes = [(96, 128), (48, 200), (200, 64), (96, 128)]
    for number, shape in enumerate(shapes):
        encoding = 'rgb8' if number % 2 else 'bgr8'
        pixels = photo(*shape)
        rig.send(camera, pixels if number % 2 else pixels[..., ::-1], encoding=encoding)
        rig.wait(lambda n=number: len(mask) > n and len(score) > n, 'outputs')
    assert [array(m).shape for m in mask] == shapes
    assert all((array(m) == 1).any() for m in mask)


@pytest.mark.parametrize('error', [EngineError('device lost'), ZeroDivisionError('a bug')])
def test_a_failing_engine_costs_the_frame_and_not_the_node(rig, error):
    rig = rig()
    mask = rig.listen('mask', Image)
    camera = rig.camera()
    rig.engine.error = error
    rig.send(camera)
    rig.wait_counter('failed', 1)
    level, text, _ = rig.status('camera', lambda s: 'failed' in s[1])
    assert level == ERROR
    assert str(error) in text
    rig.send(camera)
    rig.wait(lambda: mask, 'the next mask')


def test_life_cycle_there_and_back(rig, bundle):
    rig = rig(start=False, lazy_subscription=False)
    success = rig.node.trigger_configure()
    assert rig.node.state_label == 'inactive'
    rig.listen('mask', Image)
    camera = rig.camera()
    rig.send(camera)
    rig.wait_counter('skipped', 1)
    assert rig.node.trigger_activate() == success
    rig.send(camera)
    rig.wait_counter('processed', 1)
    assert rig.node.trigger_deactivate() == success
    rig.send(camera)
    rig.wait_counter('skipped', 2)
    assert rig.node.trigger_activate() == success
    rig.send(camera)
    rig.wait_counter('processed', 2)
    engine = rig.engine
    assert rig.node.trigger_deactivate() == success
    assert rig.node.trigger_cleanup() == success
    assert engine.closed
    assert rig.node.session is None
    assert rig.set(output_scale=0.5).successful, 'fixed parameters change while unconfigured'
    assert rig.start().node.state_label == 'active'
    mask = rig.listen('mask', Image)
    rig.send(rig.camera())
    rig.wait(lambda: mask, 'a mask')
    assert array(mask[0]).shape == (48, 64)
    assert rig.node.trigger_shutdown() == success
    assert rig.engine.closed


def test_a_bad_bundle_fails_the_transition_and_may_be_corrected(rig, bundle):
    rig = rig(start=False, bundle='/nowhere/at/all')
    assert not rig.node.autostart()
    assert '/nowhere/at/all' in rig.node.start_error
    level, text, _ = rig.status('engine', lambda s: 'failed' in s[1])
    assert level == ERROR
    assert '/nowhere/at/all' in text
    assert rig.set(bundle=bundle).successful
    rig.start()


def test_diagnostics_say_compiling_while_the_node_configures(rig, monkeypatch):
    from ood_perception.ros import model

    gate = threading.Event()

    def slow(*arguments):
        assert gate.wait(WAIT)
        return FakeEngine(*arguments)

    monkeypatch.setattr(model, 'create_engine', slow)
    rig = rig(start=False)
    starting = threading.Thread(target=rig.node.autostart)
    starting.start()
    level, _, _ = rig.status('engine', lambda s: 'compiling' in s[1])
    early = rig.set(false_alarm_rate=0.2)
    assert not early.successful, 'it would be lost'
    assert 'false_alarm_rate: the node is being configured' in early.reason
    gate.set()
    starting.join()
    assert level == WARN
    assert rig.status('engine', lambda s: s[1] == 'ready')[0] == OK
    assert rig.set(false_alarm_rate=0.2).successful


def test_unknown_classes_are_refused_at_the_start(rig):
    rig = rig(start=False, in_distribution=['lava'])
    assert not rig.node.autostart()
    assert 'lava' in rig.node.start_error
    assert all(engine.closed for engine in FakeEngine.made)


def test_diagnostics_name_engine_bundle_and_times(rig, bundle):
    rig = rig()
    rig.listen('mask', Image)
    rig.send(rig.camera())
    rig.wait_counter('processed', 1)
    _, _, times = rig.status('processing time', lambda s: s[2]['own_ms median'] != 'n/a')
    assert float(times['own_ms median']) > 0
    _, _, engine = rig.status('engine', lambda s: s[2]['state'] == 'ready')
    assert engine['runtime'] == 'fake'
    assert engine['bundle_path'] == bundle
    assert len(engine['bundle_sha256']) == 64
    _, _, camera = rig.status('camera', lambda s: s[2]['processed'] == '1')
    assert camera['callbacks'] == '1'


def test_smaller_outputs_come_with_their_camera_info(rig):
    rig = rig(output_scale=0.5)
    mask, infos = rig.listen('mask', Image), rig.listen('camera_info', CameraInfo)
    camera = rig.camera()
    publisher = rig.peer.create_publisher(CameraInfo, 'camera_info', 1)
    rig.wait(publisher.get_subscription_count, 'subscription')
    info = CameraInfo(width=128, height=96)
    info.k = [100.0, 0, 63.5, 0, 100, 47.5, 0, 0, 1]
    publisher.publish(info)
    rig.wait(lambda: rig.node.session._inputs[''].camera_info, 'camera_info')
    stamp = rig.send(camera)
    rig.wait(lambda: mask and infos, 'outputs')
    assert array(mask[0]).shape == (48, 64)
    assert (infos[0].width, infos[0].height, infos[0].k[0]) == (64, 48, 50.0)
    assert header(infos[0]) == (*stamp, FRAME_ID)


def test_output_qos_may_be_overridden(rig):
    topic = '/road_anomaly/mask'
    name = f'qos_overrides.{topic}.publisher.reliability'
    rig = rig(start=False, **{name: 'best_effort'})
    rig.start()
    (endpoint,) = rig.peer.get_publishers_info_by_topic(topic)
    assert endpoint.qos_profile.reliability.name == 'BEST_EFFORT'
