# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""All scores of a segmenter and a module on pictures, by one pass over their tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from ood_perception.geometry import to_camera

from ..backbones import Backbone
from ..data import PictureList
from ..features import FeatureSet
from ..heads.uem import Uem, log_likelihood_ratio
from ..segmenter import Segmenter
from .scoring import picture_tokens, stretched
from .sliding import SlidingSettings, sliding_maps

FloatArray = npt.NDArray[np.float32]
PictureMaps = Callable[[str], FloatArray]


def combined_scores(known: torch.Tensor, unknown: torch.Tensor) -> dict[str, torch.Tensor]:
    """
    Return every score, higher = stranger.

    known: F, float (..., C), raw class scores of the segmenter. unknown: U, float (..., 2).
    llr = U_1 - U_0 - max F; id = -max F (max-logit); ood = U_1 - U_0; max_softmax as -log p of
    the likeliest class, which ranks as 1 - p does but never saturates; energy = -logsumexp F
    (Liu et al. 2020); entropy of softmax F.
    """
    best = known.amax(-1)
    log_p = functional.log_softmax(known, -1)
    return {
        'llr': log_likelihood_ratio(unknown[..., 1], unknown[..., 0], best),
        'id': -best,
        'ood': unknown[..., 1] - unknown[..., 0],
        'max_softmax': -log_p.amax(-1),
        'energy': -known.logsumexp(-1),
        'entropy': -(log_p.exp() * log_p).sum(-1),
    }


@torch.inference_mode()
def unknown_grid(module: Uem, last: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Return U (1, *size, 2) of the last tokens (1, gh, gw, D), upsampled to F's grid."""
    coarse = module(last).permute(0, 3, 1, 2)
    fine = functional.interpolate(coarse, tuple(size), mode='bilinear', align_corners=False)
    return fine.permute(0, 2, 3, 1)


@torch.inference_mode()
def known_grids(segmenter: Segmenter, features: FeatureSet) -> list[torch.Tensor]:
    """Return F (1, 4 gh, 4 gw, C) of every picture."""
    pictures = range(len(features.names))
    return [segmenter(*picture_tokens(features, segmenter.layers, i)) for i in pictures]


def whole_maps(
    known: Sequence[torch.Tensor],
    module: Uem,
    layer: str,
    features: FeatureSet,
    pictures: PictureList,
) -> Iterator[PictureMaps]:
    """
    Yield for each picture a function from a score's name to float32 (H, W).

    known: F of the same pictures, which modules on one segmenter share. layer: of the last tokens.
    """
    for index in range(len(pictures)):
        last = picture_tokens(features, [layer], index)[0]
        scores = combined_scores(known[index], unknown_grid(module, last, known[index].shape[1:3]))
        _, labels = pictures.read(index)
        geometry = stretched(labels, features)
        grids = {name: value[0].numpy() for name, value in scores.items()}
        yield lambda name, g=grids, at=geometry: to_camera(g[name], at)


def sliding_scores(
    segmenter: Segmenter,
    module: Uem,
    backbone: Backbone,
    blocks: Sequence[int],
    pictures: PictureList,
    settings: SlidingSettings,
    precision: str,
) -> Iterator[PictureMaps]:
    """Yield the same from windows at each picture's own size; F and U are averaged first."""
    baked = backbone.baked(*settings.window, blocks)

    def maps(window: npt.NDArray[np.uint8]) -> torch.Tensor:
        with torch.autocast('cpu', torch.bfloat16, enabled=precision == 'bf16'):
            tokens = [layer.float() for layer in baked(torch.from_numpy(window))]
        with torch.inference_mode():
            known = segmenter(*tokens)
        return torch.cat([known, unknown_grid(module, tokens[-1], known.shape[1:3])], -1)

    for index in range(len(pictures)):
        image, _ = pictures.read(index)
        joint = sliding_maps(image, maps, settings)
        scores = combined_scores(joint[..., :-2], joint[..., -2:])
        yield lambda name, s=scores: s[name].numpy()
