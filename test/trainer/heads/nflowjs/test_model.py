# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""NFlowJS: divergences, the loss and patches against hand-made values; gradients; resuming."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='the trainer needs torch')
pytest.importorskip('transformers')

from miniature_recipes import write_data  # noqa: E402
from scipy.spatial.distance import jensenshannon  # noqa: E402
from scipy.special import softmax  # noqa: E402
from scipy.stats import entropy  # noqa: E402
from tiny_backbones import tiny_backbone  # noqa: E402

from ood_perception.errors import ConfigError  # noqa: E402
from trainer.artifacts import Artifact  # noqa: E402
from trainer.augment.on_the_fly import Crops  # noqa: E402
from trainer.augment.pasting import OUTLIER  # noqa: E402
from trainer.augment.views import ViewSettings  # noqa: E402
from trainer.data.images import IGNORED  # noqa: E402
from trainer.datasets import load_images  # noqa: E402
from trainer.features import View, extract  # noqa: E402
from trainer.heads.nflowjs import config as nflowjs_config  # noqa: E402
from trainer.heads.nflowjs import model as nflowjs  # noqa: E402
from trainer.heads.nflowjs.config import NflowjsConfig  # noqa: E402
from trainer.heads.nflowjs.flow import FlowConfig, build_flow  # noqa: E402
from trainer.heads.nflowjs.flow.training import FlowRun  # noqa: E402
from trainer.heads.nflowjs.model import (  # noqa: E402
    NflowjsHead,
    anomaly_score,
    js_to_uniform,
    nflowjs_loss,
)
from trainer.heads.nflowjs.training import (  # noqa: E402
    JointRun,
    Selection,
    Start,
    cut,
    draw_places,
    paste,
    patch_sides,
    trained_part,
)
from trainer.nets.segmenter import Segmenter, SegmenterConfig  # noqa: E402

LAYERS = tuple(f'tokens_{block}' for block in range(4))
FLOW = FlowConfig(
    modules=(1, 1, 1), width=4, steps=12, batch=2, crops=2, side=16, select_every=6, warmup=2
)
JOINT = NflowjsConfig(
    crop=(28, 42), smallest=8, largest=16, reference=28, steps=9, batch=2, warmup=2, pixel_step=1,
    select_every=3, matmul='f32', device='cpu',
)  # fmt: skip
VIEW = View(56, 56, 'stretch')


def js_bound(classes: int) -> float:
    """Return the JSD between the uniform distribution over K classes and a certain one, nats."""
    k = classes
    certain = math.log(2 * k / (k + 1))
    uniform = math.log(2 / (k + 1)) / k + (k - 1) / k * math.log(2)
    return 0.5 * (certain + uniform)


def test_the_divergence_is_scipy_s():
    logits = np.random.default_rng(0).normal(size=(40, 7)) * 5
    uniform = np.full((40, 7), 1 / 7)
    p = softmax(logits, 1)
    values = torch.tensor(logits)
    expected = jensenshannon(p, uniform, axis=1) ** 2  # scipy gives the square root
    np.testing.assert_allclose(js_to_uniform(values), expected, rtol=1e-7)  # of the series
    scores = {name: anomaly_score(values, name, 1.0) for name in ('kl', 'reverse_kl')}
    np.testing.assert_allclose(-scores['kl'], entropy(uniform, p, axis=1), rtol=1e-9)
    np.testing.assert_allclose(-scores['reverse_kl'], entropy(p, uniform, axis=1), rtol=1e-9)
    largest = -np.log(p.max(1))
    np.testing.assert_allclose(anomaly_score(values, 'max_softmax', 1.0), largest, rtol=1e-9)


def test_the_divergence_is_exact_next_to_uniform_in_float32():
    """JSD of p = u (1 + x) is sum u x^2 / 8 to the second order."""
    x = np.array([1.0, -1.0, 0.0, 0.0]) * 10.0 ** np.linspace(-4, -1, 40)[:, None]
    logits = torch.tensor(np.log1p(x), dtype=torch.float32)
    p = softmax(np.log1p(x), 1)
    m = (p + 0.25) / 2
    expected = 0.5 * (p * np.log(p / m) + 0.25 * np.log(0.25 / m)).sum(1)
    second = (0.25 * x**2).sum(1) / 8
    got = js_to_uniform(logits).numpy()
    np.testing.assert_allclose(got[:20], second[:20], rtol=4e-3)
    np.testing.assert_allclose(got[20:], expected[20:], rtol=1e-4)
    assert (np.diff(got) > 0).all()


@pytest.mark.parametrize('classes', [2, 11, 19])
def test_the_divergence_lies_between_zero_and_its_bound(classes):
    assert js_to_uniform(torch.full((classes,), 3.0, dtype=torch.float64)) == pytest.approx(0)
    certain = torch.zeros(classes, dtype=torch.float64)
    certain[1] = 200
    assert js_to_uniform(certain).item() == pytest.approx(js_bound(classes), rel=1e-12)
    assert js_bound(19) == pytest.approx(0.58867, abs=5e-6)  # the published value


def test_the_temperature_divides_the_logits_and_flat_is_anomalous():
    logits = torch.tensor([[9.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    scores = anomaly_score(logits, 'js', 2.0)
    torch.testing.assert_close(scores, -js_to_uniform(logits / 2))
    assert (scores.diff() > 0).all()


def test_the_loss_is_cross_entropy_of_known_and_divergence_of_pasted_pixels():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(6, 3))
    truth = np.array([0, 2, OUTLIER, IGNORED, 1, OUTLIER])
    p = softmax(logits, 1)
    known = [0, 1, 4]
    expected = -np.mean(np.log(p[known, truth[known]]))
    pasted = jensenshannon(p[[2, 5]], np.full((2, 3), 1 / 3), axis=1) ** 2
    inputs = torch.tensor(logits), torch.tensor(truth)
    got = nflowjs_loss(*inputs, 'js', 0.03)
    assert got.item() == pytest.approx(expected + 0.03 * pasted.mean(), rel=1e-7)
    got = nflowjs_loss(*inputs, 'kl', 0.5)
    kl = entropy(np.full((2, 3), 1 / 3), p[[2, 5]], axis=1).mean()
    assert got.item() == pytest.approx(expected + 0.5 * kl, rel=1e-9)
    # nothing known, nothing pasted
    assert nflowjs_loss(inputs[0], torch.full((6,), IGNORED), 'js', 1.0).item() == 0


def test_patches_are_as_large_as_published_and_in_proportion():
    assert patch_sides((768, 768), 16, 216, 768) == list(range(16, 217, 8))
    assert patch_sides((1024, 2048), 16, 216, 768) == list(range(24, 289, 8))  # 21.3 to 288
    assert patch_sides((252, 336), 16, 216, 768) == list(range(8, 73, 8))  # 5.25 to 70.9
    assert patch_sides((20, 20), 16, 768, 768) == [8, 16]  # no larger than the crop


def test_places_stay_inside_the_image_and_reach_its_ends():
    images = np.zeros((1, 40, 60, 3), np.uint8)
    images[:, :32, :48] = 9  # the rest is padding
    rng = np.random.default_rng(0)
    drawn = [draw_places(images, [8, 16], rng) for _ in range(400)]
    assert {size for size, _ in drawn} == {(8, 8), (8, 16), (16, 8), (16, 16)}
    ends = np.array([(c[0][0] + s[0], c[0][1] + s[1]) for s, c in drawn])
    assert ends.max(0).tolist() == [32, 48]
    assert min(corners[0] for _, corners in drawn)[0] == 0


def test_a_pasted_patch_is_a_rectangle_of_outliers_void_included():
    images = torch.randint(0, 256, (2, 24, 24, 3)).float()
    labels = torch.zeros(2, 24, 24, dtype=torch.uint8)
    labels[:, :12] = IGNORED
    patches = torch.full((2, 3, 8, 16), 77.0)
    corners = [(4, 0), (16, 8)]
    before = cut(images, corners, (8, 16))
    mixed, truth = paste(images, labels, patches, corners)
    assert torch.equal(before[0], images[0, 4:12, :16].permute(2, 0, 1))
    assert torch.equal(cut(mixed, corners, (8, 16)), patches)
    for index, (top, left) in enumerate(corners):
        inside = torch.zeros(24, 24, dtype=torch.bool)
        inside[top : top + 8, left : left + 16] = True
        assert torch.equal(truth[index] == OUTLIER, inside)
        assert torch.equal(mixed[index][~inside], images[index][~inside])
        assert torch.equal(truth[index][~inside], labels[index][~inside])
    assert (labels != OUTLIER).all()  # the inputs are left alone


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp('nflowjs')
    write_data(root / 'data')
    return load_images('folders', root / 'data', 'train')


def crops(images, size=(28, 42)):
    return Crops(images, size, VIEW, ViewSettings(scale=(0.75, 1.5)))


def start(images, seed=0):
    torch.manual_seed(seed)
    segmenter = Segmenter(LAYERS, 16, len(images.classes.names), SegmenterConfig(width=8))
    return Start(segmenter.eval(), build_flow(FLOW).eval(), tiny_backbone(depth=4))


@pytest.fixture(scope='module')
def selection(images, tmp_path_factory):
    """Labels with a pasted square, as the selection's mixes have."""
    folder = tmp_path_factory.mktemp('tokens')
    features = extract(images, tiny_backbone(depth=4), range(4), VIEW, folder)
    labels = np.array(features.labels)
    labels[:, 20:40, 10:30] = OUTLIER
    return Selection(replace(features, labels=labels), images, VIEW)


def test_the_gradient_reaches_the_flow_through_the_frozen_backbone(images, selection):
    """Through paste, normalisation and backbone to every weight of the flow that sampling uses."""
    begun = start(images)
    run = JointRun(begun, crops(images), selection, JOINT)
    with torch.no_grad():
        for parameter in begun.flow.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    patches = begun.flow.sample(2, 8, 16)
    inputs, labels = torch.full((2, 28, 42, 3), 90.0), torch.zeros(2, 28, 42)
    mixed, truth = paste(inputs, labels, patches, [(4, 8), (12, 16)])
    logits = run.upsampler(run.logits(run.baked, mixed), 0, 0).flatten(0, 2)
    nflowjs_loss(logits, truth.flatten().long(), 'js', 1.0).backward()
    for name, parameter in begun.flow.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    assert all(p.grad is not None for p in begun.segmenter.classifier.parameters())
    assert all(p.grad is None for p in begun.backbone.parameters())


@pytest.mark.parametrize('rate', [0.0, 1e-3])
def test_only_a_tuned_backbone_moves(images, selection, rate):
    begun = start(images)
    before = {k: v.clone() for k, v in begun.backbone.state_dict().items()}
    config = replace(JOINT, backbone_rate=rate, steps=3)
    JointRun(begun, crops(images), selection, config).fit()
    after = begun.backbone.state_dict()
    moved = [name for name, value in before.items() if not torch.equal(value, after[name])]
    assert bool(moved) == bool(rate)
    assert not any(p.requires_grad for p in begun.backbone.parameters())


class Dying:
    """Images that end the run, as a kill would, at the n-th read."""

    def __init__(self, images, reads):
        self.images, self.reads = images, reads

    def __getattr__(self, name):
        return getattr(self.images, name)

    def __len__(self):
        return len(self.images)

    def read(self, index):
        self.reads -= 1
        if self.reads < 0:
            raise KeyboardInterrupt
        return self.images.read(index)


@pytest.mark.parametrize('negatives', ['flow', 'none'])
def test_a_killed_joint_run_goes_on_as_if_nothing_had_been(tmp_path, images, selection, negatives):
    config = replace(JOINT, negatives=negatives)
    whole = start(images)
    first = JointRun(whole, crops(images), selection, config).fit()
    assert len(first.history) == 3
    train, artifact = crops(images), Artifact(tmp_path, 'joint', 'key')
    train.key  # noqa: B018 (read the files before they die)
    object.__setattr__(train, 'images', Dying(images, 4 * 2))
    with pytest.raises(KeyboardInterrupt):
        JointRun(start(images), train, selection, config).fit(artifact)
    again = start(images)
    second = JointRun(again, crops(images), selection, config).fit(artifact)
    assert second.history == first.history
    for one, other in ((whole.segmenter, again.segmenter), (whole.flow, again.flow)):
        for name, value in one.state_dict().items():
            assert torch.equal(value, other.state_dict()[name]), name


def test_a_killed_flow_goes_on_as_if_nothing_had_been(tmp_path, images):
    size = (16, 16)
    whole = FlowRun(crops(images, size), crops(images, size), FLOW).fit()
    train, artifact = crops(images, size), Artifact(tmp_path, 'flow', 'key')
    train.key  # noqa: B018
    object.__setattr__(train, 'images', Dying(images, 8 * 4))
    with pytest.raises(KeyboardInterrupt):
        FlowRun(train, crops(images, size), FLOW).fit(artifact)
    again = FlowRun(crops(images, size), crops(images, size), FLOW).fit(artifact)
    assert again.history == whole.history
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name


def test_a_flow_learns_its_images(images):
    train = crops(images, (16, 16))
    training = FlowRun(train, train, replace(FLOW, steps=60, select_every=20)).fit()
    bits = [-look[2] for look in training.history]
    assert bits[-1] < bits[0]
    assert bits[-1] < 8  # fewer than the values themselves take


def test_crops_are_at_the_network_s_magnification(images):
    image, labels = images.read(0)
    ratio = VIEW.size[1] / labels.shape[1]
    drawn = Crops(images, VIEW.size, VIEW, ViewSettings(
        scale=(1.0, 1.0), flip=0.0, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0,
    )).draw(0, np.random.default_rng(0))  # fmt: skip
    height, width = round(labels.shape[0] * ratio), VIEW.size[1]
    smoother = cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR
    expected = cv2.resize(image, (width, height), interpolation=smoother)
    shown = min(height, VIEW.size[0])
    difference = np.abs(drawn[0][:shown].astype(int) - expected[:shown].astype(int))
    assert difference.max() <= 1


def test_the_head_scores_and_labels_its_own_segmenter(images):
    segmenter = start(images).segmenter
    head = NflowjsHead(segmenter, NflowjsConfig(temperature=1.5), ('left', 'right'))
    tokens = [torch.randn(2, 4, 4, 16) for _ in LAYERS]
    with torch.no_grad():
        raw, labels = head.raw_scores(*tokens)
        logits = segmenter(*tokens)
    torch.testing.assert_close(raw[:, 0], -js_to_uniform(logits / 1.5))
    assert torch.equal(labels, logits.argmax(-1).to(torch.uint8))
    assert raw.max() <= 0
    assert raw.min() >= -js_bound(logits.shape[-1]) - 1e-6


def test_what_is_only_served_does_not_change_the_training():
    config = NflowjsConfig(score='kl', temperature=1.0)
    assert trained_part(config) == NflowjsConfig()
    assert trained_part(replace(config, loss='kl')) != NflowjsConfig()


def test_a_recipe_may_name_every_formula_that_there_is():
    assert tuple(nflowjs.DIVERGENCES) == nflowjs_config.LOSSES
    assert tuple(nflowjs.SCORES) == nflowjs_config.SCORES


def test_wrong_options_are_refused_by_name():
    with pytest.raises(ConfigError, match=r"nflowjs loss 'hellinger': choose one of js, kl"):
        NflowjsConfig(loss='hellinger')
    with pytest.raises(ConfigError, match='patches from 300 to 216 at 768'):
        NflowjsConfig(smallest=300)
    with pytest.raises(ConfigError, match='temperature 0 must be above 0'):
        NflowjsConfig(temperature=0.0)
    assert math.isclose(NflowjsConfig().weight, 0.03)
