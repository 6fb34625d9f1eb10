# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A head of a given size made of random numbers: what the time depends on, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainer.bench_reference import random_banks
from trainer.calibration.monotone_curve import CalibrationCurve
from trainer.heads.pixood.density import Gaussian
from trainer.heads.pixood.training import PixOODModel
from trainer.nets.patch_classifier import Classifier

HIDDEN = 512  # of the classifier, as the shipped configuration trains it


def random_pixood(counts: Sequence[int], dim: int, layers: Sequence[str]) -> PixOODModel:
    """Return a fitted PixOOD model of so many etalons per class, with a two-layer classifier."""
    rng = np.random.default_rng(0)
    names = tuple(f'class_{index}' for index in range(len(counts)))
    covariance = np.array([[0.5, 0.01], [0.01, 0.0004]])

    def table() -> CalibrationCurve:
        knots = 0.01 + np.cumsum(rng.uniform(0.01, 0.1, 256))
        return CalibrationCurve(-3.0, 0.1, knots, low_slope=0.02, high_slope=0.05)

    return PixOODModel(
        classes=names,
        layers=tuple(layers),
        etalons={
            name: bank.numpy() for name, bank in zip(names, random_banks(counts, dim), strict=True)
        },
        classifier=Classifier(len(layers) * dim, len(names), layers, 'mlp', HIDDEN),
        densities={name: Gaussian(np.array([0.3, 0.15]), covariance) for name in names},
        ood_std=np.array([1.5, 0.3]),
        paper_curves={},
        held_out_curves={name: table() for name in names},
    )
