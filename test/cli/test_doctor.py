# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""ood doctor on this machine, on a bare one, without ROS, on an old CPU."""

import ast
import json
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest
from limits import HANGS
from paths import ROOT

from ood_perception import cpu_flags
from ood_perception.cli import doctor
from ood_perception.requirements import Requirement

# as in test/old_cpu.sh: without what qemu warns of
AVX2_ALONE = 'Haswell-noTSX,-pcid,-x2apic,-tsc-deadline,-invpcid'
pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')


def found(*states):
    return [doctor.Finding(topic, state, '') for topic, state in states]


@pytest.mark.parametrize(
    ('states', 'status'),
    [
        ([('packages', 'ok'), ('ROS 2', 'ok'), ('vision_msgs', 'note')], 0),
        ([('packages', 'ok'), ('ROS 2', 'missing')], 3),
        ([('packages', 'missing'), ('ROS 2', 'ok')], 1),
        ([('runtimes', 'missing'), ('ROS 2', 'missing')], 1),
        ([('cache', 'missing')], 1),
    ],
)
def test_the_exit_status_says_what_can_run(states, status):
    assert doctor.status_of(found(*states)) == status


def run(python, *options, cwd=ROOT, **variables):
    environment = {**os.environ, 'PYTHONPATH': str(cwd), **variables}
    done = subprocess.run(
        [*python, '-m', 'ood_perception.cli.doctor', *options],
        capture_output=True, text=True, timeout=HANGS, env=environment, cwd=cwd, check=False,
    )  # fmt: skip
    assert not done.stderr, done.stderr
    return done.returncode, done.stdout


def test_a_python_with_nothing_installed_is_told_what_is_missing(tmp_path):
    """-S: no site-packages, so no numpy, no cv2 and no metadata: nothing of that is imported."""
    (tmp_path / 'ood_perception').symlink_to(ROOT / 'ood_perception')  # no egg-info beside it
    status, text = run([sys.executable, '-S'], cwd=tmp_path, OOD_PERCEPTION_CACHE=str(tmp_path))
    assert status == 1
    assert 'ood_perception itself is not installed' in text
    assert 'rclpy' in text
    assert '(exit status 1)' in text


def test_this_environment_is_reported_as_json(tmp_path):
    status, text = run([sys.executable], '--json', OOD_PERCEPTION_CACHE=str(tmp_path / 'none'))
    values = json.loads(text)
    rows = {row['topic']: row for row in values['findings']}
    assert values['status'] == status
    assert f'its pip: {sys.executable} -m pip' in rows['system']['text']
    assert rows['packages']['state'] == 'ok', rows['packages']
    assert 'numpy' in rows['packages']['text']
    assert rows['cache']['state'] == 'note'
    assert 'ood compile' in rows['cache']['remedy']
    assert not (tmp_path / 'none').exists(), 'looking makes nothing'


def test_what_lacks_is_named_with_what_installs_it(monkeypatch):
    wanted = [Requirement('numpy', '>=99'), Requirement('no-such-package', '>=1')]
    finding = doctor._packages(wanted)
    assert finding.state == 'missing'
    assert 'is not >=99' in finding.text
    assert finding.remedy == "pip install 'numpy>=99' 'no-such-package>=1'"


def test_without_ros_it_says_what_to_source_or_install(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, 'has_module', lambda name: name != 'rclpy')
    monkeypatch.setattr(doctor, 'ROS_FOLDER', tmp_path)
    [finding] = doctor._ros()
    assert (finding.state, finding.text) == ('missing', 'rclpy cannot be found')
    assert 'docs/install.md' in finding.remedy
    (tmp_path / 'jazzy').mkdir()
    (tmp_path / 'jazzy' / 'setup.bash').touch()
    [finding] = doctor._ros()
    assert finding.remedy == f'source {tmp_path}/jazzy/setup.bash'


def test_a_missing_vision_msgs_is_a_note_of_what_is_off(monkeypatch):
    monkeypatch.setattr(doctor, 'has_module', lambda name: name != 'vision_msgs')
    monkeypatch.setattr(doctor, 'find_spec', lambda _: None)
    monkeypatch.setattr(doctor, '_wheels', lambda: '')
    monkeypatch.setenv('ROS_DISTRO', 'jazzy')
    notes = [finding for finding in doctor._ros() if finding.state == 'note']
    assert [note.topic for note in notes] == ['vision_msgs']
    assert 'obstacles' in notes[0].text
    assert notes[0].remedy == 'apt install ros-jazzy-vision-msgs'


def test_ros_of_another_python_is_told(monkeypatch, tmp_path):
    """An environment of another Python finds the modules of /opt/ros and cannot load them."""
    place = tmp_path / 'python3.2' / 'site-packages'
    place.mkdir(parents=True)
    (place / 'ros_of_old.py').touch()
    monkeypatch.syspath_prepend(place)
    assert doctor._python_of('ros_of_old') == '3.2'
    monkeypatch.setattr(doctor, 'has_module', lambda _: True)
    monkeypatch.setattr(doctor, '_python_of', lambda _: '3.2')
    [finding] = doctor._ros()
    assert finding.state == 'missing'
    assert "Python 3.2's" in finding.text
    assert 'python3.2' in finding.remedy


@pytest.mark.parametrize('here', [True, False])
def test_a_gpu_is_named_with_what_it_lacks(monkeypatch, tmp_path, here):
    script = tmp_path / 'nvidia-smi'
    script.write_text('#!/bin/sh\necho "NVIDIA L4, 8.9, 23034 MiB, 570.1"\n')
    script.chmod(0o755)
    monkeypatch.setenv('PATH', str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(doctor, 'has_module', lambda _: here)
    finding = doctor._gpu()
    assert finding.text.startswith('NVIDIA L4, 8.9, 23034 MiB, 570.1')
    assert finding.state == ('ok' if here else 'note')
    assert ('docs/tensorrt.md' in finding.remedy) is not here


def test_the_modules_of_ros_are_those_of_the_package():
    depends = {one.text for one in ET.parse(ROOT / 'package.xml').findall('exec_depend')}
    assert {*doctor.ROS_MODULES, *doctor.ROS_OPTIONAL} <= depends


def test_every_engine_is_looked_for():
    source = ROOT / 'ood_perception' / 'engines' / '__init__.py'
    table = next(
        ast.literal_eval(node.value)
        for node in ast.parse(source.read_text()).body
        if isinstance(node, ast.Assign) and node.targets[0].id == 'ENGINES'
    )
    assert set(table) <= set(doctor.RUNTIMES)


def test_a_cache_that_cannot_be_written_is_missing(monkeypatch, tmp_path):
    monkeypatch.setenv('OOD_PERCEPTION_CACHE', str(tmp_path / 'a' / 'b'))
    monkeypatch.setattr(os, 'access', lambda *_: False)
    finding = doctor._cache()
    assert finding.state == 'missing'
    assert 'OOD_PERCEPTION_CACHE' in finding.remedy


@pytest.mark.parametrize(
    ('flags', 'words'),
    [
        (['sse4_2'], 'older than AVX2'),
        (['sse4_2', 'avx2'], 'f32 with OpenVINO'),
        (['avx2', 'avx512f'], '7-bit weights'),
        (['avx2', 'avx_vnni'], 'int8 is fast'),
        (['avx2', 'avx512f', 'avx512_vnni', 'avx512_bf16'], 'int8 and bf16 are fast'),
        (['asimd', 'asimddp'], 'int8 is fast'),
        (['asimd'], 'int8 gains nothing'),
    ],
)
def test_what_follows_from_flags(flags, words):
    assert words in cpu_flags.what_follows(flags)


def test_the_cpu_tells_no_less_than_the_kernel():
    """On a real CPU both agree; an emulated one tells less than the kernel names."""
    assert set(cpu_flags.cpu_flags()) <= set(cpu_flags.kernel_flags())


@pytest.mark.parametrize(
    ('cpu', 'words', 'not_words'),
    [
        (AVX2_ALONE, 'sse4_2, avx2: f32 with OpenVINO', 'avx512'),
        ('Nehalem', 'sse4_2: f32, and slowly', 'avx2'),
    ],
)
def test_an_emulated_old_cpu_is_read_as_what_it_is(cpu, words, not_words):
    qemu = shutil.which('qemu-x86_64')
    if not qemu:
        pytest.skip('qemu-x86_64 not found (Debian/Ubuntu: apt install qemu-user)')
    _, text = run([qemu, '-cpu', cpu, os.path.realpath(sys.executable)])
    line = next(line for line in text.splitlines() if ' CPU ' in line)
    assert words in line
    assert not_words not in line.partition('. Emulated')[0]
