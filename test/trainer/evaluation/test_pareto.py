# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Rate against average precision: which rows count, which are best, what is written."""

import json

import pytest

pytest.importorskip('torch', reason='the trainer needs torch')
pytest.importorskip('matplotlib')

from trainer.evaluation.pareto import best, figures, main, rows_of


def run(bundle, precision, views, obstacle, anomaly):
    def region(value):
        bounds = [value - 0.1, value + 0.1]
        return {'average_precision': value, 'intervals': {'average_precision': bounds}}

    return {
        'bundle': bundle,
        'bundle_sha256': f'sha of {bundle}',
        'engine': {'precision': precision},
        'settings': {'views': views},
        'sets': {
            'road_obstacle_dev/report': {'regions': {'road': region(obstacle)}},
            'road_anomaly_dev/report': {'regions': {'ground': region(anomaly)}},
        },
    }


RUNS = [
    run('slow', 'f32', True, 0.9, 0.8),
    run('fast', 'bf16', True, 0.8, 0.7),
    run('poor', 'bf16', False, 0.7, 0.6),
]
PICKED = {
    'all': [
        {'bundle': 'slow', 'precision': 'f32', 'views': True, 'hz': 1.0},
        {'bundle': 'fast', 'precision': 'bf16', 'views': True, 'hz': 20.0},
        {'bundle': 'poor', 'precision': 'bf16', 'views': False, 'hz': 10.0},
    ]
}


def test_a_row_that_another_beats_in_both_is_not_best():
    rows = rows_of([{'runs': RUNS}], PICKED)
    assert [row.bundle for row in rows] == ['fast', 'poor', 'slow']
    assert {rows[i].bundle for i in best(rows)} == {'fast', 'slow'}
    assert rows[0].ap['RoadObstacle'] == pytest.approx((80.0, 70.0, 90.0))


def test_a_run_without_both_sets_or_of_another_precision_is_not_mixed_up():
    lacking = run('half', 'f32', True, 0.5, 0.5)
    del lacking['sets']['road_anomaly_dev/report']
    rows = rows_of([{'runs': [*RUNS, lacking, run('fast', 'f32', True, 0.9, 0.9)]}], PICKED)
    assert [(row.bundle, row.precision, row.hz) for row in rows if row.bundle != 'poor'] == [
        ('fast', 'bf16', 20.0), ('slow', 'f32', 1.0), ('fast', 'f32', 0.0),
    ]  # fmt: skip


def test_page_plot_and_file_are_written(tmp_path, capsys):
    (tmp_path / 'one').mkdir()
    (tmp_path / 'one' / 'results.json').write_text(json.dumps({'runs': RUNS}))
    (tmp_path / 'pick.json').write_text(json.dumps(PICKED))
    page, known = tmp_path / 'pareto.md', tmp_path / 'figures.json'
    words = [str(tmp_path / 'one'), '--pick', str(tmp_path / 'pick.json'), '--out', str(page)]
    assert main([*words, '--figures', str(known)]) == 0
    assert '| **fast** | bf16 | on | 20.0 | 80.0 [70.0, 90.0] | 70.0' in page.read_text()
    assert (tmp_path / 'pareto.png').read_bytes()[1:4] == b'PNG'
    kept = json.loads(known.read_text())
    assert kept == figures(rows_of([{'runs': RUNS}], PICKED))
    assert kept['fast']['sha256'] == 'sha of fast'
    assert kept['fast']['ap'] == [
        {
            'precision': 'bf16',
            'views': True,
            'sets': {'RoadObstacle': 80.0, 'RoadAnomaly ground': 70.0},
        }
    ]
