# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Unknown bundles are loaded in a process of its own first; real processes, which really die."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import onnx
import pytest
from bundles import write_manifest, write_tiny_bundle
from limits import HANGS

from ood_perception import engines
from ood_perception.bundle.store import load_bundle, shipped_bundles
from ood_perception.engines import create_engine, trial
from ood_perception.engines.base import EngineOptions
from ood_perception.engines.trial import Limits, is_known, remember, try_first
from ood_perception.errors import BundleError, EngineError

OPTIONS = EngineOptions('openvino', 'f32', threads=1)
LIMITS = Limits(seconds=HANGS)


@pytest.fixture
def unknown(tiny_bundle, tmp_path, monkeypatch):
    """A bundle that an empty cache has never seen."""
    monkeypatch.setenv('OOD_PERCEPTION_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setattr(engines, 'try_first', try_first)
    return load_bundle(tiny_bundle)


@pytest.fixture
def runtime(tmp_path, monkeypatch):
    """Return a function that puts a module `openvino` of some lines before the real one."""

    def put(code):
        (tmp_path / 'first').mkdir()
        (tmp_path / 'first' / 'openvino.py').write_text(code)
        monkeypatch.syspath_prepend(tmp_path / 'first')

    return put


def no_process(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError('a process was started')

    monkeypatch.setattr(subprocess, 'Popen', refuse)


def test_an_unknown_bundle_is_tried_once(unknown, monkeypatch):
    create_engine(unknown, OPTIONS).close()

    no_process(monkeypatch)
    create_engine(unknown, OPTIONS).close()


def test_another_runtime_is_another_trial(unknown):
    remember(unknown.sha256, 'openvino')
    assert is_known(unknown, 'openvino')
    assert not is_known(unknown, 'onnxruntime')


@pytest.mark.parametrize('name', sorted(shipped_bundles()))
def test_shipped_bundles_and_copies_of_them_are_known(unknown, name, tmp_path):
    copy = shutil.copytree(shipped_bundles()[name], tmp_path / 'copy')
    assert is_known(load_bundle(copy), 'openvino')


def test_what_one_byte_tells_from_a_known_bundle_is_unknown(unknown, tmp_path):
    remember(unknown.sha256)
    assert is_known(unknown, 'openvino')

    copy = shutil.copytree(unknown.root, tmp_path / 'copy')
    with (copy / 'manifest.json').open('a') as file:
        file.write(' ')
    assert not is_known(load_bundle(copy), 'openvino')


def test_a_runtime_that_crashes_is_one_error_and_not_remembered(unknown, runtime):
    runtime('import os, signal; os.kill(os.getpid(), signal.SIGSEGV)')

    with pytest.raises(EngineError, match=r'its trial was ended by SIGSEGV.*--trust'):
        try_first(unknown, OPTIONS, LIMITS)
    assert not is_known(unknown, 'openvino')


def test_a_process_that_just_ends_is_an_error(unknown, runtime):
    runtime("import os, sys; print('no such thing', file=sys.stderr, flush=True); os._exit(3)")

    with pytest.raises(EngineError, match=r'its trial ended with status 3 \(no such thing\)'):
        try_first(unknown, OPTIONS, LIMITS)


def test_a_trial_that_does_not_end_is_ended(unknown, runtime):
    runtime('import time; time.sleep(10_000)')

    with pytest.raises(EngineError, match='its trial did not end within 3 s'):
        try_first(unknown, OPTIONS, Limits(seconds=3))


def test_a_trial_that_takes_too_much_memory_is_ended(unknown, runtime):
    runtime('import time; block = bytearray(b"x" * (1 << 30)); time.sleep(10_000)')

    with pytest.raises(EngineError, match=r'its trial took more than 0\.7 GiB of memory'):
        try_first(unknown, OPTIONS, Limits(seconds=HANGS, memory=700 << 20))


def test_what_is_wrong_with_the_bundle_is_said_as_it_is(unknown, tmp_path, monkeypatch):
    root = write_tiny_bundle(tmp_path / 'bad')
    model = onnx.load(root / 'head.onnx')
    model.graph.node.append(onnx.helper.make_node('NonZero', ['logits'], ['o']))
    (root / 'head.onnx').write_bytes(model.SerializeToString())
    write_manifest(root, json.loads((root / 'manifest.json').read_text()), known=False)

    with pytest.raises(BundleError, match='operator NonZero'):
        create_engine(load_bundle(root), OPTIONS)
    no_process(monkeypatch)
    with pytest.raises(AssertionError, match='a process was started'):
        create_engine(load_bundle(root), OPTIONS)


def test_a_bundle_that_changes_meanwhile_is_refused(unknown, tmp_path):
    root = shutil.copytree(unknown.root, tmp_path / 'own')
    bundle = load_bundle(root)
    with (root / 'manifest.json').open('a') as file:
        file.write('\n')

    with pytest.raises(BundleError, match='changes while it is loaded'):
        try_first(bundle, OPTIONS, LIMITS)


def test_modules_in_the_working_directory_are_not_imported(unknown, tmp_path, monkeypatch):
    place = tmp_path / 'here'
    place.mkdir()
    for name in ('json', 'openvino', 'numpy', 'ood_perception'):
        (place / f'{name}.py').write_text('import os; os._exit(7)')
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, 'path', [path for path in sys.path if path not in ('', '.')])

    try_first(unknown, OPTIONS, LIMITS)


def test_a_killed_program_leaves_no_trial_behind(unknown, runtime, tmp_path):
    runtime(f'import os, time; open({str(tmp_path / "pid")!r}, "w").write(str(os.getpid())); '
            'time.sleep(10_000)')  # fmt: skip
    code = (
        'from ood_perception.bundle.store import load_bundle; '
        'from ood_perception.engines.trial import try_first; '
        'from ood_perception.engines.base import EngineOptions; '
        f'try_first(load_bundle({str(unknown.root)!r}), EngineOptions("openvino"))'
    )
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, sys.path))}
    program = subprocess.Popen([sys.executable, '-c', code], env=environment)
    try:
        trial_pid = waited_for(lambda: (tmp_path / 'pid').is_file() and read(tmp_path / 'pid'))
    finally:
        program.send_signal(signal.SIGKILL)
        program.wait()
    waited_for(lambda: not is_running(trial_pid))


def read(path):
    return path.read_text()


def is_running(pid):
    """A zombie that nobody has waited for yet has ended."""
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except FileNotFoundError:
        return False


def waited_for(condition):
    end = time.monotonic() + HANGS
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError('it never came')


def test_rules_that_change_forget_what_older_ones_accepted(unknown, monkeypatch):
    remember(unknown.sha256, 'openvino')
    monkeypatch.setattr(trial, 'RULES', trial.RULES + 1)
    assert not is_known(unknown, 'openvino')
