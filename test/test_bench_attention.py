# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The benchmark of the parts of a block: operations, bounds in closed form, what runs compute."""

import numpy as np
import pytest

pytest.importorskip('torch')
pytest.importorskip('openvino')

from trainer import bench_attention
from trainer.bench_attention import FORMS, GELU, NO_SOFTMAX, WEIGHTS

PEAK = {'f32': 100.0, 'bf16': 200.0, 'i8': 400.0}


def at_the_peak(**slower):
    """Return parts that reach the peak, but for those given as part -> share of it."""
    parts = {}
    for precision, rate in PEAK.items():
        for part in (WEIGHTS, GELU, NO_SOFTMAX, *FORMS):
            parts[part, precision] = rate * slower.get(part, 1.0)
    return parts


def test_operations_are_those_of_a_vit_s():
    linear, quadratic = bench_attention.operations(800)
    block = 4 * 384**2 + 2 * 384 * 1536  # q, k, v, o; fc1, fc2
    assert linear == 12 * 2 * 800 * block
    assert quadratic == 12 * 2 * 2 * 800 * 800 * 384


def test_parts_at_the_peak_bound_nothing_and_slower_ones_what_they_should():
    for shares in bench_attention.bounds(800, PEAK, at_the_peak()).values():
        assert shares == pytest.approx([1.0, 1.0, 1.0])

    linear, quadratic = bench_attention.operations(800)
    slower = {FORMS[0]: 0.5, FORMS[1]: 0.4, GELU: 0.8}
    found = bench_attention.bounds(800, PEAK, at_the_peak(**slower))
    ideal = linear / 400 + quadratic / 200
    expected = [1.0, ideal / (linear / 400 + quadratic / 100)]
    expected.append(ideal / (linear / 320 + quadratic / 100))
    assert found['int8'] == pytest.approx(expected)
    assert found['f32'][1] == pytest.approx((linear + quadratic) / (linear + 2 * quadratic))


def test_a_cpu_without_a_precision_has_no_bound_for_it():
    assert set(bench_attention.bounds(800, {'f32': 100.0}, at_the_peak())) == {'f32'}


def test_both_forms_compute_the_same_and_without_softmax_another():
    outputs = [
        next(iter(bench_attention.attention_run(48, form, 'f32', 1)().values()))
        for form in (*FORMS, NO_SOFTMAX)
    ]
    np.testing.assert_allclose(outputs[0], outputs[1], rtol=1e-4, atol=1e-5)
    assert np.abs(outputs[2] - outputs[0]).max() > 1e-2


def test_the_products_with_weights_are_a_block_s_in_size():
    plain, with_gelu = (
        next(iter(bench_attention.weights_run(16, part, 'f32', 1)().values()))
        for part in (WEIGHTS, GELU)
    )
    assert plain.shape == with_gelu.shape == (16, 384)
    assert not np.allclose(plain, with_gelu)


def test_torch_s_kernel_computes_what_openvino_s_does():
    ours = next(iter(bench_attention.attention_run(48, FORMS[1], 'f32', 1)().values()))
    theirs = bench_attention.torch_attention_run(48, 'f32', 1)()
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-4, atol=1e-5)


def test_the_kernels_are_shown_as_shares_of_their_peak():
    rates = {f'{form} bf16': 100.0 for form in (*FORMS, NO_SOFTMAX, bench_attention.TORCH)}
    report = {'peak_gflops': {'bf16': 200.0}, 'rows': [{'size': '280x560', 'gflops': rates}]}
    assert bench_attention.kernels(report).splitlines()[-1].count('50 %') == 4
