# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A small fitted PixOOD model made from random numbers, with every part that a head needs."""

import numpy as np
import torch

from trainer.calibration.monotone_curve import CalibrationCurve
from trainer.heads.pixood.density import Gaussian
from trainer.heads.pixood.training import PixOODModel
from trainer.nets.patch_classifier import Classifier

CLASSES = ('road', 'pole', 'pavement', 'sky')


def a_curve(rng, count=256):
    knots = 0.01 + np.cumsum(rng.uniform(0.001, 0.04, count))
    return CalibrationCurve(-3.0, 0.1, knots, low_slope=0.02, high_slope=0.05)


def some_model(dim=32, counts=(30, 17, 5), seed=0):
    """Every class but 'pole' has etalons, as after the fall-back for classes with few patches."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    modelled = [name for name in CLASSES if name != 'pole']
    scored = [*modelled, 'unified']
    covariance = np.array([[0.5, 0.01], [0.01, 0.002]])
    layers = ('tokens_1', 'tokens_2')
    return PixOODModel(
        classes=CLASSES,
        layers=layers,
        etalons={
            name: rng.normal(size=(count, dim)).astype(np.float32)
            for name, count in zip(modelled, counts, strict=True)
        },
        classifier=Classifier(2 * dim, len(CLASSES), layers, 'mlp', 24),
        densities={name: Gaussian(np.array([0.3, 0.2]), covariance) for name in scored},
        ood_std=np.array([1.5, 0.3]),
        paper_curves={name: a_curve(rng) for name in scored},
        held_out_curves={name: a_curve(rng) for name in [*scored, 'gated']},
    )
