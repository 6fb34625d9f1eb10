# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""How a fusion is fitted: its members, each in its own way, then tables of the combination."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ood_perception.errors import ConfigError

from ...artifacts import Artifact
from ...backbones.base import Layer
from ...calibration.curve_fit import HeldOutScores, collect_scores, fit_class_curves
from ...calibration.monotone_curve import CalibrationCurve
from ...head_module import HeadFacts
from ...nets.segmenter import fold_norms
from .. import head_fit
from ..base import HeadFit
from ..calibrated import classes_seen, load_curve, save_curve
from ..upsampling import halve
from .config import FusionConfig, MemberConfig
from .model import FusionHead

RATES = (0.01, 0.02, 0.05)


class FusionFit(HeadFit):
    """The members that the section fusion names, combined."""

    kind = 'fusion'

    @cached_property
    def fusion(self) -> FusionConfig:
        """The section; ConfigError where it names no member."""
        config: FusionConfig = self.sections['fusion']
        if not config.members:
            raise ConfigError('fusion.members is empty: name at least two kinds of heads')
        return config

    @cached_property
    def members(self) -> dict[str, HeadFit]:
        """The members by kind; what they agree on they find in the one store."""
        members = {member.kind: self._member(member) for member in self.fusion.members}
        tuning = [kind for kind, member in members.items() if member.tunes_backbone]
        if tuning:
            raise ConfigError(
                f'fusion members {tuning} tune the backbone, which all members share: set '
                'nflowjs.backbone_rate to 0'
            )
        return members

    def _member(self, member: MemberConfig) -> HeadFit:
        data = self.data if member.data is None else self.data.on(member.data)
        data = data.reading(member.layers) if member.layers else data
        sections = {**self.sections, 'head': replace(self.config, kind=member.kind)}
        return head_fit(member.kind, data, sections, self.store, self.seed)

    def check(self) -> None:
        """Check the members' files beside their data; see HeadFit.check."""
        for member in self.members.values():
            member.check()

    @property
    def layers(self) -> tuple[Layer, ...]:
        """All that any member reads."""
        members = self.members.values()
        return tuple(dict.fromkeys(layer for member in members for layer in member.layers))

    def fit(self) -> Artifact:
        """Fit and calibrate (or load) every member; what is kept says which they are."""
        found = {kind: member.calibrated for kind, member in self.members.items()}
        names = {kind: one.folder.name for kind, one in found.items()}
        inputs = [(kind, one.key) for kind, one in found.items()]
        return self.made('fit-fusion', inputs, lambda *_: {'members': names})

    def build(self, curves: list[CalibrationCurve] | None = None) -> FusionHead:
        """Return the combined members; tables: None before calibration."""
        heads = [member.head() for member in self.members.values()]
        for head in heads if self.config.half_weights else ():
            fold_norms(head)
            halve(head)
        return FusionHead(heads, self.fusion.combine, curves)

    def calibrate(self) -> Artifact:
        """Fit (or load) the tables of the combination."""
        fitted, features, data = self.fitted, self.calibration_features, self.data

        def fill(target: Path, _: Artifact) -> Mapping[str, Any]:
            head = self.build()
            scores = collect_scores(head, features, data.class_names)
            curves = fit_class_curves(scores)
            per_class = head.selection == 'min'
            names = head.compiled_classes if per_class else ('',)
            for i, name in enumerate(names):
                curve = curves.curves[name] if per_class else curves.pooled
                save_curve(target / f'table_{i}.npz', curve)
            note = {'images': len(features.names), 'features': features.key}
            note |= {'pixels': dict(curves.pixels), 'tables': len(names)}
            return {**note, 'uncalibrated': uncalibrated_rates(scores)}

        half = self.config.half_weights
        inputs = (fitted.key, features.key, data.class_names, self.fusion.combine, half)
        return self.made('calibrate-fusion', inputs, fill)

    def head(self) -> FusionHead:
        """Return the calibrated head."""
        kept = self.calibrated
        count = kept.report()['tables']
        return self.build([load_curve(kept.folder / f'table_{i}.npz') for i in range(count)])

    def facts(self) -> HeadFacts:
        """Return what the bundle says of the fit."""
        facts = {kind: member.facts() for kind, member in self.members.items()}
        modelled = [one.modelled for one in facts.values()]
        common = [name for name in modelled[0] if all(name in names for names in modelled)]
        note = self.calibrated.report()
        of_members = {kind: one.calibration for kind, one in facts.items()}
        return HeadFacts(
            modelled=tuple(name for name in common if name in classes_seen(note)),
            calibration={**note, 'members': of_members},
            provenance={'members': {kind: one.provenance for kind, one in facts.items()}},
        )


def uncalibrated_rates(scores: HeldOutScores) -> Mapping[str, Mapping[str, float]]:
    """
    Return what the combined score would flag without a table of its own, per true class.

    The share of held-out pixels (as e(x), see ScoreSample) at surprisal -log10(rate), by the rate
    in text; 'pooled' is all classes together.
    """
    samples = {**scores.classes, 'pooled': scores.pooled}
    return {
        name: {f'{rate:g}': _share(*sample.curve(), -float(np.log10(rate))) for rate in RATES}
        for name, sample in samples.items()
        if sample.count
    }


def _share(x: Any, e: Any, threshold: float) -> float:
    """Return e at the first score that reaches the threshold, 0 where none does."""
    place = int(np.searchsorted(x, threshold))
    return float(e[place]) if place < len(e) else 0.0
