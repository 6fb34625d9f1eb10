# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What is written as JSON is JSON: RFC 8259 knows neither NaN nor Infinity."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ood_perception.evaluation import results
from ood_perception.json_files import json_text, write_json
from ood_perception.metrics import binning as bins

VALUES = {'a': [1.5, float('nan'), (float('inf'), -np.float64('inf'))], 'b': {'c': 'NaN ü'}}
PLAIN = {'a': [1.5, None, [None, None]], 'b': {'c': 'NaN ü'}}


def strict(text):
    """Parse JSON without Python's own additions."""

    def refuse(word):
        raise AssertionError(f'{word} is no JSON')

    return json.loads(text, parse_constant=refuse)


def test_what_is_not_finite_becomes_null(tmp_path):
    assert strict(json_text(VALUES)) == PLAIN
    for write in (write_json, results.write_json):
        write(tmp_path / 'values.json', VALUES)
        assert strict((tmp_path / 'values.json').read_text(encoding='utf-8')) == PLAIN


def test_the_trainers_writers_are_strict_too(tmp_path):
    pytest.importorskip('torch', reason='the trainer needs torch')
    from trainer import artifacts, features
    from trainer.export import pack

    for module in (artifacts, features, pack):
        module.write_json(tmp_path / 'values.json', VALUES)
        assert strict((tmp_path / 'values.json').read_text(encoding='utf-8')) == PLAIN


def test_the_threshold_of_the_best_f1_is_a_number_where_everything_is_an_anomaly():
    """The best F1 flags all pixels: its threshold is the least surprisal, 0."""
    positives, negatives = np.zeros((2, bins.BINS), np.int64)
    positives[0], negatives[0] = 90, 10
    found = bins.binned_metrics(positives, negatives)
    assert found.best_f1_threshold == 0.0
    assert found.best_f1.value == pytest.approx(2 * 90 / (90 + 10 + 90))
    scores = np.array([0.0, 1e-6, 2.0**-11], np.float32)
    assert (scores >= bins.lower_edges()[bins.bin_of(scores)]).all()
