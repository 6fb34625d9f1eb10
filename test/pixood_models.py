# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A small fitted PixOOD model made from random numbers, with every part that a head needs."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from trainer.heads.tables import MonotoneTable

CLASSES = ('road', 'pole', 'pavement', 'sky')


@dataclass
class SomeDensity:
    mean: np.ndarray
    covariance: np.ndarray


class SomeClassifier(nn.Module):
    kind = 'mlp'

    def __init__(self, width, hidden, classes):
        super().__init__()
        self.hidden, self.output = nn.Linear(width, hidden), nn.Linear(hidden, classes)

    def forward(self, tokens):
        return self.output(nn.functional.gelu(self.hidden(tokens)))


@dataclass
class SomeModel:
    """Every class but 'pole' has etalons, as after the fall-back for classes with few patches."""

    classes: tuple = CLASSES
    layers: tuple = ('tokens_1', 'tokens_2')
    etalons: dict = field(default_factory=dict)
    classifier: nn.Module = None
    densities: dict = field(default_factory=dict)
    background: SomeDensity = None
    paper_tables: dict = field(default_factory=dict)
    held_out_tables: dict = field(default_factory=dict)


def a_table(rng, count=256):
    knots = 0.01 + np.cumsum(rng.uniform(0.001, 0.04, count))
    return MonotoneTable(-3.0, 0.1, knots, low_slope=0.02, high_slope=0.05)


def some_model(dim=32, counts=(30, 17, 5), seed=0):
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    model = SomeModel()
    modelled = [name for name in CLASSES if name != 'pole']
    for name, count in zip(modelled, counts, strict=True):
        model.etalons[name] = rng.normal(size=(count, dim)).astype(np.float32)
    model.classifier = SomeClassifier(2 * dim, 24, len(CLASSES))
    for name in [*modelled, 'unified']:
        covariance = np.array([[0.5, 0.01], [0.01, 0.002]])
        model.densities[name] = SomeDensity(np.array([0.3, 0.2]), covariance)
        model.paper_tables[name] = a_table(rng)
        model.held_out_tables[name] = a_table(rng)
    model.held_out_tables['gated'] = a_table(rng)
    model.background = SomeDensity(np.zeros(2), np.diag([2.25, 0.09]))
    return model
