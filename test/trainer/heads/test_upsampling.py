# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The cheap upsampled distances equal those of upsampled features."""

import pytest

torch = pytest.importorskip('torch')
from trainer.heads.upsampling import (  # noqa: E402
    InterpolatedLinear,
    SquaredDistances,
    naive_squared_distances,
    upsample,
)


def some_tokens(size, dim=6, dtype=torch.float64, batch=2, seed=0, offset=3.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, *size, dim, generator=generator, dtype=dtype) + offset


def some_banks(counts, dim=6, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(n, dim, generator=generator, dtype=dtype) + 3.0 for n in counts]


@pytest.mark.parametrize('factor', range(1, 8))
@pytest.mark.parametrize('size', [(1, 1), (1, 4), (3, 1), (2, 5), (4, 3)])
def test_it_equals_the_naive_way_in_float64(size, factor):
    tokens, banks = some_tokens(size), some_banks([1, 7, 300])

    got = SquaredDistances(banks, factor)(tokens)

    for fast, naive in zip(got, naive_squared_distances(tokens, banks, factor), strict=True):
        assert fast.shape == (2, size[0] * factor, size[1] * factor)
        torch.testing.assert_close(fast, naive, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('factor', [1, 3])
def test_with_a_scale_it_is_the_distance_of_divided_tokens(factor):
    tokens, banks = some_tokens((2, 5)), some_banks([1, 7])
    scale = torch.linspace(0.1, 4.0, 6, dtype=torch.float64)

    got = SquaredDistances(banks, factor, scale=scale)(tokens)

    divided = naive_squared_distances(tokens / scale, [bank / scale for bank in banks], factor)
    torch.testing.assert_close(got, divided, rtol=1e-9, atol=1e-9)


def test_in_float32_it_errs_less_than_the_naive_way():
    """Tokens with a large common part, as ViT tokens have: centring keeps the differences."""
    tokens, banks = some_tokens((6, 9), 384, offset=20.0), some_banks([500], 384)
    banks[0] += 17.0
    truth = naive_squared_distances(tokens, banks, 7)[0]
    single = [bank.float() for bank in banks]

    fast = SquaredDistances(single, 7)(tokens.float())[0]
    naive = naive_squared_distances(tokens.float(), single, 7)[0]

    fast_error = ((fast - truth).abs() / truth).max()
    assert fast_error < 5e-6
    assert fast_error < ((naive - truth).abs() / truth).max()


def test_the_minimum_does_not_commute_with_the_interpolation():
    """Why the shortcut (minimum per patch, then upsampling) is not taken."""
    tokens, banks = some_tokens((4, 4)), some_banks([20])
    per_patch = SquaredDistances(banks, 1)(tokens)[0].unsqueeze(3)

    shortcut = upsample(per_patch, 5)[..., 0]

    assert (shortcut - SquaredDistances(banks, 5)(tokens)[0]).abs().max() > 0.1


def test_etalons_that_are_tokens_are_at_distance_zero():
    tokens = some_tokens((3, 4))
    distances = SquaredDistances([tokens[0].reshape(-1, 6)], 1)(tokens)[0]

    assert distances[0].max() < 1e-10
    assert distances[1].min() > 1e-3


@pytest.mark.parametrize('factor', [1, 2, 7])
def test_first_layer_products_may_be_interpolated_instead_of_features(factor):
    first, last = torch.nn.Linear(6, 8).double(), torch.nn.Linear(8, 3).double()
    rest = torch.nn.Sequential(torch.nn.GELU(), last)
    tokens = some_tokens((3, 5))

    got = InterpolatedLinear(first, rest, factor)(tokens)

    torch.testing.assert_close(got, rest(first(upsample(tokens, factor))), rtol=1e-9, atol=1e-9)


def test_a_grid_is_kept_for_one_factor_and_serves_another():
    """Corner lists are shared between heads; each head still has cells and phases of its own."""
    tokens, banks = some_tokens((3, 4)), some_banks([20])

    for factor in (7, 2, 7):
        got = SquaredDistances(banks, factor)(tokens)[0]
        torch.testing.assert_close(got, naive_squared_distances(tokens, banks, factor)[0])


@pytest.mark.parametrize('count', [1, 15, 16, 33, 127, 129, 257])
def test_filling_a_bank_up_to_whole_vectors_changes_no_distance(count):
    tokens, banks = some_tokens((2, 3)), some_banks([count])

    got = SquaredDistances(banks, 3)(tokens)[0]

    torch.testing.assert_close(got, naive_squared_distances(tokens, banks, 3)[0])
