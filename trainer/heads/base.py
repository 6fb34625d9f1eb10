# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What a head must offer to be fitted, calibrated, exported and served like every other."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import nn


class HeadModule(nn.Module, ABC):
    """
    The head's graph, from tokens to surprisal, in float32 and export-safe.

    layers: names of the token inputs, in the order of forward's arguments.
    compiled_classes: the classes of the in_distribution input.
    raw_scores: the uncalibrated scores that the calibration tables are fitted on.
    """

    layers: tuple[str, ...]
    compiled_classes: tuple[str, ...]
    upsampling: int

    @abstractmethod
    def raw_scores(self, *tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Return (scores, labels) before calibration on the full output map.

        tokens: float (B, gh, gw, D) per layer.
        scores: float32 (B, S, gh*f, gw*f), higher = stranger; S = one per compiled class for a
            per-class selection, else 1.
        labels: uint8 (B, gh*f, gw*f).
        """

    @abstractmethod
    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Return (surprisal, labels).

        inputs: the tokens of `layers` in order, then in_distribution float32 (C,).
        surprisal: float32 (B, gh*f, gw*f) >= 0. labels: uint8, same shape.
        """

    def outputs(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """
        Return (surprisal, labels) and, for a per-class head, the surprisal of each compiled class.

        inputs: as for forward. The surprisal of each class: float32 (B, gh*f, gw*f).
        """
        return tuple(self(*inputs))
