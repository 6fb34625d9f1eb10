# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The benchmark of attention: its operations and bounds in closed form; both forms agree."""

import numpy as np
import pytest

pytest.importorskip('torch')
pytest.importorskip('openvino')

from trainer import bench_attention


def test_operations_are_those_of_a_vit_s():
    linear, quadratic = bench_attention.operations(800)
    block = 4 * 384**2 + 2 * 384 * 1536  # q, k, v, o; fc1, fc2
    assert linear == 12 * 2 * 800 * block
    assert quadratic == 12 * 2 * 2 * 800 * 800 * 384


def test_attention_at_the_peak_bounds_nothing_and_at_half_of_it_what_it_should():
    rates = {'f32': 100.0, 'bf16': 200.0, 'i8': 400.0}
    free = bench_attention.bounds(800, rates, {'f32': 100.0, 'bf16': 200.0})
    assert free == pytest.approx({'f32': 1.0, 'bf16': 1.0, 'int8': 1.0})

    linear, quadratic = bench_attention.operations(800)
    half = bench_attention.bounds(800, rates, {'f32': 50.0, 'bf16': 100.0})
    assert half['f32'] == pytest.approx((linear + quadratic) / (linear + 2 * quadratic))
    mixed = (linear / 400 + quadratic / 200) / (linear / 400 + quadratic / 100)
    assert half['int8'] == pytest.approx(mixed)


def test_both_forms_compute_the_same():
    outputs = [
        next(iter(bench_attention.attention_run(48, form, 'f32', 1)().values()))
        for form in bench_attention.FORMS
    ]
    np.testing.assert_allclose(outputs[0], outputs[1], rtol=1e-4, atol=1e-5)
