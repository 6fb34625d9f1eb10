# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The PixOOD graph against the formulas, written out again in numpy."""

import dataclasses

import numpy as np
import pytest
from monotone_curves import surprisal_of

from ood_perception.errors import ConfigError

torch = pytest.importorskip('torch')
from pixood_models import CLASSES, some_model  # noqa: E402
from scipy.stats import multivariate_normal  # noqa: E402

from trainer.heads.pixood.model import PixOODHead  # noqa: E402
from trainer.heads.upsampling import upsample  # noqa: E402

MODELLED = ('road', 'pavement', 'sky')


def some_tokens(count=2, size=(4, 6), dim=32, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(count, *size, dim, generator=generator) for _ in range(2)]


def oracle(model, tokens, factor):
    """Logits (B, H, W, C), and per modelled class (distance, raw score), in float64."""
    logits = model.classifier(torch.cat(tokens, 3))
    logits = upsample(logits, factor).detach().double().numpy()
    features = upsample(tokens[-1].double(), factor).numpy()
    found = {}
    for name in MODELLED:
        gaps = features[..., None, :] - model.etalons[name].astype(np.float64)
        found[name] = np.sqrt((gaps**2).sum(-1)).min(-1)
    return logits, found


def raw_score(model, name, logit, distance):
    density = model.densities[name]
    point = np.stack([logit, 1 / (1 + 0.5 * distance)], -1)
    known = multivariate_normal(density.mean, density.covariance).logpdf(point)
    other = multivariate_normal([0, 0], np.diag(model.ood_std**2)).logpdf(point)
    return other - known


@pytest.mark.parametrize('factor', [1, 3, 7])
def test_the_raw_scores_are_the_papers_likelihood_ratios(factor):
    model, tokens = some_model(), some_tokens()
    logits, distances = oracle(model, tokens, factor)

    scores, labels = PixOODHead(model, factor).raw_scores(*tokens)

    for place, name in enumerate(MODELLED):
        expected = raw_score(model, name, logits[..., CLASSES.index(name)], distances[name])
        np.testing.assert_allclose(scores[:, place].numpy(), expected, rtol=1e-4, atol=1e-3)
    assert labels.dtype == torch.uint8
    assert (labels.numpy() == logits.argmax(-1)).mean() > 0.999


def test_min_is_the_least_over_the_chosen_classes():
    model, tokens = some_model(), some_tokens()
    head = PixOODHead(model, 3)
    scores, _ = head.raw_scores(*tokens)
    each = [surprisal_of(model.held_out_curves[n], scores[:, i]) for i, n in enumerate(MODELLED)]

    surprisal, _ = head(*tokens, torch.tensor([1.0, 0.0, 1.0]))

    np.testing.assert_allclose(surprisal, np.minimum(each[0], each[2]), rtol=1e-4, atol=1e-4)


def test_one_more_class_never_makes_a_pixel_more_anomalous():
    head, tokens = PixOODHead(some_model(), 2), some_tokens()

    few, _ = head(*tokens, torch.tensor([1.0, 0.0, 0.0]))
    more, _ = head(*tokens, torch.tensor([1.0, 1.0, 0.0]))

    assert (more <= few).all()
    assert (more < few).any()


@pytest.mark.parametrize('calibration', ['held-out', 'paper'])
def test_unified_takes_largest_logit_and_least_distance(calibration):
    model, tokens = some_model(), some_tokens()
    logits, distances = oracle(model, tokens, 2)
    modelled = logits[..., [CLASSES.index(name) for name in MODELLED]]
    least = np.min(list(distances.values()), 0)
    curves = model.paper_curves if calibration == 'paper' else model.held_out_curves
    expected = surprisal_of(
        curves['unified'], raw_score(model, 'unified', modelled.max(-1), least)
    )

    head = PixOODHead(model, 2, selection='unified', calibration=calibration)
    surprisal, _ = head(*tokens, torch.ones(3))

    np.testing.assert_allclose(surprisal, expected, rtol=1e-4, atol=1e-4)


def test_gated_takes_the_class_with_the_largest_logit():
    model, tokens = some_model(), some_tokens()
    logits, _ = oracle(model, tokens, 2)
    modelled = logits[..., [CLASSES.index(name) for name in MODELLED]].argmax(-1)
    each = PixOODHead(model, 2, calibration='paper').outputs(*tokens, torch.ones(3))[2:]
    expected = np.choose(modelled, [one.numpy() for one in each])

    paper, _ = PixOODHead(model, 2, selection='gated', calibration='paper')(*tokens, torch.ones(3))
    held_out, _ = PixOODHead(model, 2, selection='gated')(*tokens, torch.ones(3))

    np.testing.assert_allclose(paper, expected, rtol=1e-4, atol=1e-4)
    curve = model.held_out_curves['gated']
    np.testing.assert_allclose(held_out, surprisal_of(curve, expected), rtol=1e-4, atol=1e-4)


def test_a_held_out_gate_takes_each_class_by_its_own_held_out_table():
    model, tokens = some_model(), some_tokens()
    logits, _ = oracle(model, tokens, 2)
    modelled = logits[..., [CLASSES.index(name) for name in MODELLED]].argmax(-1)
    each = PixOODHead(model, 2).outputs(*tokens, torch.ones(3))[2:]
    gate = np.choose(modelled, [one.numpy() for one in each])

    head = PixOODHead(model, 2, selection='gated', gate='held-out')

    np.testing.assert_allclose(head.raw_scores(*tokens)[0][:, 0], gate, rtol=1e-4, atol=1e-4)
    surprisal, _ = head(*tokens, torch.ones(3))
    curve = model.held_out_curves['gated']
    np.testing.assert_allclose(surprisal, surprisal_of(curve, gate), rtol=1e-4, atol=1e-4)
    with pytest.raises(ConfigError, match='no held-out tables to gate by: calibrate min first'):
        PixOODHead(
            dataclasses.replace(model, held_out_curves={}), selection='gated', gate='held-out'
        )


def test_a_class_subset_gives_the_same_scores():
    model, tokens = some_model(), some_tokens()
    whole = PixOODHead(model, 2).outputs(*tokens, torch.ones(3))
    part = PixOODHead(model, 2, classes=('sky', 'road'))

    _, labels, sky, road = part.outputs(*tokens, torch.ones(2))

    assert part.compiled_classes == ('sky', 'road')
    torch.testing.assert_close(labels, whole[1])
    torch.testing.assert_close(road, whole[2], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(sky, whole[4], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('factor', [2, 7])
def test_logits_of_upsampled_features_are_exact(factor):
    model, tokens = some_model(), some_tokens()
    head = PixOODHead(model, factor, logits='features')

    expected = model.classifier(upsample(torch.cat(tokens, 3), factor))

    torch.testing.assert_close(head.upsampled_logits(*tokens), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'classes': ('pole',)}, 'no etalons'),
        ({'classes': ('car',)}, 'no etalons'),
        ({'classes': ('road',), 'selection': 'unified'}, 'all classes'),
        ({'selection': 'most'}, 'min, gated, unified'),
        ({'calibration': 'guess'}, 'held-out'),
        ({'upsampling': 8}, '1 to 7'),
    ],
)
def test_a_wrong_option_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        PixOODHead(some_model(), **options)


def test_without_its_table_it_asks_for_calibration():
    model = dataclasses.replace(some_model(), held_out_curves={})
    head, tokens = PixOODHead(model, 2), some_tokens()

    assert head.raw_scores(*tokens)[0].shape == (2, 3, 8, 12)
    with pytest.raises(ConfigError, match='run calibrate'):
        head(*tokens, torch.ones(3))
