# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""docs/benchmarks/cost_model.md: a ViT's operations in closed form, and times told from them."""

import json

import pytest
from paths import ROOT

from ood_perception.bench.graph_costs import PRODUCTS, node_costs
from ood_perception.bundle.store import load_bundle

RECORDS = ROOT / 'docs' / 'benchmarks'
CLOSE = 0.2
PATCH, WIDTH, DEPTH = 14, 384, 12


def operations(height, width, depth=DEPTH):
    """Return the operations of a ViT-S/14's products for one image, a multiply-add two."""
    patches = (height // PATCH) * (width // PATCH)
    tokens = patches + 1
    projections, mlp = 4 * tokens * WIDTH**2, 8 * tokens * WIDTH**2
    attention = 2 * tokens**2 * WIDTH
    return 2 * (3 * patches * PATCH**2 * WIDTH + depth * (projections + mlp + attention))


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


def test_the_walk_over_the_shipped_graph_counts_the_closed_form():
    products = [n for n in node_costs(load_bundle('road_open').path('backbone.onnx'))
                if n.kind in PRODUCTS]  # fmt: skip
    assert sum(node.operations for node in products) == operations(378, 672)
    assert not any(node.depthwise for node in products)


def test_measured_times_are_predicted_within_a_fifth():
    """One share of the peak, that of the smallest size, tells the times of all others."""
    rows = [
        (size, images * operations(*size) / 1e6 / peak, time)
        for size, images, time, peak in measured_times()
    ]
    assert len(rows) >= 4
    (_, at_the_peak, time), *others = rows
    share = at_the_peak / time
    assert 0.5 < share < 1
    for size, at_the_peak, time in others:
        assert at_the_peak / share == pytest.approx(time, rel=CLOSE), size
