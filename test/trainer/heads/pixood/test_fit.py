# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""PixOOD from features to calibrated model: what it flags, what it keeps, what it refuses."""

import copy
import dataclasses

import numpy as np
import pytest

from ood_perception.errors import ConfigError, DataError

torch = pytest.importorskip('torch')
from feature_sets import make_feature_set  # noqa: E402
from pixood_features import CLASSES, CONFIG, LAYERS, classifier, head_of, model, train  # noqa: E402

from trainer.heads.pixood.training import (  # noqa: E402
    VALUES,
    fit_pixood,
    load_model,
    save_model,
)

__all__ = ['classifier', 'model', 'train']  # fixtures


def surprisal_of(model, features, selection):
    head = head_of(model, selection)
    tokens = [torch.from_numpy(features.tokens[layer]).float() for layer in LAYERS]
    with torch.inference_mode():
        return head(*tokens, torch.ones(len(head.compiled_classes)))[0].numpy()


@pytest.mark.parametrize('selection', ['min', 'unified', 'gated'])
def test_fresh_images_keep_the_rate_and_unknown_tokens_are_flagged(model, selection):
    fresh = make_feature_set(images=40, seed=2)
    unknown = make_feature_set(images=4, seed=2, world=99)

    flagged = (surprisal_of(model, fresh, selection) >= 1.0).mean()
    found = (surprisal_of(model, unknown, selection) >= 1.0).mean()

    assert flagged < 0.12  # target 0.1; min over all classes is conservative
    assert found > 0.5


def test_the_paper_tables_follow_the_densities_of_the_training_patches(model):
    assert set(model.paper_curves) == set(model.densities) == {*CLASSES, 'unified'}
    assert set(model.held_out_curves) == {*CLASSES, 'unified', 'gated'}
    for density in model.densities.values():
        assert 0 < density.mean[1] < 1
        assert np.linalg.eigvalsh(density.covariance).min() > 0


def test_the_report_tells_patches_etalons_and_held_out_pixels(model):
    for name in CLASSES:
        assert model.report['classes'][name]['etalons'] == len(model.etalons[name])
        assert model.report['classes'][name]['fitted_on'] == 'pure'
        assert model.report['calibration']['min']['pixels'][name] > 1000
    assert model.report['calibration']['min']['upsampling'] == 2


@pytest.mark.parametrize('scaled', [False, True])
def test_a_saved_model_gives_the_same_surprisal(model, tmp_path, scaled):
    features = make_feature_set(images=3, seed=3)
    width = features.tokens[LAYERS[-1]].shape[-1]
    scale = np.linspace(0.5, 2.0, width, dtype=np.float32) if scaled else None
    plain, model = model, dataclasses.replace(model, scale=scale)
    changed = surprisal_of(model, features, 'min') != surprisal_of(plain, features, 'min')
    assert changed.any() == scaled

    save_model(model, tmp_path / 'model')
    loaded = load_model(tmp_path / 'model')

    for selection in ('min', 'unified', 'gated'):
        expected = surprisal_of(model, features, selection)
        np.testing.assert_array_equal(surprisal_of(loaded, features, selection), expected)
    assert loaded.report == model.report
    assert loaded.classes == model.classes


def test_a_class_with_too_few_patches_keeps_its_logit_and_has_no_model(train, classifier):
    labels = np.where(train.labels == 1, 255, train.labels).astype(np.uint8)
    fitted = fit_pixood(dataclasses.replace(train, labels=labels), classifier, CLASSES, *CONFIG)

    assert fitted.modelled == ('road', 'sky')
    assert fitted.report['classes']['pavement']['fitted_on'] == 'none'
    assert set(fitted.paper_curves) == {'road', 'sky', 'unified'}
    assert head_of(fitted, 'min').compiled_classes == ('road', 'sky')


def test_the_same_seed_gives_the_same_model(train, classifier, model):
    again = fit_pixood(train, classifier, CLASSES, *CONFIG)

    for name in CLASSES:
        np.testing.assert_array_equal(again.etalons[name], model.etalons[name])
        np.testing.assert_array_equal(
            again.paper_curves[name].knots, model.paper_curves[name].knots
        )


def stretched(features, classifier, by=8.0):
    """Return tokens whose first dimension is in another unit, and a classifier that knows it."""
    last, other = LAYERS[-1], copy.deepcopy(classifier)
    tokens = features.tokens[last].copy()
    tokens[..., 0] *= by
    column = sum(features.tokens[layer].shape[-1] for layer in LAYERS[:-1])
    with torch.no_grad():
        other.hidden.weight[:, column] /= by
    changed = dataclasses.replace(features, tokens={**features.tokens, last: tokens})
    return changed, other


@pytest.mark.parametrize('standardise', [True, False])
def test_standardised_distances_do_not_depend_on_a_dimensions_unit(train, classifier, standardise):
    patches, settings = CONFIG
    settings = dataclasses.replace(settings, standardise=standardise)
    changed, knowing = stretched(train, classifier)

    one = fit_pixood(train, classifier, CLASSES, patches, settings)
    other = fit_pixood(changed, knowing, CLASSES, patches, settings)

    alike = []
    for name in CLASSES:
        etalons = other.etalons[name] / [8.0, *[1.0] * (other.etalons[name].shape[1] - 1)]
        alike.append(np.allclose(etalons, one.etalons[name], rtol=1e-3, atol=1e-3))
        alike.append(np.allclose(one.densities[name].mean, other.densities[name].mean, rtol=1e-3))
    assert all(alike) == standardise


def test_classes_must_be_the_classifiers(train, classifier):
    with pytest.raises(ConfigError, match='2 classes'):
        fit_pixood(train, classifier, CLASSES[:2], *CONFIG)


def test_a_missing_or_foreign_folder_is_refused(model, tmp_path):
    with pytest.raises(DataError, match='no PixOOD model'):
        load_model(tmp_path)
    save_model(model, tmp_path)
    values = tmp_path / VALUES
    values.write_text(values.read_text().replace('"format": 1', '"format": 9'))
    with pytest.raises(DataError, match='format 9'):
        load_model(tmp_path)
