# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Flows: exact inverses and determinants, likelihoods in closed form, and they learn."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='the trainer needs torch')
from scipy.stats import norm  # noqa: E402

from ood_perception.errors import ConfigError, DataError  # noqa: E402
from trainer.heads.nflowjs.flow import FlowConfig, build_flow, load_flow, save_flow  # noqa: E402
from trainer.heads.nflowjs.flow.layers import InvertibleConv, VariationalDequantiser  # noqa: E402

TINY = {
    'real_nvp': FlowConfig(modules=(2, 1, 2), width=6, seed=1),
    'dense_flow': FlowConfig(
        kind='dense_flow', modules=(1, 2, 1), units=(3, 2, 1), width=4, depth=2,
        dense_growth=4, growth=2, dequantisation='variational', seed=1,
    ),
}  # fmt: skip


def disturbed(config, dtype=torch.float64):
    """Return a flow whose every parameter is away from its neutral value."""
    torch.manual_seed(0)
    flow = build_flow(config).to(dtype)
    with torch.no_grad():
        for name, parameter in flow.named_parameters():
            size = 0.1
            if parameter.dim() > 1 and parameter.numel() > parameter.shape[1]:
                size = 0.5 / parameter[0].numel() ** 0.5
            if name.endswith('matrix'):  # its spectral norm moves by less than 0.3
                size = 0.15 / len(parameter) ** 0.5
            parameter.add_(size * torch.randn_like(parameter))
    return flow.eval()


@pytest.mark.parametrize('kind', TINY)
@pytest.mark.parametrize('size', [(8, 8), (24, 40)])
def test_decoding_undoes_encoding(kind, size):
    flow = disturbed(TINY[kind], torch.float32)
    images = torch.rand(2, 3, *size)
    with torch.no_grad():
        encoding = flow.encode(images)
        again = flow.decode(encoding.latents)
        latents = flow.encode(again, encoding.noise).latents
    torch.testing.assert_close(again, images, atol=1e-4, rtol=0)
    for one, other in zip(latents, encoding.latents, strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=0)


@pytest.mark.parametrize('kind', TINY)
def test_the_log_determinant_is_that_of_the_jacobian(kind):
    flow = disturbed(TINY[kind])
    photo = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        encoding = flow.encode(photo)
    shapes = [part.shape for part in (photo, *encoding.noise)]
    sizes = [shape.numel() for shape in shapes]

    def mapped(flat):
        parts = [p.reshape(s) for p, s in zip(flat.split(sizes), shapes, strict=True)]
        latents = flow.encode(parts[0], parts[1:]).latents
        return torch.cat([latent.flatten() for latent in latents])

    flat = torch.cat([part.flatten() for part in (photo, *encoding.noise)])
    jacobian = torch.autograd.functional.jacobian(mapped, flat, vectorize=True)
    assert jacobian.shape == (sum(sizes), sum(sizes))
    expected = torch.linalg.slogdet(jacobian)[1]
    assert encoding.log_det.item() == pytest.approx(expected.item(), rel=1e-9)


def test_an_affine_flow_has_the_likelihood_of_a_normal():
    flow = build_flow(replace(TINY['real_nvp'], modules=(1, 1, 1))).double().eval()
    scales = []
    with torch.no_grad():
        for number, scale in enumerate(flow.scales):
            norm_layer, conv, _ = scale.units[0].steps[0].steps
            assert isinstance(conv, InvertibleConv)
            conv.matrix.copy_(torch.eye(len(conv.matrix)))
            norm_layer.log_scale.fill_(0.3 + 0.1 * number)
            norm_layer.shift.fill_(0.2)
            scales.append(math.exp(0.3 + 0.1 * number))
        flow.mean.fill_(0.4)
        flow.log_sigma.fill_(-0.5)
    pixels = torch.randint(0, 256, (2, 3, 16, 8)).double()
    torch.manual_seed(5)
    got = flow.log_likelihood(pixels).detach().numpy()
    torch.manual_seed(5)
    y = (pixels + torch.rand_like(pixels)) / 256 - 0.5
    # by hand: squeeze, affine map with a swap of halves, half leaves, and so on
    x, expected = y, np.zeros(2)
    for number, factor in enumerate(scales):
        x = (torch.nn.functional.pixel_unshuffle(x, 2) + 0.2) * factor
        half = x.shape[1] // 2
        x = torch.cat((x[:, half:], x[:, :half]), 1)
        expected += x[0].numel() * math.log(factor)
        if number < 2:
            expected += norm.logpdf(x[:, half:].numpy()).sum((1, 2, 3))
            x = x[:, :half]
    expected += norm.logpdf(x.numpy(), 0.4, math.exp(-0.5)).sum((1, 2, 3))
    expected -= pixels[0].numel() * math.log(256)
    np.testing.assert_allclose(got, expected, rtol=1e-10)
    bits = flow.bits_per_dimension(pixels)
    assert bits.shape == (2,)


def test_noise_that_is_independent_of_the_image_changes_no_likelihood():
    """A new dense flow is a rotation, and a standard normal looks alike from all sides."""
    flow = build_flow(replace(TINY['dense_flow'], dequantisation='uniform')).double().eval()
    pixels = torch.randint(0, 256, (2, 3, 8, 16)).double()
    for seed in (3, 4):
        torch.manual_seed(seed)
        got = flow.log_likelihood(pixels).detach().numpy()
        torch.manual_seed(seed)
        y = ((pixels + torch.rand_like(pixels)) / 256 - 0.5).numpy()
        expected = norm.logpdf(y).sum((1, 2, 3)) - 384 * math.log(256)
        np.testing.assert_allclose(got, expected, rtol=1e-7)  # rotations made in float32


def test_the_variational_dequantiser_has_the_density_of_a_logistic_normal():
    layer = VariationalDequantiser().double()
    pixels = torch.randint(0, 256, (2, 3, 4, 4)).double()
    with torch.no_grad():
        added, log_q = layer(pixels)
    u = added.numpy()
    assert ((u > 0) & (u < 1)).all()
    expected = (norm.logpdf(np.log(u / (1 - u))) - np.log(u * (1 - u))).sum((1, 2, 3))
    np.testing.assert_allclose(log_q, expected, rtol=1e-8)


@pytest.mark.parametrize('kind', TINY)
def test_ten_steps_lower_the_loss(kind):
    torch.manual_seed(0)
    flow = build_flow(TINY[kind]).train()
    coarse = 60 + 120 * torch.rand(8, 3, 4, 4)  # smooth images with a little noise
    smooth = torch.nn.functional.interpolate(coarse, (16, 16), mode='bilinear')
    pixels = (smooth + 4 * torch.randn_like(smooth)).round().clamp(0, 255)
    optimizer = torch.optim.Adamax(flow.parameters(), 3e-3)
    losses = []
    for _ in range(10):
        loss = flow.bits_per_dimension(pixels).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(math.isfinite(loss) for loss in losses)
    assert np.mean(losses[-3:]) < losses[0]


def test_the_first_batch_leaves_act_norm_standardised():
    flow = build_flow(TINY['real_nvp']).train()
    norm_layer = flow.scales[0].units[0].steps[0].steps[0]
    y, log_det = norm_layer(5 + 3 * torch.randn(8, 12, 6, 6))
    assert y.mean().abs() < 1e-5
    assert y.var().item() == pytest.approx(1, abs=1e-2)
    assert log_det[0].item() == pytest.approx(-36 * 12 * math.log(3), rel=0.05)
    before = norm_layer.shift.clone()
    norm_layer(torch.randn(8, 12, 6, 6))
    assert torch.equal(norm_layer.shift, before)


@pytest.mark.parametrize('kind', TINY)
def test_samples_have_the_size_that_is_asked_for_and_carry_gradients(kind):
    flow = disturbed(TINY[kind], torch.float32)
    for size in ((8, 72), (40, 16)):
        images = flow.sample(3, *size)
        assert images.shape == (3, 3, *size)
        assert images.min() >= 0
        assert images.max() <= 255
    images.sum().backward()
    for name, parameter in flow.named_parameters():
        outside = 'dequantiser' in name or 'crossings' in name  # not part of sampling
        moved = parameter.grad is not None and parameter.grad.abs().sum() > 0
        assert outside or moved, name
    with pytest.raises(ConfigError, match='multiples of 8 pixels, not 12 x 8'):
        flow.sample(1, 12, 8)


def test_the_shipped_flow_is_small_and_the_paper_s_has_25_modules():
    small = build_flow(FlowConfig())
    assert sum(p.numel() for p in small.parameters()) <= 300_000
    paper = FlowConfig(kind='dense_flow', modules=(3, 4, 8), dense_growth=2, depth=1, width=2)
    modules = [m for m in build_flow(paper).modules() if isinstance(m, InvertibleConv)]
    assert len(modules) == 25


@pytest.mark.parametrize('kind', TINY)
def test_a_flow_survives_its_file(tmp_path, kind):
    flow = disturbed(TINY[kind], torch.float32)
    save_flow(tmp_path / 'flow.safetensors', flow, TINY[kind])
    again = load_flow(tmp_path / 'flow.safetensors')
    torch.manual_seed(1)
    first = flow.sample(1, 16, 16)
    torch.manual_seed(1)
    assert torch.equal(first, again.sample(1, 16, 16))
    (tmp_path / 'other.safetensors').write_bytes(b'no flow')
    with pytest.raises(DataError, match='is no flow of this trainer'):
        load_flow(tmp_path / 'other.safetensors')


def test_the_same_seed_gives_the_same_weights():
    one, other = build_flow(FlowConfig(seed=3)), build_flow(FlowConfig(seed=3))
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_wrong_options_are_refused_by_name():
    with pytest.raises(ConfigError, match=r"flow kind 'glow': choose one of real_nvp"):
        FlowConfig(kind='glow')
    with pytest.raises(ConfigError, match='side 60: give a multiple of 8'):
        FlowConfig(side=60)
