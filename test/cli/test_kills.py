# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A program that is killed at any moment leaves the old result whole, or the new one."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bag_files import two_cameras, write_bag
from bundles import write_tiny_bundle

from ood_perception.cli.evaluate_bag import evaluate_bag

ROUNDS = int(os.environ.get('OOD_KILLS', '4'))  # more of them: OOD_KILLS=100


def whole(folder):
    """Return the report of a result in which nothing is missing."""
    report = json.loads((folder / 'report.json').read_text())
    assert (folder / 'index.html').read_text().rstrip().endswith('</html>')
    assert len((folder / 'frames.csv').read_text().splitlines()) == 1 + 8
    assert (folder / 'result' / 'metadata.yaml').stat().st_size > 0
    return report


@pytest.mark.slow
def test_evaluate_bag_killed_over_an_old_result(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_bag(Path('bag'), two_cameras())
    words = ['bag', '--bundle', str(write_tiny_bundle('tiny')), '--out', 'out']
    words += ['--engine', 'openvino', '--precision', 'f32']
    start = time.monotonic()
    command = [sys.executable, '-m', 'ood_perception.cli.evaluate_bag', *words]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    lasts, first = time.monotonic() - start, whole(Path('out'))
    draw = random.Random(0)
    for _ in range(ROUNDS):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        time.sleep(lasts * draw.uniform(0.3, 1.0))
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert whole(Path('out')) == first
    assert evaluate_bag(words) == 0
    assert whole(Path('out')) == first
    assert sorted(path.name for path in Path().iterdir()) == ['bag', 'out', 'tiny']
