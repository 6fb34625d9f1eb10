# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The cost model against the shipped graph, and against times that were measured at five sizes."""

import json

import pytest
from paths import ROOT

from ood_perception.bench.cost_model import (
    DENSE,
    DEPTHWISE,
    Vit,
    by_kind,
    frame_ms,
    predicted_ms,
    share_of_peak,
)
from ood_perception.bench.graph_costs import node_costs
from ood_perception.bundle.store import load_bundle

RECORDS = ROOT / 'docs' / 'benchmarks'
CLOSE = 0.2


def read(name):
    return json.loads((RECORDS / name).read_text())


def peak_of(record, kind='f32'):
    return record['peak_gflops']['2'][kind]


def measured_times(precision='f32'):
    """Return (size, images, measured ms, peak) of the ViT-S/14 on two threads, OpenVINO."""
    found = []
    for size, record in read('cpu_precisions.json')['speed'].items():
        for result in record['results']:
            case = result['case']
            if (case['runtime'], case['precision'], case['mode']) == (
                'openvino', precision, 'latency'
            ) and case['threads'] == 2:  # fmt: skip
                time = result['stages_ms']['backbone']['p50']
                found.append((tuple(map(int, size.split('x'))), 1, time, peak_of(record)))
    whole = read('bundle.json')
    for result in whole['results']:
        case = result['case']
        if (case['runtime'], case['precision'], case['threads']) == ('openvino', precision, 2):
            time = result['stages_ms']['backbone']['p50']
            found.append(((378, 672), case['batch'], time, peak_of(whole)))
    return found


def test_operations_are_those_of_the_shipped_graph():
    bundle = load_bundle('road_open')
    graph = by_kind(node_costs(bundle.root / 'backbone.onnx'))
    assert sum(Vit().operations(378, 672).values()) == graph[DENSE]
    assert graph[DEPTHWISE] == 0


def test_fewer_blocks_cost_their_share():
    vit = Vit()
    whole, nine = (vit.operations(378, 672, blocks) for blocks in (12, 9))
    assert nine['patches'] == whole['patches']
    assert nine['attention'] == pytest.approx(0.75 * whole['attention'])


def test_twice_the_sides_cost_more_than_four_times():
    small, large = (sum(Vit().operations(a, b).values()) for a, b in ((280, 560), (560, 1120)))
    assert 4 < large / small < 16


def test_measured_times_are_predicted_within_a_fifth():
    """One share of the peak, that of the smallest size, tells the times of all others."""
    rows = measured_times()
    assert len(rows) >= 4
    (size, images, time, peak), *others = rows
    share = share_of_peak(images * sum(Vit().operations(*size).values()), time, peak)
    assert 0.5 < share < 1
    for size, images, time, peak in others:
        told = predicted_ms(images * sum(Vit().operations(*size).values()), peak, share)
        assert told == pytest.approx(time, rel=CLOSE), size


def test_a_frame_is_its_images_and_the_nodes_own_time():
    assert frame_ms(10.0, 2, 1.0, {'resize': 3.0, 'publish': 2.0}) == 27.0
