# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The benchmark's parts: counts against closed forms, turns of real processes, tables."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from paths import ROOT

from ood_perception.bench import tables
from ood_perception.bench.cases import Case, cases, public_place, to_json
from ood_perception.bench.graph_costs import count_flops, node_costs
from ood_perception.bench.machine import EnergyMeter
from ood_perception.bench.peak import best_rates, openvino_product, products
from ood_perception.bench.program import PEAK, ratios, shares_of_peak, torch_task
from ood_perception.bench.protocol import Worker, percentiles, ratio, take_turns
from ood_perception.bench.tables import plot_latency, points_of_bundles
from ood_perception.bench.worker import options_of
from ood_perception.bundle.store import default_bundle_path, load_bundle
from ood_perception.errors import EngineError


def vit_operations(tokens, prefix, patch, dim, depth):
    """Closed form for a plain ViT: patch embedding, then QKV, scores, values, output, MLP."""
    n = tokens + prefix
    block = 4 * n * dim * dim + 2 * n * n * dim + 2 * n * dim * 4 * dim
    return 2 * (tokens * 3 * patch * patch * dim + depth * block)


def graph_bytes(nodes, shapes, outputs, weights=()):
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs]
    tensors = [onnx.numpy_helper.from_array(v, k) for k, v in dict(weights).items()]
    graph = helper.make_graph(nodes, 'g', inputs, ends, tensors)
    opset = [helper.make_opsetid('', 18)]
    return helper.make_model(graph, opset_imports=opset).SerializeToString()


def test_operations_of_the_shipped_backbone_are_those_of_a_vit_s14():
    bundle = load_bundle(default_bundle_path())
    size = bundle.manifest.input
    tokens = size.height // size.patch * (size.width // size.patch)
    counted = count_flops(bundle.root / 'backbone.onnx')

    assert bundle.manifest.provenance['backbone'] == 'dinov2-s14'
    assert counted == vit_operations(tokens, 1, 14, 384, 12)
    assert count_flops(bundle.root / 'backbone.onnx', batch=3) == 3 * counted


def test_operations_of_single_nodes():
    weight = np.zeros((5, 7), np.float32)
    kernel = np.zeros((8, 2, 3, 3), np.float32)
    nodes = [
        helper.make_node('MatMul', ['x', 'w'], ['a']),
        helper.make_node('Gemm', ['y', 'w'], ['b'], transA=1),
        helper.make_node('Conv', ['z', 'k'], ['c'], group=2, pads=[1, 1, 1, 1]),
        helper.make_node('Relu', ['c'], ['d']),
    ]
    shapes = {'x': ['batch', 3, 5], 'y': [5, 4], 'z': ['batch', 4, 6, 6]}
    model = graph_bytes(nodes, shapes, ['a', 'b', 'd'], {'w': weight, 'k': kernel})

    # a: batch x 3 x 7 sums of 5; b: 4 x 7 sums of 5; c: batch x 8 x 6 x 6 sums of 2 x 3 x 3
    assert count_flops(model, batch=2) == 2 * (2 * 21 * 5 + 28 * 5 + 2 * 288 * 18)
    by_kind = {node.kind: node for node in node_costs(model, batch=2)}
    assert by_kind['Conv'].elements == 2 * 4 * 36 + 8 * 2 * 9 + 2 * 8 * 36
    assert by_kind['Relu'].elements == 2 * 2 * 8 * 36
    assert not by_kind['Conv'].depthwise


def test_ratios_compare_rounds_and_tell_their_spread():
    """A round that is slow for both counts like any other."""
    slow_round = ratio([[2.0, 2.0], [20.0], [6.0]], [[1.0], [10.0, 10.0], [2.0]])

    assert slow_round == {'median': 2.0, 'least': 2.0, 'greatest': 3.0}
    assert percentiles(np.arange(101.0)) == {'p5': 5.0, 'p50': 50.0, 'p95': 95.0, 'p99': 99.0}


def test_cases_are_all_combinations():
    base = Case('b', runs=7, classes=('Road',))
    found = cases(base, ['a', 'b'], ['f32'], [1, 2], [1])

    assert [(case.runtime, case.threads) for case in found] == [
        ('a', 1), ('a', 2), ('b', 1), ('b', 2),
    ]  # fmt: skip
    assert all(case.runs == 7 and case.classes == ('Road',) for case in found)


@pytest.mark.parametrize(
    'wrong', [{'batch': 0}, {'runs': 0}, {'warmup': -1}, {'threads': -1}, {'camera': (0, 5)}]
)
def test_cases_that_cannot_be_measured_are_refused(wrong):
    with pytest.raises(EngineError, match='give'):
        Case('b', **wrong)


def test_no_place_of_this_machine_is_published(tmp_path, monkeypatch):
    bundle = tmp_path / 'bundles' / 'mine'
    bundle.mkdir(parents=True)

    assert public_place(bundle) == 'mine'
    shown = json.dumps(to_json(Case(str(bundle), weights=str(tmp_path / 'w.bin'))))
    assert str(tmp_path) not in shown
    monkeypatch.chdir(tmp_path)
    assert public_place(bundle) == 'bundles/mine'


def power_zone(root, name, microjoules):
    zone = root / name
    zone.mkdir(exist_ok=True)
    (zone / 'energy_uj').write_text(f'{microjoules}\n')
    (zone / 'max_energy_range_uj').write_text('10000000\n')


def test_energy_is_the_sum_of_packages_and_survives_a_wrap(tmp_path):
    power_zone(tmp_path, 'intel-rapl:0', 1_000_000)
    power_zone(tmp_path, 'intel-rapl:1', 9_000_000)
    power_zone(tmp_path, 'intel-rapl:0:0', 500_000)
    meter = EnergyMeter(tmp_path)
    power_zone(tmp_path, 'intel-rapl:0', 3_000_000)
    power_zone(tmp_path, 'intel-rapl:1', 1_000_000)  # wrapped at 10 J
    power_zone(tmp_path, 'intel-rapl:0:0', 900_000)  # part of package 0

    assert meter.told
    assert meter.since_last() == pytest.approx(4.0)
    assert meter.since_last() == 0


def test_a_machine_without_counters_tells_no_energy(tmp_path):
    meter = EnergyMeter(tmp_path)

    assert not meter.told
    assert meter.since_last() is None


def test_workers_take_turns_and_a_lost_one_says_so(tmp_path):
    pytest.importorskip('openvino')
    task = {'threads': 1, 'sides': [32]}
    with Worker('peak', PEAK, task) as peak, Worker('lost', 'ood_perception.nothing', {}) as lost:
        known = peak.ready()
        lost.ready()
        take_turns([peak, lost], runs=4, warmup=1, rounds=2)

        assert lost.error.startswith('the process of lost ended (1)')
        assert peak.error == ''
        assert [len(one['numpy f32 32']) for one in peak.rounds] == [2, 2]
        assert lost.rounds == []
        rates = best_rates(peak.times(), known['operations'])
        assert rates['f32'] > 0.01


def test_the_best_rate_is_the_fastest_run_of_any_size():
    times = {'numpy f32 512': [4.0, 2.0], 'openvino f32 1024': [40.0], 'openvino i8 512': [1.0]}
    work = {'numpy f32 512': 2e6, 'openvino f32 1024': 80e6, 'openvino i8 512': 3e6}

    assert best_rates(times, work) == {'f32': 2.0, 'i8': 3.0}
    assert products(10) == 4 * 2 * 1000


def test_the_products_are_products():
    """The 8-bit graph rounds its inputs to integers and the weights to 1/127, and multiplies."""
    pytest.importorskip('openvino')
    generator = np.random.default_rng(0)
    weights = [generator.uniform(-0.5, 0.5, (32, 32)).astype(np.float32) for _ in range(4)]
    exact = coarse = generator.uniform(-1, 1, (32, 32)).astype(np.float32)
    for weight in weights:
        exact = exact @ weight.T
        coarse = np.clip(np.round(coarse), -128, 127) @ (np.round(weight * 127) / 127).T
    for precision, expected in (('f32', exact), ('i8', coarse)):
        got = next(iter(openvino_product(precision, 32, 1)().values()))
        assert np.abs(got - expected).max() < 0.01 * np.abs(expected).max()


def test_the_bits_of_weights_can_be_named_for_a_measurement():
    manifest = load_bundle(default_bundle_path()).manifest
    options = [options_of(Case('b', precision=name), manifest) for name in ('int8', 'int8:7')]
    assert [(o.precision, o.weight_bits) for o in options] == [('int8', 0), ('int8', 7)]
    with pytest.raises(EngineError, match='int8:6: bits of the weights are int8:7 or int8:8'):
        Case('b', precision='int8:6')


def test_shares_and_ratios_put_times_in_proportion():
    case = Case('b', threads=1)
    known = {'engine': {'precision': 'bf16'}, 'operations': {'backbone': 4e9, 'head': 1e9}}
    times = {'backbone': [40.0, 41.0, 39.0], 'head': [20.0]}
    rates = {1: {'f32': 100.0, 'bf16': 200.0}}

    assert shares_of_peak(case, known, times, rates) == {'backbone': 0.5, 'head': 0.5}
    assert shares_of_peak(case, known, times, {}) == {}

    own, other = object.__new__(Worker), object.__new__(Worker)
    own.rounds, own.error = [{'backbone': [2.0], 'head': [1.0]}], ''
    other.rounds, other.error = [{'torch_backbone': [5.0]}], ''
    assert ratios(own, other)['torch_backbone']['median'] == 2.5
    assert ratios(own, None) == {}


def test_a_search_by_an_index_has_a_time_and_no_share_of_the_peak():
    case = Case('b', 'faiss', 'f32', 1, 1)
    known = {'engine': {'precision': 'f32'}, 'operations': {'backbone': 1e9, 'head': 1e9}}
    times = {'backbone': [20.0], 'search': [4.0], 'head': [1.0]}
    rates = {case.cores: {'f32': 100.0}}
    assert shares_of_peak(case, known, times, rates) == {'backbone': 0.5}
    stages = {name: {'p50': values[0], 'p95': 2 * values[0]} for name, values in times.items()}
    assert tables._head_time(stages) == '4.0 (8.0) + 1.0 (2.0)'
    assert tables._head_time({'head': stages['head']}) == '1.0 (2.0)'


def test_the_torch_process_gets_the_sizes_of_the_bundle():
    manifest = load_bundle('road_camvid').manifest
    task = torch_task(manifest, ['Road', 'Pavement'])

    known = manifest.provenance['classes']
    assert task['etalons'] == [known['Road']['etalons'], known['Pavement']['etalons']]
    assert task['backbone'] == 'dinov2-s14'
    assert [f'tokens_{n}' for n in task['layers']] == list(manifest.stages[0].outputs)


def test_latency_is_drawn_over_resolution(tmp_path):
    pytest.importorskip('matplotlib')

    def result(height, ms):
        return {
            'case': {'threads': 1, 'batch': 1},
            'engine': {'runtime': 'openvino', 'precision': 'f32'},
            'bundle': {'height': height, 'width': 100},
            'stages_ms': {'total': {'p50': ms}},
        }

    lines = points_of_bundles([result(20, 9.0), result(10, 4.0), {'error': 'none'}])
    assert lines == {'openvino f32, 1 threads, 1 cameras': [(1000, 4.0), (2000, 9.0)]}
    plot_latency(lines, tmp_path / 'p.svg')
    assert '<svg' in (tmp_path / 'p.svg').read_text()


def test_committed_results_hold_no_place_of_a_machine():
    for path in sorted((ROOT / 'docs' / 'benchmarks').glob('*.json')):
        text = path.read_text(encoding='utf-8')
        assert '"/' not in text, path
