# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A real Ray cluster on this machine: a killed worker, a killed driver, a damaged recording."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
from limits import HANGS

pytest.importorskip('ray')
pytest.importorskip('rosbags')

from bundles import write_tiny_bundle
from paths import ROOT
from recordings import cut, write_fleet

from ood_perception.cli.evaluate_bag import FAILED, WITH_SKIPPED, evaluate_bag


def finished(out):
    """Return the entries of a ledger."""
    return [json.loads(path.read_text()) for path in out.glob('ledger/*.json')]


def wait_for(count, out, process):
    """Wait until a ledger has so many entries."""
    deadline = time.monotonic() + HANGS
    while len(finished(out)) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_cluster_that_has_no_room_is_told_in_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
    write_fleet(tmp_path / 'fleet', 1)
    bundle = write_tiny_bundle(tmp_path / 'tiny')
    words = [tmp_path / 'fleet', '--bundle', bundle, '--engine', 'tensorrt']
    words += ['--ray', 'local', '--workers', '1', '--out', tmp_path / 'out']
    assert evaluate_bag([*map(str, words)]) == FAILED
    assert 'no room for a worker of 1 CPU and 1 GPU' in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_worker_and_a_killed_driver_cost_what_they_had_in_hand(tmp_path):
    files = write_fleet(tmp_path / 'fleet', 12, frames=12)
    cut(files[3])
    out = tmp_path / 'out'
    bundle = write_tiny_bundle(tmp_path / 'tiny', height=98, width=126)
    words = [tmp_path / 'fleet', '--bundle', bundle, '--threads', '1', '--precision', 'f32']
    words += ['--ray', 'local', '--workers', '2', '--out', out]
    command = [sys.executable, '-m', 'ood_perception.cli.evaluate_bag', *map(str, words)]

    def start():
        return subprocess.Popen(command, cwd=ROOT, text=True, stderr=subprocess.PIPE)

    driver = start()
    wait_for(2, out, driver)
    driver.kill()
    driver.communicate()
    before = {path: path.stat().st_mtime_ns for path in out.glob('recordings/*/report.json')}
    driver = start()
    wait_for(len(before) + 2, out, driver)
    last = max(out.glob('ledger/*.json'), key=lambda path: path.stat().st_mtime_ns)
    os.kill(int(json.loads(last.read_text())['worker'].rpartition(':')[2]), signal.SIGKILL)
    _, printed = driver.communicate(timeout=HANGS)
    assert driver.returncode == WITH_SKIPPED, printed
    assert {path: path.stat().st_mtime_ns for path in before} == before
    report = json.loads((out / 'report.json').read_text())
    assert report['done'] == 11
    assert Counter(row['recording'] for row in report['rows']).most_common(1)[0][1] == 1
    assert report['cameras'][0]['evaluated'] == 11 * 12
    (failed,) = report['failed']
    assert failed['recording'] == str(files[3].parent)
