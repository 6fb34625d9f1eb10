# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Slots, messages, parameters, QoS and diagnostics, each without a graph."""

import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from paths import ROOT

rclpy = pytest.importorskip('rclpy')
yaml = pytest.importorskip('yaml')

from rclpy.qos import DurabilityPolicy, ReliabilityPolicy  # noqa: E402
from sensor_msgs.msg import CameraInfo, Image  # noqa: E402
from std_msgs.msg import Header  # noqa: E402

from ood_perception.errors import ConfigError, DependencyError  # noqa: E402
from ood_perception.image.decode import FrameDecoder  # noqa: E402
from ood_perception.parameters import table as parameters  # noqa: E402
from ood_perception.postprocess.roi_files import parse_polygons  # noqa: E402
from ood_perception.ranging.camera_model import camera_model  # noqa: E402
from ood_perception.ros import camera_input as inputs  # noqa: E402
from ood_perception.ros import dds, diagnostics, messages, qos  # noqa: E402
from ood_perception.ros.frame_queue import Counters, FrameQueue  # noqa: E402
from ood_perception.ros.timing import STAGES, FrameTimes, TimingWindow  # noqa: E402
from ood_perception.types import Obstacle  # noqa: E402

pytestmark = pytest.mark.ros


def counters(queue, name=''):
    return next(r.counters for r in queue.reports() if r.name == name)


def test_slot_keeps_the_newest_frame_and_counts_the_others():
    queue = FrameQueue(['front', 'left'])
    queue.open()
    for number in range(5):
        queue.put('front', number, wanted=True)
    queue.put('left', 'l', wanted=True)
    taken = queue.take(0.0)
    assert [(w.camera, w.message) for w in taken] == [('front', 4), ('left', 'l')]
    queue.processed('front', 3.0)
    queue.lost('left', 'bad', 'odd')
    assert counters(queue, 'front') == Counters(callbacks=5, dropped=4, processed=1)
    assert counters(queue, 'left') == Counters(callbacks=1, bad=1)


def test_unwanted_closed_and_emptied_slots_are_skipped_not_lost():
    queue = FrameQueue([''])
    queue.put('', 1, wanted=True)  # not open yet
    queue.open()
    queue.put('', 2, wanted=False)
    queue.put('', 3, wanted=True)
    queue.close()
    assert queue.take(0.0) == []
    assert counters(queue) == Counters(callbacks=3, skipped=3)


def test_every_callback_is_accounted_for_under_threads():
    queue = FrameQueue(['a', 'b'])
    queue.open()
    stop = threading.Event()

    def work():
        while not stop.is_set():
            for waiting in queue.take(0.05):
                queue.processed(waiting.camera, None)

    worker = threading.Thread(target=work)
    worker.start()
    for number in range(2000):
        queue.put('ab'[number % 2], number, wanted=True)
    queue.close()
    stop.set()
    worker.join()
    for name in 'ab':
        seen = counters(queue, name)
        assert seen.callbacks == 1000
        assert seen.callbacks == seen.processed + seen.dropped + seen.skipped


def test_image_buffer_is_the_messages_own_memory_and_follows_a_new_size():
    buffer = messages.ImageBuffer('32FC1')
    for height, width in ((3, 5), (7, 2)):
        values = np.arange(height * width, dtype=np.float32).reshape(height, width)
        buffer.pixels(height, width)[:] = values
        message = buffer.stamped(Header(frame_id='optical'))
        assert (message.height, message.width, message.step) == (height, width, 4 * width)
        assert message.encoding == '32FC1'
        assert message.header.frame_id == 'optical'
        read = np.frombuffer(message.data, np.float32).reshape(height, width)
        np.testing.assert_array_equal(read, values)


def test_frame_carries_stamp_and_frame_id():
    message = Image(encoding='rgb8', height=1, width=2, step=6, data=bytes(range(6)))
    message.header.stamp.sec, message.header.stamp.nanosec = 12, 34
    message.header.frame_id = 'front_optical'
    ((_, frame),) = FrameDecoder('front').decode(message, None)
    assert (frame.camera, frame.frame_id, frame.stamp_ns) == (
        'front', 'front_optical', 12_000_000_034)  # fmt: skip
    assert frame.image.tolist() == [[[0, 1, 2], [3, 4, 5]]]


def camera_info():
    info = CameraInfo(width=640, height=480)
    info.k = [500.0, 0, 319.5, 0, 510, 239.5, 0, 0, 1]
    info.p = [500.0, 0, 319.5, -25, 0, 510, 239.5, 0, 0, 0, 1, 0]
    return info


def test_camera_info_is_scaled_about_pixel_centres():
    info = camera_info()
    header = Header(frame_id='new')
    half = messages.scaled_camera_info(info, 240, 320, header)
    assert (half.width, half.height, half.header.frame_id) == (320, 240, 'new')
    np.testing.assert_allclose(half.k, [250, 0, 159.5, 0, 255, 119.5, 0, 0, 1])
    np.testing.assert_allclose(half.p[:4], [250, 0, 159.5, -12.5])
    assert info.width == 640, 'the original was changed'
    assert not any(messages.scaled_camera_info(CameraInfo(), 2, 2, header).k)


# binning (0 means 1), region (left, top, width, height; 0 = whole), rectify
VIEWS = [
    ((0, 0), (0, 0, 0, 0)),
    ((1, 1), (0, 0, 0, 0)),
    ((2, 2), (0, 0, 0, 0)),
    ((4, 2), (0, 0, 0, 0)),
    ((2, 0), (0, 0, 640, 480)),
    ((0, 0), (41, 60, 401, 301)),
    ((2, 2), (100, 60, 400, 300)),
    ((3, 2), (101, 61, 301, 203)),
]


def seen_by_a_consumer(info, matrix):
    """image_geometry's reading of K or P: fx, fy, cx, cy, Tx and the image's (height, width)."""
    bins = max(1, info.binning_x), max(1, info.binning_y)
    rows = np.array(matrix).reshape(3, -1)
    fx, fy = rows[0, 0] / bins[0], rows[1, 1] / bins[1]
    cx = (rows[0, 2] - info.roi.x_offset) / bins[0]
    cy = (rows[1, 2] - info.roi.y_offset) / bins[1]
    shift = rows[0, 3] / bins[0] / fx if rows.shape[1] > 3 else 0.0
    width, height = info.roi.width or info.width, info.roi.height or info.height
    return fx, fy, cx, cy, shift, (height // bins[1], width // bins[0])


def consumer_ray(seen, x, y):
    fx, fy, cx, cy, *_ = seen
    return (x - cx) / fx, (y - cy) / fy


def viewed(binning, roi):
    info = camera_info()
    info.d = [0.1, -0.05, 0.001, 0.002, 0.0]
    info.binning_x, info.binning_y = binning
    info.roi.x_offset, info.roi.y_offset, info.roi.width, info.roi.height = roi
    info.roi.do_rectify = any(roi)
    return info


@pytest.mark.parametrize(('binning', 'roi'), VIEWS)
@pytest.mark.parametrize('scale', [1.0, 0.5, 0.3])
def test_a_pixel_and_its_scaled_counterpart_have_the_same_ray(binning, roi, scale):
    info = viewed(binning, roi)
    for matrix in ('k', 'p'):
        before = seen_by_a_consumer(info, getattr(info, matrix))
        height, width = before[-1]
        size = round(height * scale), round(width * scale)
        scaled = messages.scaled_camera_info(info, *size, Header())
        after = seen_by_a_consumer(scaled, getattr(scaled, matrix))
        assert after[-1] == size
        assert (scaled.height, scaled.width) == size, 'for consumers that heed no region'
        assert scaled.d == info.d
        assert after[4] == pytest.approx(before[4]), 'the baseline is metres'
        y, x = size[0] / height, size[1] / width
        for place in ((0.0, 0.0), (37.25, 80.0), (width - 1.0, height - 1.0)):
            there = (place[0] + 0.5) * x - 0.5, (place[1] + 0.5) * y - 0.5
            np.testing.assert_allclose(
                consumer_ray(after, *there), consumer_ray(before, *place), atol=1e-9
            )


@pytest.mark.parametrize(('binning', 'roi'), VIEWS)
def test_markers_of_a_binned_or_cut_image_lie_on_the_boxs_rays(binning, roi):
    info = viewed(binning, roi)
    seen = seen_by_a_consumer(info, info.k)
    box = Obstacle(x=10, y=20, width=40, height=30, area=1200, surprisal=3.0)
    array = messages.obstacle_markers([box], seen[-1], info, Header())
    rectangle = array.markers[1]
    assert rectangle.ns == 'obstacles'
    for point, place in zip(rectangle.points, [(9.5, 19.5), (49.5, 19.5)], strict=False):
        np.testing.assert_allclose((point.x, point.y), consumer_ray(seen, *place), atol=1e-9)


@pytest.mark.parametrize(('binning', 'roi'), VIEWS)
def test_bearings_of_a_binned_or_cut_image_are_the_consumers(binning, roi):
    """Up to the half pixel that a consumer's K / binning leaves out."""
    info = viewed(binning, roi)
    info.d = [0.0] * 5
    seen = seen_by_a_consumer(info, info.k)
    model = camera_model(messages.calibration_of(info), seen[-1])
    ray = model.rays([[60.5, 70.5]])[0]
    np.testing.assert_allclose(ray[:2] / ray[2], consumer_ray(seen, 60, 70), atol=0.5 * 4 / 500)


def test_a_camera_info_without_a_size_or_calibration_stays_and_markers_say_so():
    info = camera_info()
    info.width = 0
    assert messages.scaled_camera_info(info, 2, 2, Header()).k.tolist() == info.k.tolist()
    box = Obstacle(x=1, y=2, width=4, height=3, area=12, surprisal=3.0)
    markers = messages.obstacle_markers([box], (480, 640), info, Header()).markers
    assert 'without_camera_info' in markers[1].ns


def test_markers_project_back_onto_the_box():
    box = Obstacle(x=100, y=200, width=40, height=20, area=700, surprisal=3.0)
    array = messages.obstacle_markers([box], (480, 640), camera_info(), Header())
    clear, rectangle, caption = array.markers
    assert clear.action == clear.DELETEALL
    corners = [(p.x * 500 + 319.5, p.y * 510 + 239.5) for p in rectangle.points]
    np.testing.assert_allclose(corners[0], (99.5, 199.5))
    np.testing.assert_allclose(corners[2], (139.5, 219.5))
    assert corners[0] == corners[-1]
    assert caption.text == '0.9990'
    assert len({(m.ns, m.id) for m in array.markers[1:]}) == 2
    without = messages.obstacle_markers([box], (480, 640), None, Header())
    assert 'without_camera_info' in without.markers[1].ns


def test_annotations_are_every_boxs_four_sides_in_pixels_of_the_image():
    boxes = [
        Obstacle(x=100, y=200, width=40, height=20, area=700, surprisal=3.0),
        Obstacle(x=0, y=0, width=1, height=1, area=1, surprisal=3.0),
    ]
    marker = messages.obstacle_annotations(boxes, Header(frame_id='camera'))
    assert (marker.type, marker.header.frame_id) == (marker.LINE_LIST, 'camera')
    ends = [(point.x, point.y) for point in marker.points]
    sides = {frozenset(pair) for pair in zip(ends[::2], ends[1::2], strict=True)}
    assert len(ends) == 2 * len(sides) == 16
    corners = [(100, 200), (140, 200), (140, 220), (100, 220)]
    turned = (*corners[1:], corners[0])
    assert {frozenset(side) for side in zip(corners, turned, strict=True)} <= sides
    assert frozenset({(0, 0), (1, 0)}) in sides, 'the first pixel ends at its outer corner'
    assert not messages.obstacle_annotations([], Header()).points, 'what was drawn goes'


def fake_vision():
    """Build stand-ins with the fields of vision_msgs, which has no wheel."""

    def maker(**defaults):
        return lambda **given: SimpleNamespace(**{k: v() for k, v in defaults.items()}, **given)

    def box():
        return SimpleNamespace(
            center=SimpleNamespace(position=SimpleNamespace(x=0.0, y=0.0), theta=0.0),
            size_x=0.0,
            size_y=0.0,
        )

    def hypothesis():
        return SimpleNamespace(class_id='', score=0.0)

    return SimpleNamespace(
        Detection2DArray=maker(detections=list),
        Detection2D=maker(bbox=box, results=list),
        ObjectHypothesisWithPose=maker(hypothesis=hypothesis),
        LabelInfo=maker(class_map=list),
        VisionClass=maker(),
    )


def test_detections_and_label_info_with_vision_msgs():
    vision, header = fake_vision(), Header(frame_id='cam')
    box = Obstacle(x=10, y=20, width=4, height=6, area=24, surprisal=2.0)
    message = messages.detections_message(vision, [box, box], header)
    first = message.detections[0]
    assert (first.bbox.center.position.x, first.bbox.center.position.y) == (11.5, 22.5)
    assert (first.bbox.size_x, first.bbox.size_y) == (4.0, 6.0)
    assert first.results[0].hypothesis.score == pytest.approx(0.99)
    assert [d.id for d in message.detections] == ['0', '1']
    assert first.header.frame_id == message.header.frame_id == 'cam'
    info = messages.label_info_message(vision, {0: 'road', 255: 'not scored'}, 0.99, header)
    assert [(c.class_id, c.class_name) for c in info.class_map] == [
        (0, 'road'),
        (255, 'not scored'),
    ]
    assert info.threshold == 0.99


def defaults(**changes):
    values = {spec.name: spec.default for spec in parameters.PARAMETERS}
    return {**values, **changes}


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        ({'false_alarm_rate': 0.0}, ['false_alarm_rate', '0', '(0, 1)']),
        ({'false_alarm_rate': 1.0}, ['false_alarm_rate', '(0, 1)']),
        ({'hysteresis_rate': 0.02}, ['0.02', '0.01', 'stricter']),
        ({'in_distribution': ('road', 'lava')}, ['lava', 'road', 'sky']),
        ({'roi.mode': 'circle'}, ['circle', 'polygon']),
        ({'roi.mode': 'polygon'}, ['roi.polygons', 'empty']),
        ({'roi.polygons': ('0,0 1,1',)}, ['0,0 1,1', '2 points']),
        ({'roi.polygons': ('0,0 1,1 2,0',)}, ['from 0 to 1']),
        ({'roi.polygons': ('0,0 1,1 x',)}, ['not x,y']),
        ({'roi.ignore_polygons': ('rear: 0,0 1,1 1,0',)}, ['rear', 'cameras']),
        ({'confidence_full_scale': 0.0}, ['above 0']),
        ({'cameras': ('front', 'front')}, ['twice']),
        ({'cameras': ('', 'front')}, ['needs a name']),
        ({'cameras': ('my camera',)}, ['my camera', 'letters']),
        ({'cameras': ('1st',)}, ['digit']),
        ({'transport': 'h264'}, ['h264', 'raw, compressed']),
    ],
)
def test_unusable_values_are_refused_with_the_reason(change, words):
    with pytest.raises(ConfigError) as caught:
        parameters.check_values(defaults(**change), known_classes=('road', 'sky'))
    for word in words:
        assert word in str(caught.value)


def test_fixed_parameters_change_only_while_unconfigured():
    change = {'bundle': '/elsewhere'}
    parameters.check_change(defaults(), change, configured=False, known_classes=())
    with pytest.raises(ConfigError, match='bundle cannot change'):
        parameters.check_change(defaults(), change, configured=True, known_classes=())
    parameters.check_change(
        defaults(), {'false_alarm_rate': 0.05}, configured=True, known_classes=('road',)
    )


def test_polygons_of_one_parameter_serve_several_cameras():
    parsed = parse_polygons(
        'p', ['front: 0,0 1,0 1,1', '0,0.5 1,0.5 1,1', '', 'front: 0,0 0,1 1,1']
    )
    assert set(parsed) == {'front', ''}
    assert len(parsed['front']) == 2
    assert parsed[''] == (((0.0, 0.5), (1.0, 0.5), (1.0, 1.0)),)


def test_parameter_file_shows_every_parameter_with_its_default():
    path = ROOT / 'config' / 'road_anomaly.yaml'
    flat = flatten(yaml.safe_load(path.read_text())['/**']['ros__parameters'])
    shown = {n: tuple(v) if isinstance(v, list) else v for n, v in flat.items()}
    assert shown == defaults()
    for spec in parameters.PARAMETERS:
        assert type(shown[spec.name]) is type(spec.default), spec.name


def flatten(tree, prefix=''):
    flat = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f'{prefix}{key}.'))
        else:
            flat[prefix + key] = value
    return flat


def endpoint(reliability):
    profile = SimpleNamespace(reliability=reliability, durability=DurabilityPolicy.VOLATILE)
    return SimpleNamespace(
        qos_profile=profile, node_namespace='/', node_name='driver', topic_type='Image'
    )


def test_auto_reliability_follows_the_publishers():
    reliable, best = endpoint(ReliabilityPolicy.RELIABLE), endpoint(ReliabilityPolicy.BEST_EFFORT)
    assert qos.chosen_reliability('auto', []) == 'best_effort'
    assert qos.chosen_reliability('auto', [reliable, reliable]) == 'reliable'
    assert qos.chosen_reliability('auto', [reliable, best]) == 'best_effort'
    assert qos.chosen_reliability('reliable', [best]) == 'reliable'
    assert qos.describe([best]) == '/driver: best_effort, volatile, type Image'
    best.node_name, best.node_namespace = '_NODE_NAME_UNKNOWN_', '_NODE_NAMESPACE_UNKNOWN_'
    assert qos.describe([best]) == 'a publisher: best_effort, volatile, type Image'


def report(idle=0.1, **counts):
    queue = FrameQueue(['front'])
    empty = queue.reports()[0]
    return SimpleNamespace(
        **{**vars(empty), 'idle': idle, 'counters': Counters(**counts), 'last_error': 'why'}
    )


def situation(**changes):
    values = {
        'topic': '/image', 'publishers': 1, 'offered': '/driver: best_effort',
        'requested': 'best_effort', 'transport': 'default transports', 'timeout': 2.0,
        'state': 'active', 'enabled': True, 'subscribed': True, 'listening': 60.0,
        'minimum_rate': 1.0,
    }  # fmt: skip
    return diagnostics.InputStatus(**{**values, **changes})


@pytest.mark.parametrize(
    ('recent', 'idle', 'changes', 'level', 'words'),
    [
        ({'callbacks': 9, 'failed': 1, 'bad': 2}, 0.1, {}, 'ERROR', ['1 frames failed', 'why']),
        (
            {'callbacks': 9, 'bad': 2, 'processed': 7},
            9.0,
            {},
            'WARN',
            ['2 of 9', 'rejected', 'why'],
        ),
        ({'callbacks': 2, 'bad': 2}, 0.1, {}, 'ERROR', ['2 of 2', 'rejected']),
        ({}, None, {}, 'WARN', ['publisher seen, no frame', '/driver: best_effort', 'default tr']),
        ({}, None, {'publishers': 0}, 'WARN', ['waiting', '/image']),
        ({}, None, {'listening': 0.5}, 'OK', ['waiting for the first frame']),
        ({}, 9.0, {}, 'WARN', ['gone silent', '9.0 s ago', '/driver', 'look at the driver']),
        ({}, 9.0, {'publishers': 0}, 'WARN', ['is gone', '9.0 s ago', 'any more']),
        ({}, 900.0, {}, 'WARN', ['publisher seen, no frame']),
        ({}, 900.0, {'listening': 0.5}, 'OK', ['ok']),
        ({}, None, {'mismatch': 'of another type', 'listening': 0.5}, 'WARN', ['another type']),
        ({}, None, {'mismatch': 'another', 'listening': None}, 'WARN', ['another']),
        ({}, None, {'publishers': 0, 'listening': None}, 'WARN', ['waiting', '/image']),
        ({}, 9.0, {'subscribed': False, 'listening': None}, 'OK', ['camera is not subscribed']),
        ({}, 9.0, {'state': 'inactive', 'listening': None}, 'OK', ['inactive', 'not subscribed']),
        ({}, 0.1, {'state': 'inactive'}, 'OK', ['inactive', 'nothing is computed']),
        ({}, 0.1, {'enabled': False}, 'OK', ['~/enable']),
        ({}, 0.1, {'subscribed': False}, 'OK', ['nobody subscribes']),
        ({'callbacks': 5, 'processed': 5}, 0.1, {}, 'OK', ['ok']),
    ],
)
def test_camera_state_is_the_most_specific(recent, idle, changes, level, words):
    got = diagnostics.camera_level(report(idle), Counters(**recent), situation(**changes))
    assert got[0] == getattr(diagnostics, level)
    for word in words:
        assert word in got[1]


@pytest.mark.parametrize(
    ('arriving', 'processed', 'least', 'level'),
    [
        (30.0, 0.15, 1.0, 'WARN'),
        (30.0, 0.15, 0.0, 'OK'),
        (30.0, 8.0, 1.0, 'OK'),
        (0.2, 0.15, 1.0, 'OK'),  # a camera that is triggered rarely
        (30.0, 0.0, 1.0, 'OK'),  # the first frame is in work
    ],
)
def test_a_node_that_is_too_slow_says_so(arriving, processed, least, level):
    seen = report(0.1)
    seen.input_rate, seen.output_rate = arriving, processed
    got, text = diagnostics.camera_level(seen, Counters(), situation(minimum_rate=least))
    assert got == getattr(diagnostics, level)
    assert ('slow: 0.15 of 30.0' in text) == (level == 'WARN')


def test_viewers_do_not_show_the_nodes_name_twice():
    status = diagnostics.camera_status('/n', report(), Counters(), situation())
    assert (status.name, status.hardware_id) == ('/n: camera front', '/image')
    status = diagnostics.engine_status('/n', diagnostics.EngineStatus(values={'device': 'CPU'}))
    assert (status.name, status.hardware_id) == ('/n: engine', 'CPU')


def test_missing_messages_are_a_warning_in_diagnostics():
    status = diagnostics.outputs_status('/n', ['mask'], 'obstacles are off')
    assert (status.level, status.message) == (diagnostics.WARN, 'obstacles are off')
    status = diagnostics.outputs_status('/n', ['mask'], '')
    assert (status.level, status.message) == (diagnostics.OK, '1 subscribed')


def test_counters_since_others_are_their_growth():
    before = Counters(callbacks=3, bad=1)
    assert Counters(callbacks=7, bad=1).since(before) == Counters(callbacks=4)
    assert Counters().since(before) == Counters(), 'configured anew, counting begins anew'


def test_processing_time_status_has_every_stage_even_before_the_first_frame():
    window = TimingWindow()
    empty = diagnostics.timing_status('/n', window.summary())
    assert {pair.value for pair in empty.values} == {'n/a'}
    for wait in (1.0, 2.0, 9.0):
        window.add(FrameTimes(wait_ms=wait, decode_ms=4, inference_ms=100, publish_ms=0.5))
    full = {p.key: p.value for p in diagnostics.timing_status('/n', window.summary()).values}
    assert full['wait_ms median'] == '2.00'
    assert full['wait_ms last'] == '9.00'
    assert full['own_ms median'] == '4.50', 'wait and engine are not our own time'
    assert set(full) == {f'{s} {k}' for s in STAGES for k in ('median', 'p95', 'last')}


def test_dds_profile_exists_is_named_by_both_variables_and_unknown_names_are_refused():
    path = dds.profile_path('large_images')
    assert path.name == 'dds_large_images.xml'
    assert dds.environment('large_images') == dict.fromkeys(dds.VARIABLES, str(path))
    assert dds.environment('') == {}
    with pytest.raises(ConfigError, match='huge'):
        dds.environment('huge')
    assert str(path) in dds.transport_summary(dds.environment('large_images'))
    assert 'LARGE_DATA' in dds.transport_summary({'FASTDDS_BUILTIN_TRANSPORTS': 'LARGE_DATA'})


@pytest.mark.parametrize('name', ['maritime_obstacle'])
def test_other_parameter_files_hold_known_values_of_the_right_type(name):
    path = ROOT / 'config' / f'{name}.yaml'
    flat = flatten(yaml.safe_load(path.read_text())['/**']['ros__parameters'])
    known = {spec.name: spec for spec in parameters.PARAMETERS}
    for parameter, value in flat.items():
        value = tuple(value) if isinstance(value, list) else value
        assert type(value) is type(known[parameter].default), parameter
    values = {**defaults(), **{n: tuple(v) if isinstance(v, list) else v for n, v in flat.items()}}
    parameters.check_values(values, known_classes=('obstacle', 'water', 'sky'))


@pytest.mark.parametrize('transport', ['ffmpeg', 'foxglove'])
def test_a_transport_whose_messages_are_missing_names_their_package(transport, monkeypatch):
    for package in ('ffmpeg_image_transport_msgs', 'foxglove_msgs'):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DependencyError, match=f'transport {transport} needs .*apt install'):
        inputs.message_type(transport)


def test_a_camera_listens_where_its_transport_publishes(monkeypatch):
    class Video:
        """Stands for foxglove_msgs' class."""

    module = SimpleNamespace(CompressedVideo=Video)
    monkeypatch.setitem(sys.modules, 'foxglove_msgs', SimpleNamespace(msg=module))
    monkeypatch.setitem(sys.modules, 'foxglove_msgs.msg', module)
    made, received = [], []
    node = SimpleNamespace(
        resolve_topic_name=lambda name: f'/robot/{name}',
        get_publishers_info_by_topic=lambda topic: [],
        create_subscription=lambda *arguments, **_: made.append(arguments),
        enabled=True,
    )
    queue = FrameQueue([''])
    queue.put = lambda *pair, wanted: received.append(pair)
    outputs = SimpleNamespace(subscribed=lambda: ['mask'])
    camera = inputs.CameraInput(node, '', defaults(transport='foxglove'), queue, outputs)
    assert not made, 'nothing is subscribed to while the node is not active'
    camera.active = True
    camera.update()
    kind, topic, callback, _ = made[0]
    assert (kind, topic) == (Video, '/robot/image/foxglove')
    stamp = Image().header.stamp
    stamp.sec = 12
    callback(SimpleNamespace(timestamp=stamp, frame_id='lens', format='h264', data=b'1'))
    ((camera, message),) = received
    assert (camera, message.header.stamp.sec, message.header.frame_id) == ('', 12, 'lens')
    assert (message.format, message.data) == ('h264', b'1')
