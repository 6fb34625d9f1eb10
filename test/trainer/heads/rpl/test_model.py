# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""RPL and CoroCL: losses against closed forms and naive loops, a block that learns and resumes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='the trainer needs torch')
from scipy.ndimage import correlate  # noqa: E402
from scipy.special import log_softmax, logsumexp, softmax  # noqa: E402
from scipy.stats import entropy as scipy_entropy  # noqa: E402
from segmenter_features import LAYERS, SEGMENTER, dying, feature_set  # noqa: E402
from torch.nn import functional  # noqa: E402

from ood_perception.errors import ConfigError, DataError  # noqa: E402
from trainer.artifacts import Artifact  # noqa: E402
from trainer.augment.pasting import OUTLIER  # noqa: E402
from trainer.data.images import IGNORED  # noqa: E402
from trainer.features import tokens_of  # noqa: E402
from trainer.heads.rpl.block import ResidualBlock, load_block, save_block, to_feature_grid  # noqa: E402
from trainer.heads.rpl.config import RplConfig  # noqa: E402
from trainer.heads.rpl.losses import (  # noqa: E402
    Pools,
    contrastive_loss,
    dissimilarity,
    draw_pools,
    energy,
    entropy,
    positive_energy,
    pseudo_label_loss,
    rpl_loss,
)
from trainer.heads.rpl.model import RplHead, Smoothing  # noqa: E402
from trainer.heads.rpl.training import RplRun, frozen_features  # noqa: E402
from trainer.nets.deeplab import Aspp, scaled_dilations  # noqa: E402
from trainer.training.segmenter import SegmenterRun  # noqa: E402

RPL = RplConfig(width=8, steps=30, select_every=10, batch=2, learning_rate=5e-3, samples=32)


@pytest.fixture(scope='module')
def segmenter():
    known = feature_set(6, outliers=False)
    return SegmenterRun(known, known, LAYERS, 2, SEGMENTER).fit().model


@pytest.fixture(scope='module')
def logits():
    rng = np.random.default_rng(0)
    return [torch.tensor(rng.normal(size=(40, 5)) * scale) for scale in (3.0, 2.0)]


def labels_of(count=40):
    labels = torch.zeros(count, dtype=torch.int64)
    labels[:10], labels[10:15] = OUTLIER, IGNORED
    return labels


def test_energy_and_entropy_are_their_definitions(logits):
    residual = logits[0].numpy()
    np.testing.assert_allclose(energy(logits[0]), -logsumexp(residual, axis=1), rtol=1e-12)
    expected = scipy_entropy(softmax(residual, axis=1), axis=1)
    np.testing.assert_allclose(entropy(logits[0]), expected, rtol=1e-5)


def test_entropy_and_energy_stay_finite_where_exponentials_would_not():
    extreme = torch.tensor([[1e4, 0.0, -1e4], [-1e4, -1e4, -1e4]], requires_grad=True)
    (entropy(extreme).sum() + energy(extreme).sum()).backward()
    assert torch.isfinite(extreme.grad).all()


def test_pseudo_labels_are_the_frozen_networks_own(logits):
    residual, frozen = logits
    choice = frozen.numpy().argmax(1)
    expected = -log_softmax(residual.numpy(), axis=1)[np.arange(40), choice].mean()
    assert pseudo_label_loss(residual, frozen).item() == pytest.approx(expected, rel=1e-12)


def test_dissimilarity_is_the_squared_difference_of_entropies(logits):
    residual, frozen = logits
    shares = [softmax(values.numpy(), axis=1) for values in logits]
    expected = ((scipy_entropy(shares[0], axis=1) - scipy_entropy(shares[1], axis=1)) ** 2).mean()
    assert dissimilarity(residual, frozen).item() == pytest.approx(expected, rel=1e-5)


def test_positive_energy_rises_to_zero_and_not_beyond():
    low, high = torch.tensor([[2.0, 1.0]]), torch.tensor([[-4.0, -5.0]])
    assert positive_energy(low).item() == pytest.approx(np.log(np.e**2 + np.e))
    assert positive_energy(high).item() == 0.0
    both = torch.cat([low, high]).requires_grad_()
    positive_energy(both).backward()
    assert (both.grad[1] == 0).all()
    np.testing.assert_allclose(both.grad[0], low[0].softmax(0) / 2, rtol=1e-6)  # d lse / dF


def test_the_loss_is_the_sum_of_its_means_over_the_right_pixels(logits):
    residual, frozen = logits
    known, pasted = slice(15, None), slice(0, 10)
    expected = (
        pseudo_label_loss(residual[known], frozen[known])
        + dissimilarity(residual[known], frozen[known])
        + 0.05 * positive_energy(residual[pasted])
    )
    torch.testing.assert_close(rpl_loss(residual, frozen, labels_of()), expected)
    plain = rpl_loss(residual, frozen, labels_of(), regularised=False)
    torch.testing.assert_close(plain + dissimilarity(residual[known], frozen[known]), expected)


def test_gradients_are_those_of_autograd_and_never_reach_the_frozen_logits(logits):
    residual, frozen = (values[:20].clone().requires_grad_() for values in logits)
    rpl_loss(residual, frozen, labels_of(20)).backward()
    assert frozen.grad is None

    def loss(values):
        return rpl_loss(values, frozen.detach(), labels_of(20))

    assert torch.autograd.gradcheck(loss, (residual,))


@pytest.mark.parametrize('label', [OUTLIER, IGNORED, 0])
def test_a_batch_without_pasted_or_known_pixels_gives_no_nan(logits, label):
    residual = logits[0].clone().requires_grad_()
    loss = rpl_loss(residual, logits[1], torch.full((40,), label))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(residual.grad).all()
    if label == IGNORED:
        assert loss.item() == 0.0


def naive_corocl(city, context, temperature):
    """The definition, pair by pair; city, context: lists of (vector, label)."""
    contrast, total = city + context, []
    for a, (anchor, label) in enumerate(city):
        similar = [float(anchor @ other) / temperature for other, _ in contrast]
        positive = [i for i, (_, one) in enumerate(contrast) if one == label and i != a]
        negative = sum(np.exp(similar[i]) for i, (_, one) in enumerate(contrast) if one != label)
        terms = [-np.log(np.exp(similar[i]) / (np.exp(similar[i]) + negative)) for i in positive]
        total.append(np.mean(terms))
    return np.mean(total)


@pytest.mark.parametrize('with_context', [True, False])
def test_corocl_is_the_double_loop(with_context):
    torch.manual_seed(1)
    pools = [torch.randn(6, 5, dtype=torch.float64) for _ in range(4)]
    unit = [functional.normalize(pool, dim=1).numpy() for pool in pools]
    marked = [[(v, i % 2) for v in pool] for i, pool in enumerate(unit)]
    context = marked[2] + marked[3] if with_context else []
    expected = naive_corocl(marked[0] + marked[1], context, 0.1)
    chosen = Pools(*pools) if with_context else Pools(*pools[:2])
    assert contrastive_loss(chosen, 0.1).item() == pytest.approx(expected, rel=1e-9)


def test_corocl_has_the_gradient_of_its_definition_and_no_overflow():
    pools = [torch.randn(3, 4, dtype=torch.float64, requires_grad=True) for _ in range(4)]
    assert torch.autograd.gradcheck(lambda *p: contrastive_loss(Pools(*p), 0.5), pools)
    sharp = contrastive_loss(Pools(*(p.float() for p in pools)), 1e-3)
    assert torch.isfinite(sharp)


@pytest.mark.parametrize(('size', 'context'), [(0, True), (0, False), (1, False)])
def test_pools_that_are_too_small_cost_nothing(size, context):
    pools = [torch.randn(size, 4, requires_grad=True) for _ in range(4 if context else 2)]
    loss = contrastive_loss(Pools(*pools))
    loss.backward()
    assert loss.item() == 0.0
    assert all(torch.isfinite(pool.grad).all() for pool in pools)


def city_of(outliers=(0, 1), side=6):
    """Three images; embeddings say image, row and column; objects in those asked for."""
    labels = np.zeros((3, side, side), np.uint8)
    labels[:, 0] = IGNORED
    for photo in outliers:
        labels[photo, 2:4, 2:5] = OUTLIER
    places = np.stack(np.meshgrid(*map(np.arange, labels.shape), indexing='ij'), -1)
    return torch.tensor(places, dtype=torch.float32), labels


def test_pools_hold_what_their_names_say_equally_often_and_once():
    city, context = city_of((0, 1)), city_of((2,))
    pools = draw_pools(city, context, np.random.default_rng(0), most=512)
    drawn = [pools.city_outlier, pools.city_known, pools.context_outlier, pools.context_known]
    assert {len(pool) for pool in drawn} == {6}  # the one object of the context is the smallest
    for pool, (_, labels), outlier in zip(
        drawn, (city, city, context, context), (True, False) * 2, strict=True
    ):
        places = pool.long().numpy()
        assert len(np.unique(places, axis=0)) == len(places)
        found = labels[tuple(places.T)]
        assert ((found == OUTLIER) == outlier).all()
        assert (found != IGNORED).all()
    assert set(pools.city_known[:, 0].tolist()) <= {0.0, 1.0}  # images with an object alone


@pytest.mark.parametrize('outliers', [(), (1,)])
def test_fewer_than_two_images_with_objects_draw_nothing(outliers):
    assert draw_pools(city_of(outliers), None, np.random.default_rng(0)) is None


def test_an_empty_context_pool_draws_nothing():
    assert draw_pools(city_of(), city_of(()), np.random.default_rng(0)) is None


def test_the_parameters_are_as_many_as_published():
    with torch.device('meta'):
        block = ResidualBlock(4096, 256, 304, (12, 24, 36))
        projector = torch.nn.Conv2d(256, 304, 1)
    count = sum(p.numel() for part in (block, projector) for p in part.parameters())
    assert round(count / 1e6, 2) == 30.89


def test_dilations_keep_their_share_of_the_image():
    assert scaled_dilations(128) == (12, 24, 36)
    assert scaled_dilations(27) == (3, 5, 8)
    assert min(scaled_dilations(1)) == 1


def test_the_branches_see_what_their_dilations_say():
    aspp = Aspp(1, 1, (1, 2, 3)).eval()
    for branch in (aspp.pooled, *aspp.branches):
        torch.nn.init.ones_(branch[0].weight)
    single = torch.zeros(1, 1, 9, 9)
    single[..., 4, 4] = 1.0
    with torch.no_grad():
        pooled, point, *reaches = aspp(single)[0]
    assert torch.allclose(pooled, torch.full((9, 9), 1 / 81), rtol=1e-4)
    assert point.nonzero().tolist() == [[4, 4]]
    for rate, reach in zip((1, 2, 3), reaches, strict=True):
        expected = [[4 + i * rate, 4 + j * rate] for i in (-1, 0, 1) for j in (-1, 0, 1)]
        assert reach.nonzero().tolist() == expected


def test_convolving_before_upsampling_is_what_the_paper_computes(segmenter):
    block = ResidualBlock(8, 6, 5, (1, 1, 2)).eval()
    trunk = torch.randn(2, 4, 6, 8)
    with torch.no_grad():
        embedded = block.embed(trunk)
        ours = to_feature_grid(segmenter, block.last(embedded), (16, 24))
        fine = functional.interpolate(embedded, (16, 24), mode='bilinear')
        paper = block.last(fine).permute(0, 2, 3, 1)
    torch.testing.assert_close(ours, paper, atol=1e-5, rtol=1e-4)


def test_smoothing_is_a_gaussian_reflected_at_the_border():
    maps = np.random.default_rng(0).normal(size=(2, 9, 12))
    line = np.exp(-0.5 * np.arange(-3, 4) ** 2)
    kernel = np.outer(line, line) / line.sum() ** 2
    expected = [correlate(one, kernel, mode='mirror') for one in maps]
    smoothed = Smoothing()(torch.tensor(maps, dtype=torch.float32))
    np.testing.assert_allclose(smoothed, expected, rtol=1e-4, atol=1e-5)


def trained(segmenter, **changes):
    train, select = feature_set(6), feature_set(3, seed=5)
    context = feature_set(4, seed=8)
    options = replace(RPL, **changes)
    return RplRun(segmenter, (train, context), select, options).fit()


@pytest.mark.parametrize(
    'losses', [(False, False, False), (True, False, False), (True, True, False), (True,) * 3]
)
def test_the_block_finds_the_outliers_that_its_tokens_show(segmenter, losses):
    names = ('dissimilarity', 'contrast', 'context')
    options = dict(zip(names, losses, strict=True))
    training = trained(segmenter, steps=60, batch=4, width=16, learning_rate=1e-2, **options)
    # 13 % of the pixels are outliers, and a patch's score is smoothed over its neighbours
    assert max(look[2] for look in training.history) > 0.7


def test_labels_are_the_frozen_networks_bit_for_bit(segmenter):
    before = {name: value.clone() for name, value in segmenter.state_dict().items()}
    block = trained(segmenter).model
    for name, value in segmenter.state_dict().items():
        assert torch.equal(value, before[name]), name
    tokens = [torch.randn(2, 4, 6, 8) for _ in LAYERS]
    _, labels = RplHead(segmenter, block, ('left', 'right')).raw_scores(*tokens)
    with torch.no_grad():
        assert torch.equal(labels, segmenter(*tokens).argmax(-1).to(torch.uint8))


def test_a_killed_run_goes_on_as_if_nothing_had_been(tmp_path, segmenter):
    train, select, context = feature_set(6), feature_set(3, seed=5), feature_set(4, seed=8)
    whole = RplRun(segmenter, (train, context), select, RPL).fit()
    artifact = Artifact(tmp_path, 'rpl', 'key')
    cut = dying(train, 14, 2)
    with pytest.raises(KeyboardInterrupt):
        RplRun(segmenter, (cut, context), select, RPL).fit(artifact)
    again = RplRun(segmenter, (train, context), select, RPL).fit(artifact)
    assert again.history == whole.history
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name


def test_features_that_are_kept_train_as_those_that_are_computed(tmp_path, segmenter):
    train, select = feature_set(6), feature_set(3, seed=5)
    kept = []
    for name, features in (('train', train), ('select', select)):
        frozen_features(segmenter, features, tmp_path / f'{name}.npy')
        kept.append(np.load(tmp_path / f'{name}.npy'))
    tokens = tokens_of(train, LAYERS, [2])
    np.testing.assert_array_equal(kept[0][2], segmenter.feature(*tokens)[0].detach().half())
    config = replace(RPL, matmul='f32', contrast=False, steps=10)
    runs = [
        RplRun(segmenter, (train, None), select, config, frozen=frozen).fit()
        for frozen in ((None, None), (kept[0], kept[1]))
    ]
    np.testing.assert_allclose(runs[0].history, runs[1].history, rtol=0.02)  # float16


def test_the_projector_learns_and_stays_behind(tmp_path, segmenter):
    block = trained(segmenter).model
    save_block(tmp_path / 'rpl.safetensors', block)
    again = load_block(tmp_path / 'rpl.safetensors')
    assert not any('projector' in name for name in again.state_dict())
    trunk = torch.randn(1, 4, 6, 8)
    with torch.no_grad():
        assert torch.equal(again.last(again.embed(trunk)), block.last(block.embed(trunk)))


def test_the_last_layer_learns_ten_times_as_fast_along_the_polynomial(segmenter):
    run = RplRun(segmenter, (feature_set(6), None), feature_set(3), RPL)
    run.step = 15
    run._advance()
    slow, last = (group['lr'] for group in run.optimizer.param_groups)
    assert slow == pytest.approx(RPL.learning_rate * 0.5**0.9)
    assert last == pytest.approx(10 * slow)
    assert len(run.optimizer.param_groups[1]['params']) == 1


def test_a_rate_that_is_too_high_is_named(segmenter):
    with pytest.raises(DataError, match=r'at step \d+: lower rpl.learning_rate \(1e\+30\)'):
        trained(segmenter, learning_rate=1e30)


def test_wrong_options_and_files_are_refused(tmp_path, segmenter):
    with pytest.raises(ConfigError, match=r'rpl batch 1: give at least 2: its BatchNorm'):
        RplConfig(batch=1)
    with pytest.raises(ConfigError, match=r'dilations \[3\]: give 3'):
        RplConfig(dilations=(3,))
    known = feature_set(3, outliers=False)
    with pytest.raises(DataError, match=r'no selection mix holds an outlier'):
        RplRun(segmenter, (feature_set(3), None), known, RPL).fit()
    (tmp_path / 'other.safetensors').write_bytes(b'nothing')
    with pytest.raises(DataError, match=r'is no rpl of this trainer'):
        load_block(tmp_path / 'other.safetensors')
