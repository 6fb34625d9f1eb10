# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The recipe's section `baseline`."""

from __future__ import annotations

from dataclasses import dataclass

from ood_perception.errors import ConfigError, check_choices, check_least

SOURCES = ('classifier', 'segmenter')


@dataclass(frozen=True)
class BaselineConfig:
    """
    What the baselines read, and the options of single ones.

    source: of the logits, 'classifier' (PixOOD's on patches) or 'segmenter' (UEM's decoder).
        Features are the last tokens that it reads.
    temperature: of 'odin'. ODIN's second part, a step on the image along the gradient, is left
        out: a served graph has no gradient.
    shrinkage: of the covariance of 'mahalanobis' towards a multiple of the identity; the tokens'
        LayerNorm leaves it singular.
    layers: of 'mahalanobis': blocks whose tokens are put side by side, so that one Gaussian
        is over all of them; () = the last that the classifier reads.
    rank: of 'mahalanobis': along how many principal directions of the covariance it is measured,
        those of most variance; 0 = all.
    standardise: of 'mahalanobis': every dimension by its deviation over the training tokens before
        the covariance is shrunk, which else favours the few long ones.
    balance: of 'mahalanobis': every source of images counts alike, however many images it has; a
        source is what the names of sequences begin with, up to '/'.
    components, reduced: of 'gmm': Gaussians with full covariance, on so many principal
        components, a size chosen on training images. samples: features that it is fitted on.
    """

    source: str = 'classifier'
    temperature: float = 1000.0
    shrinkage: float = 1e-3
    layers: tuple[int, ...] = ()
    rank: int = 0
    standardise: bool = False
    balance: bool = False
    components: int = 10
    reduced: int = 8
    samples: int = 50_000
    seed: int = 42

    def __post_init__(self) -> None:
        check_choices('baseline', self, source=SOURCES)
        if self.temperature <= 0 or not 0 < self.shrinkage < 1:
            raise ConfigError(
                f'baseline temperature {self.temperature}, shrinkage {self.shrinkage}: give a '
                'temperature above 0 and a shrinkage between 0 and 1'
            )
        check_least('baseline', self, 1, 'components', 'reduced', 'samples')
        check_least('baseline', self, 0, 'rank')
