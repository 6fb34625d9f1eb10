# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip('torch')

from ood_perception.errors import ConfigError
from ood_perception.evaluation.reports import markdown_table, metric_cell, percent
from ood_perception.metrics.pixel import exact_metrics, scored_picture
from trainer.experiments.results import ResultFolder
from trainer.experiments.rows import Row, rows_from

BASE = {'etalons': 200, 'upsampling': 7}


def test_rows_override_the_base():
    rows = rows_from(BASE, [{'name': 'a'}, {'name': 'b', 'upsampling': 1, 'classes': []}])
    assert (rows[0].etalons, rows[0].upsampling) == (200, 7)
    assert (rows[1].upsampling, rows[1].classes) == (1, ())


def test_rows_that_differ_only_in_serving_share_their_fit():
    rows = rows_from(
        BASE,
        [
            {'name': 'a'},
            {'name': 'b', 'upsampling': 1, 'resolution': 2, 'selection': 'unified'},
            {'name': 'c', 'etalons': 50},
        ],
    )
    assert rows[0].fit_key() == rows[1].fit_key() != rows[2].fit_key()
    assert len({row.key() for row in rows}) == 3


def test_a_name_is_no_part_of_a_rows_key():
    first, second = (rows_from(BASE, [{'name': name}])[0] for name in 'ab')
    assert first.key() == second.key()


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ({'name': 'a', 'etalon': 5}, "unknown keys \\['etalon'\\]"),
        ({'etalons': 5}, 'row None'),
        ({'name': 'a', 'etalons': 'many'}, "etalons is 'many', expected a int"),
        ({'name': 'a', 'reinitialise': 1}, 'expected a bool'),
        ({'name': 'a', 'selection': 'max'}, "selection 'max' is unknown"),
        ({'name': 'a', 'upsampling': 9}, 'not in 1..7'),
    ],
)
def test_bad_rows_are_named(values, message):
    with pytest.raises(ConfigError, match=message):
        rows_from({}, [values])


def test_names_must_not_repeat():
    with pytest.raises(ConfigError, match='repeated'):
        rows_from({}, [{'name': 'a'}, {'name': 'a'}])


def make_pictures(gain, count=6):
    rng = np.random.default_rng(0)
    pictures = []
    for _ in range(count):
        labels = (rng.random((30, 40)) < 0.1).astype(np.uint8)
        scores = rng.gamma(2, 0.5, labels.shape) + gain * labels
        pictures.append(scored_picture(scores.astype(np.float32), labels))
    return pictures


def test_results_are_kept_and_taken_up_again(tmp_path):
    folder, row = ResultFolder(tmp_path, 'data', resamples=50), Row('a')
    assert folder.load(row, 'roads') is None
    pictures = make_pictures(1.0)
    saved = folder.save(row, 'roads', {'image': pictures})
    assert folder.load(row, 'roads') == json.loads(json.dumps(saved))
    exact = exact_metrics(pictures)
    assert saved['regions']['image']['average_precision'] == exact.average_precision
    assert saved['regions']['image']['pictures'] == 6
    assert ResultFolder(tmp_path, 'other data').load(row, 'roads') is None
    assert folder.load(Row('a', etalons=51), 'roads') is None


def test_differences_are_paired_and_say_what_they_resolve(tmp_path):
    folder = ResultFolder(tmp_path, 'data', resamples=200)
    better, worse = Row('better'), Row('worse', etalons=1)
    folder.save(better, 'roads', {'image': make_pictures(1.5)})
    folder.save(worse, 'roads', {'image': make_pictures(0.5)})
    got = folder.difference(better, worse, 'roads', 'image')
    assert got['average_precision']['resolved']
    assert got['average_precision']['interval'][0] > 0
    assert got['fpr95']['interval'][1] < 0
    same = folder.difference(better, better, 'roads', 'image')
    assert not same['auroc']['resolved']


def test_undefined_metrics_are_none_in_json_and_a_dash_in_tables(tmp_path):
    labels = np.zeros((5, 5), np.uint8)
    pictures = [scored_picture(np.ones((5, 5), np.float32), labels)]
    record = ResultFolder(tmp_path, 'd', resamples=10).save(Row('a'), 's', {'image': pictures})
    assert record['regions']['image']['average_precision'] is None
    assert metric_cell(record['regions']['image'], 'average_precision') == '-'


def test_tables_read_as_markdown():
    assert percent(0.8312, (0.7, 0.9)) == '83.1 [70.0, 90.0]'
    got = markdown_table(['a', 'b'], [['1', '2']])
    assert got == '| a | b |\n| --- | --- |\n| 1 | 2 |\n'
