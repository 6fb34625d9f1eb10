# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The recipe's section `uem`."""

from __future__ import annotations

from dataclasses import dataclass, field

from ood_perception.errors import check_choices, check_least

from ...nets.gmm import GmmSettings
from ...nets.patch_classifier import MATMULS

FORMS = ('discriminative', 'generative')
SCORES = ('llr', 'id', 'ood')


@dataclass(frozen=True)
class UemConfig:
    """
    How the module is built and trained (defaults: the `cpu` preset on cached mixes).

    form: of the two-class head. alpha: weight of its own cross-entropy beside the loss of the
        LLR; UEM takes 0 for discriminative and 0.5 for generative heads, None = that.
    score: what is served, 'llr', or for ablations 'id' (-max_k F_k) or 'ood' (U_1 - U_0).
    steps, batch, warmup, learning_rate: AdamW, linear warm-up, then linearly to 0.
    pixel_step: every s-th row and column of the labels. matmul: 'f32' or 'bf16' arithmetic of the
        projection while training. select_every: steps between looks at AP on the selection mixes;
        the best state is kept.
    with_views: the segmenter's bank of views joins the mixes. Its tokens are there already, and
        its people and cars are what the module must learn not to call outliers.
    on_the_fly: draw fresh mixes in every step, see SegmenterConfig.
    """

    form: str = 'discriminative'
    alpha: float | None = None
    score: str = 'llr'
    steps: int = 1500
    batch: int = 4
    warmup: int = 150
    learning_rate: float = 5e-4
    pixel_step: int = 3
    matmul: str = 'bf16'
    select_every: int = 250
    gmm: GmmSettings = field(default_factory=lambda: GmmSettings(every=3))
    with_views: bool = False
    on_the_fly: bool = False
    seed: int = 42

    def __post_init__(self) -> None:
        check_choices('uem', self, form=FORMS, score=SCORES, matmul=MATMULS)
        check_least('uem', self, 1, 'steps', 'batch', 'pixel_step', 'select_every')

    @property
    def own_weight(self) -> float:
        """The alpha that counts."""
        if self.alpha is not None:
            return self.alpha
        return 0.5 if self.form == 'generative' else 0.0
