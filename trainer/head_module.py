# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What a head's graph must offer to be calibrated, exported and served like every other."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn


class HeadModule(nn.Module, ABC):
    """
    The head's graph, from tokens to surprisal, in float32 and export-safe.

    name: of the head in the bundle. notices: lines for the bundle's licences.
    selection: 'min' for one score a class, 'gated' or 'unified' for one score in all.
    calibration: 'held-out' or 'paper', as in the bundle's HeadSpec.
    layers: names of the token inputs, in the order of forward's arguments.
    decoder: a stage of its own between backbone and head, None = the head reads the tokens.
        It maps the tokens of `layers` to the tensor that head_inputs[0] names; the other
        head_inputs are layers. `top` is the head behind it.
    compiled_classes: the classes of the in_distribution input.
    raw_scores: the uncalibrated scores that the calibration tables are fitted on.
    """

    name: str
    notices: tuple[str, ...] = ()
    selection: str = 'unified'
    calibration: str = 'held-out'
    layers: tuple[str, ...]
    decoder: nn.Module | None
    head_inputs: tuple[str, ...] = ()
    compiled_classes: tuple[str, ...]
    upsampling: int

    def __init__(self) -> None:
        super().__init__()
        self.decoder = None

    @abstractmethod
    def raw_scores(self, *tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Return (scores, labels) before calibration on the full output map.

        tokens: float (B, gh, gw, D) per layer.
        scores: float32 (B, S, gh*f, gw*f), higher = more anomalous; S = one per compiled class
            for a per-class selection, else 1.
        labels: uint8 (B, gh*f, gw*f).
        """

    @abstractmethod
    def outputs(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """
        Return (surprisal, labels) and, for a per-class head, the surprisal of each compiled class.

        inputs: the tokens of `layers` in order, then in_distribution float32 (C,).
        surprisal: float32 (B, gh*f, gw*f) >= 0, each. labels: uint8, same shape.
        """

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (surprisal, labels), see outputs."""
        surprisal, labels, *_ = self.outputs(*inputs)
        return surprisal, labels

    def top(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """
        Return what `outputs` returns, of the tensors of head_inputs and in_distribution.

        Heads without a decoder read the tokens themselves.
        """
        return self.outputs(*inputs)


@dataclass(frozen=True)
class HeadFacts:
    """
    What a bundle says of a fitted head.

    modelled: classes with a model of their own. calibration, provenance: for the manifest.
    """

    modelled: tuple[str, ...]
    calibration: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
