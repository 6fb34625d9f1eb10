# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The real node told to use a GPU that is not there: refused, or visibly degraded on the CPU."""

import os

import numpy as np
import pytest

rclpy = pytest.importorskip('rclpy')
pytest.importorskip('openvino')

from bundles import write_tiny_bundle  # noqa: E402
from ros_rig import Image, Rig, isolate, photo  # noqa: E402
from tensorrt_facts import skip_where_a_gpu_is  # noqa: E402

from ood_perception.ros.diagnostics import ERROR, WARN  # noqa: E402

pytestmark = pytest.mark.ros


@pytest.fixture
def rig(tmp_path):
    skip_where_a_gpu_is()
    isolate(os.environ)
    path = write_tiny_bundle(tmp_path / 'tiny', height=126, width=168, upsampling=7)
    made = []

    def make(**values):
        rig = Rig(**{'bundle': str(path), 'roi__mode': 'none', 'threads': 1, **values})
        made.append(rig)
        return rig

    yield make
    for rig in made:
        rig.__exit__()


@pytest.mark.parametrize('policy', ['compile', 'error'])
def test_without_a_gpu_the_node_says_why_it_does_not_start(rig, policy):
    rig = rig(engine='tensorrt', on_missing_engine=policy)

    assert not rig.node.autostart()
    level, text, _ = rig.status('engine', lambda s: 'failed' in s[1])

    assert level == ERROR
    assert 'no usable NVIDIA driver' in text or 'needs its package' in text or 'cuda' in text
    assert rig.set(engine='auto').successful  # and it can be corrected without a restart
    assert rig.node.autostart(), rig.node.start_error


def test_with_fallback_cpu_it_works_on_and_warns(rig):
    rig = rig(engine='tensorrt', precision='fp16', on_missing_engine='fallback_cpu').start()
    heard = rig.listen('score', Image)
    camera = rig.camera()

    stamp = rig.send(camera, photo())
    rig.wait(lambda: heard, 'a score')
    level, text, values = rig.status('engine', lambda s: s[1].startswith('ready'))

    assert (heard[0].header.stamp.sec, heard[0].header.stamp.nanosec) == stamp
    assert np.isfinite(np.frombuffer(bytes(heard[0].data), np.float32)).any()
    assert level == WARN
    assert 'degraded, the CPU engine runs instead of tensorrt: ' in text
    assert values['runtime'] == 'openvino'


def test_classes_compiled_later_keep_the_warning(rig):
    rig = rig(engine='tensorrt', on_missing_engine='fallback_cpu').start()

    assert rig.set(in_distribution=['Road', 'Sky']).successful
    _, text, values = rig.status(
        'engine', lambda s: 'Sky' in s[2].get('compiled_classes', '') and 'ready' in s[1]
    )

    assert 'degraded' in text
    assert values['runtime'] == 'openvino'


def test_a_cpu_engine_does_not_fall_back_to_itself(rig):
    rig = rig(engine='openvino', precision='fp64', on_missing_engine='fallback_cpu')

    assert not rig.node.autostart()
    assert "precision 'fp64'" in rig.node.start_error


def test_an_unknown_policy_is_refused_with_the_choices(rig):
    with pytest.raises(Exception, match='use one of compile, error, fallback_cpu'):
        rig(on_missing_engine='ignore')
