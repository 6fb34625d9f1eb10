# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The benchmark of CPU precisions: ideal times in closed form, the table, going on."""

import json

import onnx
import pytest
from bundles import DIM
from quantized_bundles import HIDDEN, write_quantized_bundle

from ood_perception.bundle.store import load_bundle

pytest.importorskip('torch')
pytest.importorskip('onnxruntime')

from trainer import bench_precisions
from trainer.precision_table import ENGINES, table

TOKENS = 4 * 6
LINEAR = 2 * TOKENS * (5 * DIM * DIM + 2 * DIM * HIDDEN)  # mix, q, k, v, o; fc1, fc2
ATTENTION = 2 * 2 * TOKENS * TOKENS * DIM
STEM = 2 * TOKENS * DIM * 3 * 14 * 14
RATES = {'f32': 100.0, 'bf16': 200.0, 'i8': 400.0}


@pytest.fixture(scope='module')
def bundle(tmp_path_factory):
    return load_bundle(write_quantized_bundle(tmp_path_factory.mktemp('bench') / 'b'))


def test_ideal_times_are_products_over_rates(bundle):
    ideal = bench_precisions.ideal_times(bundle, RATES)

    whole = LINEAR + ATTENTION + STEM
    assert (
        bench_precisions.products_with_weights(onnx.load(bundle.root / 'backbone.onnx')) == LINEAR
    )
    assert ideal['f32'] == pytest.approx(whole / 100 / 1e6)
    assert ideal['bf16'] == pytest.approx(whole / 200 / 1e6)
    mix = LINEAR / 400 + (ATTENTION + STEM) / 200
    assert ideal['int8'] == pytest.approx(mix / 1e6)


def test_products_that_stay_in_bf16_count_at_its_rate(tmp_path):
    bundle = load_bundle(write_quantized_bundle(tmp_path / 'b', kept=('/fc2',)))
    ideal = bench_precisions.ideal_times(bundle, RATES)

    kept = 2 * TOKENS * DIM * HIDDEN
    mix = (LINEAR - kept) / 400 + (kept + ATTENTION + STEM) / 200
    assert ideal['int8'] == pytest.approx(mix / 1e6)


def test_without_bf16_the_mix_has_float32(bundle):
    ideal = bench_precisions.ideal_times(bundle, {'f32': 100.0, 'i8': 400.0})
    assert 'bf16' not in ideal
    assert ideal['int8'] == pytest.approx((LINEAR / 400 + (ATTENTION + STEM) / 100) / 1e6)


def test_the_table_shows_what_there_is():
    case = {'runtime': 'openvino', 'precision': 'int8'}
    result = {
        'case': case,
        'stages_ms': {'backbone': {'p50': 50.0, 'p5': 48.0}},
        'ratios': {'torch_backbone': {'median': 2.5}},
    }
    together = {
        'case': {**case, 'mode': 'throughput', 'batch': 2},
        'stages_ms': {'backbone': {'p50': 86.0, 'p5': 80.0}},
        'ratios': {'torch_backbone': {'median': 2.9}},
    }
    accuracy = {'average_precision': 12.345, 'fpr95': 60.0}
    report = {
        'sizes': ['280x560', '392x784'],
        'speed': {'280x560': {'results': [result, together], 'ideal_ms': {'int8': 41.0}}},
        'accuracy': {'392x784': {'openvino f32': {'image': accuracy, 'ground': accuracy}}},
    }
    text = table(report)

    own = '| 280x560 | openvino | int8 | 50 | 2.50 | 82 % | 85 % | 43 | 2.90 | 95 % |'
    assert f'{own} - | - | - | - |' in text
    dashes = '- | - | - | - | - | - | -'
    assert f'| 392x784 | openvino | f32 | {dashes} | 12.35 | 60.00 | 12.35 | 60.00 |' in text


def test_what_was_measured_is_not_measured_again(bundle, tmp_path, monkeypatch):
    made = []

    def measured(one, key, options):
        made.append(key)
        if len(made) == 3:
            raise KeyboardInterrupt
        values = {'average_precision': 1.0, 'fpr95': 2.0}
        return {'image': values, 'ground': values}

    monkeypatch.setattr(bench_precisions, 'measure_accuracy', measured)
    monkeypatch.setattr(bench_precisions, 'bundle_of_size', lambda *_: bundle)
    out = tmp_path / 'table.json'
    arguments = ['--fit', 'none', '--bundle', str(bundle.root), '--accuracy', '--out', str(out)]
    arguments += ['--sizes', '56x84']
    with pytest.raises(KeyboardInterrupt):
        bench_precisions.main(arguments)
    assert bench_precisions.main(arguments) == 0

    assert len(made) == 2 + 1 + 3  # two kept, one interrupted, the rest
    assert set(json.loads(out.read_text())['accuracy']['56x84']) == {
        ' '.join(key) for key in ENGINES
    }
    assert out.with_suffix('.md').read_text().count('56x84') == 5
