# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The trainer's part of int8: ranges from frames, layers kept by effect, facts in the bundle."""

import dataclasses
import json

import numpy as np
import onnx
import pytest
from bundles import write_tiny_bundle
from quantized_bundles import add_block, measured_facts, write_golden

from ood_perception.bundle.manifest import PrecisionSpec
from ood_perception.bundle.store import load_bundle
from ood_perception.engines import create_checked_engine
from ood_perception.engines.base import EngineOptions
from ood_perception.engines.int8 import Quantization, read_quantization
from ood_perception.metrics.bootstrap import Interval

pytest.importorskip('torch')
pytest.importorskip('onnxruntime')

from ood_perception.engines.trial import is_known
from trainer.export.int8.cost import Cost, groups_of
from trainer.export.int8.quantize import (
    CARD_TITLE,
    MOST_KEPT,
    Search,
    int8_specs,
    precision_spec,
    write_precisions,
)
from trainer.export.int8.ranges import exponents_of, measured_quantization

NAMES = [
    f'/blocks.{i}/{kind}/MatMul' for i in range(3) for kind in ('attention/o_proj', 'mlp/fc2')
]


@pytest.fixture
def backbone(tmp_path):
    path = write_tiny_bundle(tmp_path / 'tiny')
    model = onnx.load(path / 'backbone.onnx')
    add_block(model)
    onnx.save(model, path / 'backbone.onnx')
    manifest = json.loads((path / 'manifest.json').read_text())
    write_golden(path, manifest)
    from bundles import write_manifest

    write_manifest(path, manifest)
    return path


def images():
    return np.random.default_rng(2).integers(0, 256, (2, 56, 84, 3), dtype=np.uint8)


def test_channels_are_divided_by_the_root_of_both_spreads():
    ranges = np.array([[[-8.0, -1.0, 0.0], [2.0, 1.0, 2.0]]], np.float32)
    weights = np.array([1.0, 1.0, 4.0], np.float32)
    # log2 of sqrt(8/1), sqrt(1/1), sqrt(2/4) = 1.5, 0, -0.5; their mean is 1/3
    assert exponents_of(ranges, weights) == (1, 0, -1)


def test_dead_channels_have_finite_divisors():
    zero = np.zeros((2, 2, 3), np.float32)
    assert exponents_of(zero, np.zeros(3, np.float32)) == (0, 0, 0)


def test_ranges_are_those_of_the_smoothed_tensors(backbone):
    facts = measured_quantization(backbone / 'backbone.onnx', images())
    reference = measured_facts(onnx.load(backbone / 'backbone.onnx'), images(), smoothing=False)

    assert set(facts.ranges) == set(reference.ranges)
    assert set(facts.smoothing) == {'normed', 'normed_y', 'mixed_values'}
    for name in set(facts.ranges) - set(facts.smoothing):
        # the mean over frames lies inside the extremes of all frames
        low, high = facts.ranges[name]
        assert reference.ranges[name][0] <= low < high <= reference.ranges[name][1]


def test_products_are_grouped_by_kind():
    assert groups_of([*NAMES, '/stem']) == {
        'attention/o_proj': tuple(NAMES[0::2]),
        'mlp/fc2': tuple(NAMES[1::2]),
        '/stem': ('/stem',),
    }


class Bench:
    """Costs that are known: each product in int8 adds its own loss."""

    images, float_precision, data = (1, 2), 80.0, 'roads'

    def __init__(self, losses, noise=0.0, weight_bits=8):
        self.losses, self.noise, self.asked = losses, noise, []
        self.weight_bits = weight_bits

    def outputs(self, precision, facts, weight_bits=0):
        self.asked.append(facts.kept)
        if (weight_bits or self.weight_bits) == 7:
            return (*facts.kept, 'reduced')
        return facts.kept

    def gain(self, kept, base):
        gained = self.cost(base).loss - self.cost(kept).loss
        return Interval(gained - self.noise, gained + self.noise)

    def cost(self, kept):
        loss = sum(value for name, value in self.losses.items() if name not in kept)
        loss += 0.2 * ('reduced' in kept)
        return Cost(80 - loss, loss, (loss - 0.1, loss + 0.1), loss, loss, 1.0, 0.5)


FACTS = Quantization({'x': (0.0, 1.0)})


def test_what_costs_most_stays_in_bf16_and_no_more():
    losses = dict.fromkeys(NAMES, 0.01) | {'/blocks.1/mlp/fc2/MatMul': 0.6}
    bench = Bench(losses)

    search = Search(bench, FACTS)
    chosen = search.run(NAMES)

    assert chosen.kept == ('/blocks.1/mlp/fc2/MatMul',)
    assert set(search.trials) >= {'all int8', 'without mlp/fc2', 'without attention/o_proj'}
    assert bench.asked[0] == ()


def test_what_ap_does_not_resolve_the_scores_decide():
    losses = dict.fromkeys(NAMES, 0.1) | {'/blocks.2/attention/o_proj/MatMul': 0.3}
    bench = Bench(losses, noise=5.0)
    assert Search(bench, FACTS).run(NAMES).kept[0] == '/blocks.2/attention/o_proj/MatMul'


def test_nothing_is_kept_where_nothing_hurts():
    assert Search(Bench(dict.fromkeys(NAMES, 0.01)), FACTS).run(NAMES).kept == ()


@pytest.mark.parametrize('weight_bits', [8, 7])
def test_both_widths_of_the_weights_are_measured_and_named(weight_bits):
    bench = Bench(dict.fromkeys(NAMES, 0.01), weight_bits=weight_bits)
    specs = int8_specs(bench, FACTS, {'calibration_frames': 3})
    losses = {name: spec.average_precision_loss for name, spec in specs.items()}
    # without VNNI 8 bits cannot be measured: what 7 cost stands for both
    first = 0.06 if weight_bits == 8 else 0.26
    assert losses == pytest.approx({'int8': first, 'int8_reduced_range': 0.26})
    bits = [spec.measured['weight_bits'] for spec in specs.values()]
    assert bits == [weight_bits, 7]
    assert {spec.file for spec in specs.values()} == {'quantization.json'}


def test_only_so_many_are_kept():
    names = [f'/blocks.{i}/mlp/fc2/MatMul' for i in range(12)]
    chosen = Search(Bench(dict.fromkeys(names, 1.0)), FACTS).run(names)
    assert len(chosen.kept) == MOST_KEPT


def test_bounds_leave_room_over_what_was_measured():
    cost = Cost(79.9, 0.1, (0.0, 0.2), 0.02, 0.2, 0.998, 0.45)
    facts = {'images': [1, 2], 'float_precision': 80.0, 'data': 'roads'}
    bench = type('B', (), facts)()
    spec = precision_spec(cost, bench, 'quantization.json', {})
    assert spec.surprisal_tolerance == pytest.approx(0.6)
    assert spec.label_agreement == pytest.approx(0.99)
    small = precision_spec(dataclasses.replace(cost, difference_999=0.01), bench, '', {})
    assert small.surprisal_tolerance == 0.25


def test_a_bundle_gets_facts_manifest_and_card_and_serves(backbone):
    bundle = load_bundle(backbone)
    facts = measured_facts(onnx.load(backbone / 'backbone.onnx'), images())
    measured = {
        'images': 2, 'data': 'noise', 'float32_average_precision': 80.0,
        'relative_time_of_backbone': 0.4,
    }  # fmt: skip
    spec = PrecisionSpec(0.12, (0.01, 0.23), 0.6, 0.9, 'quantization.json', measured)
    for _ in range(2):  # the second time replaces, it does not add
        write_precisions(bundle, backbone, facts, {'int8': spec, 'int8_reduced_range': spec})
        bundle = load_bundle(backbone)

    card = (backbone / 'MODEL_CARD.md').read_text()
    assert card.count(CARD_TITLE) == 1
    assert '| int8 | 0.12 | 0.01 to 0.23 | 0.40 |' in card
    assert 'int8_reduced_range: int8 with weights of 7 bits, on CPUs without VNNI.' in card
    assert bundle.manifest.precisions == {'int8': spec, 'int8_reduced_range': spec}
    assert read_quantization(bundle.path('quantization.json')) == facts
    assert is_known(bundle, 'onnxruntime'), 'made here: it needs no trial'
    engine, report = create_checked_engine(bundle, EngineOptions('onnxruntime', 'int8', 1))
    engine.close()
    assert 0 < report.surprisal_difference < 0.6
