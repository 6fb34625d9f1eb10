# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The int8 graph: the same function before rounding, near it after, and deterministic."""

import dataclasses
import json

import numpy as np
import onnx
import pytest
from quantized_bundles import (
    HIDDEN,
    add_block,
    measured_facts,
    run_graph,
    write_quantized_bundle,
)

from ood_perception.bundle.store import load_bundle
from ood_perception.engines.int8 import (
    FORMS,
    LARGEST_CODE,
    Quantization,
    linear_nodes,
    quantised,
    quantization_path,
    read_quantization,
    scale_and_zero,
    smooth,
    smoothable,
    weight_codes,
    write_quantization,
)
from ood_perception.errors import BundleError, EngineError

pytest.importorskip('onnxruntime')


@pytest.fixture(scope='module')
def backbone(tmp_path_factory):
    from bundles import write_tiny_bundle

    path = write_tiny_bundle(tmp_path_factory.mktemp('quantize') / 'tiny')
    model = onnx.load(path / 'backbone.onnx')
    add_block(model)
    return model


@pytest.fixture(scope='module')
def images():
    return np.random.default_rng(2).integers(0, 256, (2, 56, 84, 3), dtype=np.uint8)


@pytest.fixture(scope='module')
def facts(backbone, images):
    return measured_facts(backbone, images)


def copied(model):
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def tokens(model, images):
    return run_graph(model, {'image': images})[0]


def counts(model):
    kinds = [node.op_type for node in model.graph.node]
    return kinds.count('QuantizeLinear'), kinds.count('DequantizeLinear')


def test_smoothing_changes_no_bit(backbone, facts, images):
    smoothed = copied(backbone)
    smooth(smoothed, facts.smoothing)

    assert set(facts.smoothing) == {'normed', 'normed_y', 'mixed_values'}
    assert any(any(exponents) for exponents in facts.smoothing.values())
    np.testing.assert_array_equal(tokens(smoothed, images), tokens(backbone, images))
    inner = ['normed', 'mixed_values']
    before = run_graph(backbone, {'image': images}, inner)
    after = run_graph(smoothed, {'image': images}, inner)
    for name, old, new in zip(inner, before, after, strict=True):
        scale = np.exp2(np.array(facts.smoothing[name], np.float32))
        np.testing.assert_array_equal(new, old / scale)


def test_smoothing_makes_the_channels_more_alike(backbone, facts, images):
    smoothed = copied(backbone)
    smooth(smoothed, facts.smoothing)
    spreads = []
    for model in (backbone, smoothed):
        values = run_graph(model, {'image': images}, ['normed'])[0].reshape(-1, 8)
        largest = np.abs(values).max(0)
        spreads.append(largest.max() / largest.min())

    assert spreads[1] < 0.7 * spreads[0]


def test_a_norm_that_two_share_is_not_smoothed(backbone):
    shared = copied(backbone)
    last = next(node for node in shared.graph.node if 'normed_y' in node.output)
    last.input[1] = 'normed.weight'

    assert smoothable(backbone, 'normed') == ('normed.weight', 'normed.bias')
    assert smoothable(shared, 'normed') == ()


@pytest.mark.parametrize('name', ['gelu', 'x', 'stem', 'q_out', 'nothing'])
def test_what_cannot_be_divided_where_it_is_made_is_not_smoothed(backbone, name):
    assert smoothable(backbone, name) == ()


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('smoothing', [True, False])
def test_the_int8_graph_is_near_the_float_one(backbone, images, form, smoothing):
    exact = tokens(backbone, images)
    model = quantised(backbone, measured_facts(backbone, images, smoothing), form)

    error = np.abs(tokens(model, images) - exact).max() / np.abs(exact).max()
    assert 0 < error < 0.03


def test_every_product_with_weights_has_its_pair_and_shared_inputs_share_it(backbone, facts):
    # inputs: patches of the stem, q = k = v, o, fc1, fc2; weights: mix and six projections
    assert counts(quantised(backbone, facts)) == (5, 5 + 7)


def test_kept_products_stay_as_they_are(backbone, facts, images):
    kept = dataclasses.replace(facts, kept=('/fc2', '/o'))
    model = quantised(backbone, kept)

    assert counts(model) == (3, 3 + 5)
    names = {tensor.name for tensor in model.graph.initializer}
    assert 'fc2.weight' in names
    assert 'fc1.weight' not in names


def test_asymmetric_codes_hold_values_of_one_sign_better(backbone, facts, images):
    only_fc2 = tuple(node.name for node in linear_nodes(backbone) if node.name != '/fc2')
    exact = tokens(backbone, images)
    errors = {
        form: np.abs(
            tokens(quantised(backbone, dataclasses.replace(facts, kept=only_fc2), form), images)
            - exact
        ).mean()
        for form in FORMS
    }
    assert errors['u8'] < 0.8 * errors['symmetric']


def test_the_symmetric_form_is_what_tensorrt_takes(backbone, facts):
    model = quantised(backbone, facts, 'symmetric')
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type.endswith('quantizeLinear') or node.op_type.endswith('QuantizeLinear'):
            zero = stored[node.input[2]]
            assert zero.dtype == np.int8
            assert not zero.any()
    # biases are float32 and added outside of the pairs
    assert stored['fc1.bias'].dtype == np.float32
    assert stored['fc1.weight/scale'].shape == (HIDDEN,)


@pytest.mark.parametrize('form', FORMS)
def test_it_is_deterministic_and_leaves_its_input_alone(backbone, facts, form):
    before = backbone.SerializeToString(deterministic=True)

    first, second = (
        quantised(backbone, facts, form).SerializeToString(deterministic=True) for _ in range(2)
    )

    assert first == second
    assert backbone.SerializeToString(deterministic=True) == before
    assert len(first) != len(before)


@pytest.mark.parametrize(('bits', 'largest'), [(8, 127), (7, 64)])
def test_weight_codes_round_to_half_a_step(bits, largest):
    weights = np.random.default_rng(0).normal(0, 1, (40, 7)).astype(np.float32)
    weights[:, 3] = 0
    codes, scales = weight_codes(weights, bits)

    assert codes.dtype == np.int8
    assert (np.abs(codes).max(0)[[0, 1, 2, 4, 5, 6]] == largest).all()
    assert (np.abs(codes * scales - weights) <= scales / 2 * 1.0001).all()
    assert not codes[:, 3].any()


def in_saturating_pairs(values, codes):
    """Return uint8 (m, K) times int8 (K, n) as x86 without VNNI does: pairs added in int16."""
    products = values.astype(np.int64)[:, :, None] * codes.astype(np.int64)[None]
    pairs = np.clip(products[:, 0::2] + products[:, 1::2], -(2**15), 2**15 - 1)
    return pairs.sum(axis=1)


def test_pairs_of_products_with_7_bits_never_leave_int16():
    rng = np.random.default_rng(1)
    values = rng.choice(np.array([0, 1, 128, 254, 255], np.uint8), (50, 32))
    values[0] = 255
    weights = rng.choice(np.array([-1, -0.9, 0.9, 1], np.float32), (32, 20))
    weights[:, 0], weights[:, 1] = 1, -1
    right = {}
    for bits in LARGEST_CODE:
        codes, _ = weight_codes(weights, bits)
        exact = values.astype(np.int64) @ codes.astype(np.int64)
        right[bits] = np.array_equal(in_saturating_pairs(values, codes), exact)
    assert right == {8: False, 7: True}


def test_7_bits_cost_more_than_8_and_little(backbone, facts, images):
    exact = tokens(backbone, images)
    errors = [
        np.abs(tokens(quantised(backbone, facts, 'u8', bits), images) - exact).mean()
        for bits in (8, 7)
    ]
    assert errors[0] < errors[1] < 4 * errors[0]


@pytest.mark.parametrize(('low', 'high'), [(-0.17, 12.0), (-3.0, 4.0), (1.0, 2.0), (-2.0, -1.0)])
@pytest.mark.parametrize('form', FORMS)
def test_zero_and_the_ends_can_be_written(low, high, form):
    scale, zero = scale_and_zero(low, high, form)
    lowest, highest = (0, 255) if form == 'u8' else (-127, 127)
    code = np.rint(np.array([low, 0.0, high]) / scale) + float(zero)

    assert lowest - 1 <= code.min()
    assert code.max() <= highest + 1
    assert (0.0 / scale + float(zero)) == float(zero)  # zero is exact: padding stays zero


def test_facts_of_another_graph_are_refused(backbone, facts):
    for foreign in (
        Quantization({'elsewhere': (0.0, 1.0)}),
        dataclasses.replace(facts, kept=('/nothing',)),
        dataclasses.replace(facts, smoothing={'gelu': (0,) * HIDDEN}),
        dataclasses.replace(facts, smoothing={'normed': (0, 1)}),
    ):
        with pytest.raises(BundleError, match='trainer quantize'):
            quantised(backbone, foreign)
    with pytest.raises(ValueError, match='u8, symmetric'):
        quantised(backbone, facts, 's4')


def test_facts_are_read_as_they_were_written(tmp_path, facts):
    path = tmp_path / 'quantization.json'
    write_quantization(path, dataclasses.replace(facts, kept=('/fc2',)))
    first = path.read_bytes()

    assert read_quantization(path) == dataclasses.replace(facts, kept=('/fc2',))
    write_quantization(path, read_quantization(path))
    assert path.read_bytes() == first


@pytest.mark.parametrize(
    ('content', 'match'),
    [
        ('', 'cannot be read'),
        ('{"ranges": {"x": [1.0, 1.0]}}', 'range of x is empty'),
        ('{"ranges": {}}', 'no ranges'),
        ('{"ranges": {"x": [0.0]}}', 'expected 2 values'),
        ('{"ranges": {"x": [0.0, 1.0]}, "more": 1}', "unknown \\['more'\\]"),
    ],
)
def test_bad_facts_are_refused_by_place(tmp_path, content, match):
    path = tmp_path / 'quantization.json'
    path.write_text(content)
    with pytest.raises(BundleError, match=match):
        read_quantization(path)


def test_a_bundle_names_its_facts_or_says_what_to_run(tmp_path, tiny_bundle):
    bundle = load_bundle(write_quantized_bundle(tmp_path / 'quantized'))
    assert quantization_path(bundle).name == 'quantization.json'
    with pytest.raises(EngineError, match='holds no quantisation; run `trainer quantize`'):
        quantization_path(load_bundle(tiny_bundle))


def test_facts_without_checksum_or_outside_the_bundle_are_refused(tmp_path):
    path = write_quantized_bundle(tmp_path / 'quantized')
    manifest = json.loads((path / 'manifest.json').read_text())
    del manifest['files']['quantization.json']
    (path / 'manifest.json').write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match='without checksum'):
        load_bundle(path)
    manifest['precisions']['int8']['file'] = '../quantization.json'
    (path / 'manifest.json').write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match='leaves the bundle'):
        load_bundle(path)
