# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""UEM and its segmenter: formulas against closed forms, training that resumes."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='the trainer needs torch')

from segmenter_features import LAYERS, SEGMENTER, dying, feature_set  # noqa: E402

from ood_perception.errors import ConfigError  # noqa: E402
from trainer.artifacts import Artifact  # noqa: E402
from trainer.heads.uem.config import UemConfig  # noqa: E402
from trainer.heads.uem.model import (  # noqa: E402
    Uem,
    UemHead,
    load_uem,
    log_likelihood_ratio,
    save_uem,
    uem_loss,
)
from trainer.heads.uem.training import UemRun, known_scores  # noqa: E402
from trainer.nets.gmm import GmmSettings  # noqa: E402
from trainer.nets.segmenter import (  # noqa: E402
    Decoder,
    Segmenter,
    SegmenterConfig,
    load_segmenter,
    save_segmenter,
)
from trainer.training.segmenter import SegmenterRun, confusion_iou  # noqa: E402

UEM = UemConfig(steps=30, warmup=3, select_every=10, batch=2)


@pytest.fixture(scope='module')
def segmenter():
    known = feature_set(6, outliers=False)
    return SegmenterRun(known, known, LAYERS, 2, SEGMENTER).fit().model


@pytest.mark.parametrize('preset', ['light', 'full'])
@pytest.mark.parametrize('size', [(2, 3), (3, 5), (27, 48)])
def test_the_decoder_gives_four_cells_a_patch(preset, size):
    decoder = Decoder(LAYERS, 8, 6, preset).eval()
    feature = decoder(*(torch.randn(2, *size, 8) for _ in LAYERS))
    assert feature.shape == (2, 6, 4 * size[0], 4 * size[1])


@pytest.mark.parametrize('head', ['linear', 'gmm'])
def test_the_segmenter_learns_what_its_tokens_say(head):
    known = feature_set(6, outliers=False)
    config = replace(SEGMENTER, head=head, steps=60, gmm=GmmSettings(queue=100, momentum=0.9))
    training = SegmenterRun(known, known, LAYERS, 2, config).fit()
    assert np.nanmean(confusion_iou(training.model, known)) > 0.8
    assert len(training.history) == 6


@pytest.mark.parametrize('head', ['linear', 'gmm'])
def test_a_killed_segmenter_goes_on_as_if_nothing_had_been(tmp_path, head):
    known = feature_set(6, outliers=False)
    config = replace(SEGMENTER, head=head, gmm=GmmSettings(queue=50))
    whole = SegmenterRun(known, known, LAYERS, 2, config).fit()
    artifact = Artifact(tmp_path, 'segmenter', 'key')
    with pytest.raises(KeyboardInterrupt):
        SegmenterRun(dying(known, 14, 4), known, LAYERS, 2, config).fit(artifact)
    again = SegmenterRun(known, known, LAYERS, 2, config).fit(artifact)
    assert again.history == whole.history
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name


def test_a_segmenter_survives_its_file(tmp_path, segmenter):
    save_segmenter(tmp_path / 'segmenter.safetensors', segmenter)
    again = load_segmenter(tmp_path / 'segmenter.safetensors')
    tokens = [torch.randn(1, 4, 6, 8) for _ in LAYERS]
    assert torch.equal(again(*tokens), segmenter(*tokens))


def test_llr_is_the_closed_form():
    outlier, inlier, known = torch.tensor([3.0]), torch.tensor([1.0]), torch.tensor([0.5])
    assert log_likelihood_ratio(outlier, inlier, known).item() == pytest.approx(1.5)


def test_the_loss_is_bce_of_the_ratio_and_weighted_cross_entropy():
    rng = np.random.default_rng(0)
    scores, known, truth = rng.normal(size=(50, 2)), rng.normal(size=50), rng.integers(0, 2, 50)
    ratio = scores[:, 1] - scores[:, 0] - known
    p = 1 / (1 + np.exp(-ratio))
    bce = -np.mean(truth * np.log(p) + (1 - truth) * np.log(1 - p))
    log_soft = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    own = -np.mean(log_soft[np.arange(50), truth])
    inputs = torch.tensor(scores), torch.tensor(known), torch.tensor(truth)
    assert uem_loss(*inputs, 0.0).item() == pytest.approx(bce, rel=1e-9)
    assert uem_loss(*inputs, 0.5).item() == pytest.approx(bce + 0.5 * own, rel=1e-9)


@pytest.mark.parametrize('form', ['discriminative', 'generative'])
def test_uem_finds_the_outliers_that_its_tokens_show(segmenter, form):
    train, select = feature_set(6), feature_set(3, seed=5)
    config = replace(UEM, form=form, steps=60, gmm=GmmSettings(queue=100, every=3, momentum=0.9))
    data = [(f, known_scores(segmenter, f)) for f in (train, select)]
    training = UemRun(*data, LAYERS[-1], config).fit()
    assert max(look[2] for look in training.history) > 0.9


@pytest.mark.parametrize('form', ['discriminative', 'generative'])
def test_a_killed_uem_goes_on_as_if_nothing_had_been(tmp_path, segmenter, form):
    train, config = feature_set(6), replace(UEM, form=form, gmm=GmmSettings(queue=50, every=3))
    data = (train, known_scores(segmenter, train))
    whole = UemRun(data, data, LAYERS[-1], config).fit()
    artifact = Artifact(tmp_path, 'uem', 'key')
    cut = (dying(train, 14, 2), data[1])
    with pytest.raises(KeyboardInterrupt):
        UemRun(cut, data, LAYERS[-1], config).fit(artifact)
    again = UemRun(data, data, LAYERS[-1], config).fit(artifact)
    assert again.history == whole.history
    save_uem(tmp_path / 'uem.safetensors', whole.model)
    tokens = torch.randn(1, 4, 6, 8)
    assert torch.equal(load_uem(tmp_path / 'uem.safetensors')(tokens), again.model(tokens))


def test_parameter_counts_are_those_of_the_paper():
    assert sum(p.numel() for p in Uem(768, UemConfig()).parameters()) == 788_226
    assert sum(p.numel() for p in Uem(384, UemConfig()).parameters()) == 591_618


@pytest.mark.parametrize('score', ['llr', 'id', 'ood'])
def test_the_head_combines_as_its_score_says(segmenter, score):
    module = Uem(8, replace(UEM, score=score)).eval()
    head = UemHead(segmenter, module, ('left', 'right'))
    tokens = [torch.randn(2, 4, 6, 8) for _ in LAYERS]
    with torch.no_grad():
        raw, labels = head.raw_scores(*tokens)
        logits = segmenter(*tokens)
        fine = torch.nn.functional.interpolate(
            module(tokens[-1]).permute(0, 3, 1, 2), (16, 24), mode='bilinear'
        )
    known, ratio = logits.amax(-1), fine[:, 1] - fine[:, 0]
    expected = {'llr': ratio - known, 'id': -known, 'ood': ratio}[score]
    torch.testing.assert_close(raw[:, 0], expected)
    assert torch.equal(labels, logits.argmax(-1).to(torch.uint8))


def test_wrong_options_are_refused_by_name():
    with pytest.raises(ConfigError, match=r"uem form 'D': choose one of discriminative"):
        UemConfig(form='D')
    with pytest.raises(ConfigError, match=r"segmenter head 'softmax'"):
        SegmenterConfig(head='softmax')
    assert math.isclose(UemConfig(form='generative').own_weight, 0.5)


def test_the_segmenter_is_the_same_with_and_without_uem(segmenter):
    tokens = [torch.randn(1, 4, 6, 8) for _ in LAYERS]
    before = segmenter(*tokens).argmax(-1)
    train = feature_set(4)
    data = (train, known_scores(segmenter, train))
    UemRun(data, data, LAYERS[-1], UEM).fit()
    assert torch.equal(Segmenter.forward(segmenter, *tokens).argmax(-1), before)
