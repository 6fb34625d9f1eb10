# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Several calibrated heads in one graph on one backbone pass, combined and calibrated once more.

Every member gives a p-value, but heads on one backbone err on the same pixels: no closed form
says what rate a combination keeps. So the combined score gets a calibration curve of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from ood_perception.errors import ConfigError

from ...calibration.monotone_curve import CalibrationCurve, CurveModule
from ...head_module import HeadModule
from ..pixood.model import least_surprisal

Maps = Sequence[torch.Tensor]


def maximum(surprisal: Maps) -> torch.Tensor:
    """Return the largest surprisal: the least p-value, which is below e up to H times as often."""
    return torch.stack(list(surprisal)).amax(0)


def mean(surprisal: Maps) -> torch.Tensor:
    """
    Return the mean surprisal: the geometric mean of the p-values.

    Fisher's combined p-value ranks as it does and, once calibrated, is the same score.
    """
    return torch.stack(list(surprisal)).mean(0)


COMBINATIONS: dict[str, Callable[[Maps], torch.Tensor]] = {'max': maximum, 'mean': mean}


class FusionHead(HeadModule):
    """
    Members' surprisal combined, then one table a class (or one in all).

    members: calibrated heads of one output grid. A member with one surprisal a class (PixOOD)
        makes the fusion one of those, too: combinations rise with every argument, so the least
        over the chosen classes is that of the combined maps.
    labels are the first member's. tables: one a compiled class, or a single one where no member
    is per class; None before calibration.
    """

    def __init__(
        self,
        members: Sequence[HeadModule],
        combine: str,
        curves: Sequence[CalibrationCurve] | None = None,
    ) -> None:
        super().__init__()
        factors = {member.name: member.upsampling for member in members}
        if len(set(factors.values())) > 1:
            raise ConfigError(f'members upsample by {factors}: set head.upsampling to one factor')
        self.name, self.combine = 'fusion', combine
        self.layers = tuple(dict.fromkeys(name for m in members for name in m.layers))
        self.places = [[self.layers.index(name) for name in m.layers] for m in members]
        self.notices = tuple(dict.fromkeys(line for m in members for line in m.notices))
        per_class = [m for m in members if m.selection == 'min']
        classes = {m.compiled_classes for m in per_class} or {members[0].compiled_classes}
        if len(classes) > 1:
            raise ConfigError(f'members hold classes {sorted(classes)}: name head.classes')
        (self.compiled_classes,) = classes
        self.selection = 'min' if per_class else 'unified'
        self.upsampling = members[0].upsampling
        self.members = nn.ModuleList(members)
        self.curves = nn.ModuleList([CurveModule(curve) for curve in curves or ()])
        self.requires_grad_(False).eval()

    def combined(self, *tokens: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Return the combined surprisal, one a class or one in all, and the labels."""
        found, labels = [], None
        for member, places in zip(self.members, self.places, strict=True):
            every = torch.ones(len(member.compiled_classes))
            least, own_labels, *own = member.outputs(*(tokens[i] for i in places), every)
            found.append(own if member.selection == 'min' else [least])
            labels = own_labels if labels is None else labels
        count = max(len(maps) for maps in found)
        combine = COMBINATIONS[self.combine]
        return [
            combine([maps[c if len(maps) > 1 else 0] for maps in found]) for c in range(count)
        ], labels

    def raw_scores(self, *tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (scores (B, S, gh*f, gw*f), labels), see HeadModule."""
        maps, labels = self.combined(*tokens)
        return torch.stack(maps, 1), labels

    def outputs(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return (surprisal, labels, and the surprisal of each class if there is one)."""
        *tokens, in_distribution = inputs
        maps, labels = self.combined(*tokens)
        if len(self.curves) != len(maps):
            raise ConfigError('the fusion has no calibration curve: run calibrate')
        surprisal = [curve(x) for curve, x in zip(self.curves, maps, strict=True)]
        if self.selection != 'min':
            return surprisal[0], labels
        return least_surprisal(surprisal, in_distribution), labels, *surprisal

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (surprisal, labels), see HeadModule."""
        surprisal, labels, *_ = self.outputs(*inputs)
        return surprisal, labels
