# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""evaluate_bag --rrd: the file beside the report, and a refusal before the work without rerun."""

import sys

import pytest

pytest.importorskip('rosbags')

from bag_files import two_cameras, write_bag
from bundles import write_tiny_bundle

from ood_perception.bags.replay import RRD
from ood_perception.cli.evaluate_bag import FAILED, FINE, evaluate_bag


@pytest.fixture
def arguments(tmp_path):
    bundle = write_tiny_bundle(tmp_path / 'tiny', height=98, width=126)
    bag = write_bag(tmp_path / 'bag', two_cameras())
    options = ['--bundle', str(bundle), '--threads', '1', '--roi-mode', 'none']
    return [str(bag), *options, '--out', str(tmp_path / 'out'), '--rrd']


def test_the_file_lies_beside_the_report(arguments, tmp_path, capsys):
    pytest.importorskip('rerun', reason='needs rerun-sdk')
    assert evaluate_bag(arguments) == FINE
    assert (tmp_path / 'out' / RRD).read_bytes()[:3] == b'RRF', 'the format that rerun opens'
    assert f'rerun {tmp_path / "out" / RRD}' in capsys.readouterr().out
    assert evaluate_bag(arguments[:-1]) == FINE
    assert not (tmp_path / 'out' / RRD).exists(), 'nothing of an earlier run stays'


def test_without_rerun_nothing_is_begun(arguments, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, 'rerun', None)
    assert evaluate_bag(arguments) == FAILED
    assert 'error: --rrd needs rerun-sdk' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()
