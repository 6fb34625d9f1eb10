# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Two bundles on one recording: evaluate_bag --adapted."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from bundles import write_tiny_bundle

from ood_perception.cli.evaluate_bag import evaluate_bag
from ood_perception.postprocess.calibration import HeldOutSample

pytest.importorskip('rosbags')
pytest.importorskip('jinja2')

from bag_files import two_cameras, write_bag


def bundle(path, scale, **options):
    """Return a bundle whose road surprisal was held out at a scale: a larger one flags less."""
    surprisal = np.random.default_rng(0).exponential(scale, (2000, 1)).astype(np.float32)
    ones = np.ones(2000, np.float32)
    sample = HeldOutSample(('Road',), surprisal, np.zeros(2000, np.uint8), ones)
    return write_tiny_bundle(path, classes=('Road',), held_out=sample, **options)


def test_what_changes_is_counted_shown_and_kept_for_labelling(tmp_path, capsys):
    bag = write_bag(tmp_path / 'bag', two_cameras(4))
    before, after = bundle(tmp_path / 'before', 0.001), bundle(tmp_path / 'after', 0.2)
    out = tmp_path / 'out'
    options = ['--precision', 'f32', '--threads', '1', '--out', str(out)]
    command = [str(bag), '--bundle', str(before), '--adapted', str(after), *options]
    assert evaluate_bag(command) == 0
    report = json.loads((out / 'report.json').read_text())
    assert report['frames'] == 8
    assert report['flagged_after'] < report['flagged_before']
    rows = list(csv.DictReader((out / 'frames.csv').open()))
    assert len(rows) == 8
    most = max(rows, key=lambda row: float(row['changed']))
    names = [path.name for path in (out / 'to_label').iterdir()]
    assert f'{most["camera"]}_{int(most["index"]):06d}.png' in names
    assert 'data:image/jpeg' in (out / 'index.html').read_text()
    assert evaluate_bag(command) == 1
    assert 'give a new folder' in capsys.readouterr().err


def test_heads_of_other_sizes_are_compared_in_pixels_and_where_they_disagree_is_kept(tmp_path):
    bag = write_bag(tmp_path / 'bag', two_cameras(4))
    small = bundle(tmp_path / 'small', 0.001)
    large = bundle(tmp_path / 'large', 0.2, height=112, width=168, upsampling=1)
    out = tmp_path / 'out'
    options = ['--precision', 'f32', '--threads', '1', '--out', str(out)]
    assert evaluate_bag([str(bag), '--bundle', str(small), '--adapted', str(large), *options]) == 0
    rows = list(csv.DictReader((out / 'frames.csv').open()))
    assert all(0 < float(row['changed']) <= 1 for row in rows)
    assert all(float(row['disagreement']) > 0 for row in rows)
    assert 'The scores disagree most' in (out / 'index.html').read_text()


def test_a_bundle_agrees_with_itself(tmp_path):
    bag = write_bag(tmp_path / 'bag', two_cameras(2))
    one, out = str(bundle(tmp_path / 'one', 0.001)), tmp_path / 'out'
    options = ['--precision', 'f32', '--threads', '1', '--out', str(out)]
    assert evaluate_bag([str(bag), '--bundle', one, '--adapted', one, *options]) == 0
    for row in csv.DictReader((out / 'frames.csv').open()):
        assert float(row['changed']) == float(row['disagreement']) == 0
        assert float(row['before']) == float(row['after'])
