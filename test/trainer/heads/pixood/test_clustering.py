# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The closed-form gradient against automatic differentiation, and Lloyd's K-means."""

import numpy as np
import pytest

torch = pytest.importorskip('torch')
from trainer.heads.pixood.clustering import assign, distances, kmeans, soft_loss  # noqa: E402
from trainer.heads.pixood.config import SOFT_METHODS  # noqa: E402


def plain_loss(x, c, beta, inverse_temperature, scale, method):
    """The paper's formula, written as it stands there."""
    d = scale * (x[:, None] - c[None]).norm(dim=2)
    w = torch.exp(-d * inverse_temperature)
    w = w / w.sum(1, keepdim=True)
    terms = {
        'condensation': d / beta + beta.log(),
        'soft_kmeans': d**2,
        'soft_kmedians': d,
    }
    return (w * terms[method]).sum(1).mean()


def a_case(seed=0, patches=40, etalons=7, dim=5):
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(patches, dim, generator=rng, dtype=torch.float64)
    c = torch.randn(etalons, dim, generator=rng, dtype=torch.float64)
    return x, c, torch.rand(etalons, generator=rng, dtype=torch.float64) * 5 + 0.5


@pytest.mark.parametrize('method', SOFT_METHODS)
@pytest.mark.parametrize('inverse_temperature', [0.5, 2.0])
def test_loss_and_gradient_are_those_of_the_plain_formula(method, inverse_temperature):
    x, c, beta = a_case()
    variables = [c.clone().requires_grad_(), beta.clone().requires_grad_()]
    expected = plain_loss(x, *variables, inverse_temperature, 1.7, method)
    expected.backward()

    got = soft_loss(
        x,
        c,
        beta,
        inverse_temperature=inverse_temperature,
        distance_scale=1.7,
        valid=torch.ones(len(c), dtype=torch.bool),
        method=method,
    )

    torch.testing.assert_close(got.loss, expected.detach())
    torch.testing.assert_close(got.etalons, variables[0].grad)
    if method == 'condensation':
        torch.testing.assert_close(got.scales, variables[1].grad)
    assert float(got.support.sum()) == pytest.approx(len(x))


@pytest.mark.parametrize('method', SOFT_METHODS)
def test_an_invalid_etalon_takes_no_part(method):
    x, c, beta = (value.float() for value in a_case())
    valid = torch.tensor([True, True, False, True, True, True, False])
    options = {'inverse_temperature': 1.0, 'distance_scale': 2.0, 'method': method}

    whole = soft_loss(x, c, beta, valid=valid, **options)
    without = soft_loss(x, c[valid], beta[valid], valid=valid[valid], **options)

    torch.testing.assert_close(whole.loss, without.loss)
    torch.testing.assert_close(whole.etalons[valid], without.etalons)
    assert (whole.etalons[~valid] == 0).all()
    assert (whole.scales[~valid] == 0).all()
    assert (whole.support[~valid] == 0).all()


def test_an_etalon_on_a_patch_has_a_finite_gradient():
    x, c, beta = (value.float() for value in a_case())
    c[0] = x[0]

    got = soft_loss(
        x,
        c,
        beta,
        inverse_temperature=1.0,
        distance_scale=5.0,
        valid=torch.ones(len(c), dtype=torch.bool),
    )

    assert torch.isfinite(got.etalons).all()
    assert float(got.etalons.norm(dim=1).max()) < 10


def test_distances_agree_with_float64():
    x, c, _ = a_case(patches=300, etalons=50, dim=64)

    got = distances(x.float(), c.float(), 3.0)

    np.testing.assert_allclose(got.numpy(), 3 * torch.cdist(x, c).numpy(), rtol=1e-5)


def test_kmeans_finds_separate_blobs_and_drops_what_wins_nothing():
    rng = torch.Generator().manual_seed(1)
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    x = (centres[:, None] + 0.1 * torch.randn(3, 50, 2, generator=rng)).reshape(-1, 2)
    start = torch.cat([x[[0, 50, 100]], torch.tensor([[1e3, 1e3]])])

    got = kmeans(x, start, 20)

    assert len(got) == 3
    torch.testing.assert_close(got, x.reshape(3, 50, 2).mean(1))
    assert assign(x, got).tolist() == [0] * 50 + [1] * 50 + [2] * 50
