# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The whole demo with the real node in its own process, on a tiny bundle."""

import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
from bundles import road_image
from limits import HANGS
from paths import ROOT

from ood_perception.requirements import install_command

pytest.importorskip('rclpy')
pytestmark = pytest.mark.ros
SIDE = 90


@pytest.fixture(scope='module')
def labelled(tmp_path_factory):
    """Five images with a labelled object that moves."""
    folder = tmp_path_factory.mktemp('labelled')
    for kind in ('images', 'labels'):
        (folder / kind).mkdir()
    for number in range(5):
        x = 20 + 25 * number
        image = road_image(180, 240, obstacle=(x, 80, SIDE, SIDE), seed=number)
        labels = np.zeros((180, 240), np.uint8)
        labels[:45] = 255
        labels[80 : 80 + SIDE, x : x + SIDE] = 1
        cv2.imwrite(str(folder / 'images' / f'{number}.png'), image[..., ::-1])
        cv2.imwrite(str(folder / 'labels' / f'{number}.png'), labels)
    return folder


def demo(*words, **variables):
    environment = {key: value for key, value in os.environ.items() if key != 'OOD_DATA'}
    return subprocess.run(
        [sys.executable, '-m', 'ood_perception.ros.tools.demo', *map(str, words)],
        cwd=ROOT, env={**environment, **variables}, capture_output=True, text=True, timeout=HANGS,
    )  # fmt: skip


def test_frames_go_through_camera_node_and_page(tiny_bundle, labelled, tmp_path):
    done = demo('--input', labelled, '--bundle', tiny_bundle, '--out', tmp_path, '--rate', '2',
                '--false-alarm-rate', '0.05')  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'demo passed' in done.stdout
    assert 'object found 5 of 5 times' in done.stdout
    assert str(tmp_path / 'index.html') in done.stdout
    page = ' '.join((tmp_path / 'index.html').read_text(encoding='utf-8').split())
    assert '5 published, 5 processed, 0 dropped' in page
    assert len(list(tmp_path.glob('*_overlay.jpg'))) == 5


def test_an_object_that_is_not_flagged_fails_the_demo(tiny_bundle, labelled, tmp_path):
    for path in (labelled / 'images').iterdir():
        (tmp_path / 'images').mkdir(exist_ok=True)
        plain = road_image(180, 240)
        cv2.imwrite(str(tmp_path / 'images' / path.name), plain[..., ::-1])
    (tmp_path / 'labels').symlink_to(labelled / 'labels')
    done = demo('--input', tmp_path, '--bundle', tiny_bundle, '--out', tmp_path / 'out')
    assert done.returncode == 1
    assert 'demo FAILED: the object was found 0 of 5 times' in done.stderr
    assert 'failed: the object was found 0 of 5 times' in (tmp_path / 'out/index.html').read_text()


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (('--input', '/nowhere/to/be/seen'), 'does not exist'),
        (('--bundle', '/nowhere/bundle'), 'bundle /nowhere/bundle'),
        (('--engine', 'abacus'), 'abacus'),
        (('--frames', '0'), '--frames'),
        (('--out', '/proc/out'), '--out /proc/out'),
    ],
)
def test_a_mistake_is_one_plain_message(tiny_bundle, labelled, tmp_path, words, message):
    defaults = {'--input': labelled, '--bundle': tiny_bundle, '--out': tmp_path}
    defaults.update(dict([words]))
    done = demo(*(word for pair in defaults.items() for word in pair))
    assert done.returncode == 1
    assert 'demo FAILED' in done.stderr
    assert message in done.stderr
    assert 'Traceback' not in done.stderr


def test_a_node_that_dies_is_reported_with_its_log(tiny_bundle, labelled, tmp_path):
    done = demo('--input', labelled, '--bundle', tiny_bundle, '--out', tmp_path,
                '--false-alarm-rate', '2.0')  # fmt: skip
    assert done.returncode == 1
    assert 'false_alarm_rate' in done.stderr
    assert 'Traceback' not in done.stderr


def test_without_ros_the_demo_says_what_to_install(tmp_path):
    (tmp_path / 'rclpy.py').write_text("raise ImportError('no rclpy here')")
    done = demo('--out', tmp_path / 'out', PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert install_command('ros') in done.stderr
    assert 'Traceback' not in done.stderr
