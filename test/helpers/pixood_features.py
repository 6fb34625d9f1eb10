# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Features and a classifier for fits of PixOOD in tests."""

import pytest
from feature_sets import make_feature_set

from trainer.heads.pixood.config import CondensationSettings
from trainer.heads.pixood.model import PixOODHead
from trainer.heads.pixood.training import calibrate_pixood, fit_pixood
from trainer.nets.patch_classifier import ClassifierConfig
from trainer.nets.patches import PatchSettings
from trainer.training.patch_classifier import ClassifierRun

LAYERS = ('tokens_5', 'tokens_11')


CLASSES = ('road', 'pavement', 'sky')


CONFIG = PatchSettings(fewest_patches=50), CondensationSettings(etalons=8, epochs=20)


def head_of(model, selection):
    return PixOODHead(model, upsampling=2, selection=selection)


@pytest.fixture(scope='module')
def train():
    return make_feature_set(images=40)


@pytest.fixture(scope='module')
def classifier(train):
    config = ClassifierConfig(epochs=8, learning_rate=3e-3, pixel_step=7)
    return ClassifierRun(train, train, LAYERS, len(CLASSES), config).fit().model


@pytest.fixture(scope='module')
def model(train, classifier):
    fitted = fit_pixood(train, classifier, CLASSES, *CONFIG)
    return calibrate_pixood(fitted, head_of, make_feature_set(images=40, seed=1))
