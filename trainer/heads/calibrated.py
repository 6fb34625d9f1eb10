# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Heads with one score for all classes: fitted in their own ways, calibrated and served alike."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ood_perception.errors import ConfigError

from ..artifacts import Artifact, load_values, save_values
from ..calibration.curve_fit import FEWEST_PIXELS, collect_scores, fit_curve
from ..calibration.monotone_curve import CalibrationCurve, CurveModule
from ..head_module import HeadFacts, HeadModule
from .base import HeadFit

CURVE_FILE = 'table.npz'


class OneScoreHead(HeadModule):
    """
    A head with one score, which `scored` gives, and one calibration curve of it.

    The class choice is made by the table of the set, after the graph: in_distribution is not read.
    """

    curve: CurveModule | None

    def __init__(
        self, name: str, layers: Sequence[str], classes: Sequence[str], upsampling: int
    ) -> None:
        """Take what HeadModule has; classes: those that the in_distribution input names."""
        super().__init__()
        self.name, self.layers = name, tuple(layers)
        self.compiled_classes, self.upsampling = tuple(classes), upsampling

    def finish(self, curve: CalibrationCurve | None) -> None:
        """Take the table, None before calibration, and freeze; called last in __init__."""
        self.curve = CurveModule(curve) if curve is not None else None
        self.requires_grad_(False).eval()

    @abstractmethod
    def scored(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Return the score, float (B, gh*f, gw*f), higher = more anomalous, and the labels, uint8.

        inputs: float32, what head_inputs names; without a decoder the tokens.
        """

    def _inputs(self, tokens: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Return what `scored` reads, of the tokens of all layers."""
        tokens = tuple(layer.float() for layer in tokens)
        if self.decoder is None:
            return tokens
        named = dict(zip(self.layers, tokens, strict=True))
        return self.decoder(*tokens), *(named[name] for name in self.head_inputs[1:])

    def raw_scores(self, *tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (scores (B, 1, gh*f, gw*f), labels), see HeadModule."""
        score, labels = self.scored(*self._inputs(tokens))
        return score.unsqueeze(1), labels

    def top(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return (surprisal, labels), see HeadModule."""
        if self.curve is None:
            raise ConfigError('the model has no calibration curve: run calibrate')
        score, labels = self.scored(*(one.float() for one in inputs[:-1]))
        return self.curve(score), labels

    def outputs(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return (surprisal, labels), see HeadModule."""
        *tokens, in_distribution = inputs
        return self.top(*self._inputs(tokens), in_distribution)


class OneScoreFit(HeadFit):
    """A head whose one score has one table, of the pixels of all compiled classes together."""

    @abstractmethod
    def build(self, curve: CalibrationCurve | None = None) -> HeadModule:
        """Return the fitted head; table: None before calibration."""

    def served_options(self) -> Sequence[Any]:
        """Return the options that change what is served of a fit, and not the fit: JSON values."""
        return ()

    @abstractmethod
    def provenance(self) -> dict[str, Any]:
        """Return what the manifest says of the fit."""

    def calibrate(self) -> Artifact:
        """Fit (or load) the table of the one score."""
        fitted, names = self.fitted, self.data.class_names
        features = self.calibration_features

        def fill(target: Path, _: Artifact) -> Mapping[str, Any]:
            scores = collect_scores(self.build(), features, names)
            save_curve(target / CURVE_FILE, fit_curve(scores.pooled))
            pixels = {name: sample.count for name, sample in scores.classes.items()}
            return {'images': len(features.names), 'features': features.key, 'pixels': pixels}

        inputs = (fitted.key, features.key, names, *self.served_options())
        return self.made(f'calibrate-{self.kind}', inputs, fill)

    def head(self) -> HeadModule:
        """Return the calibrated head."""
        return self.build(load_curve(self.calibrated.folder / CURVE_FILE))

    def facts(self) -> HeadFacts:
        """Return what the bundle says of the fit."""
        note = self.calibrated.report()
        return HeadFacts(tuple(classes_seen(note)), note, self.provenance())


def classes_seen(note: Mapping[str, Any]) -> Sequence[str]:
    """Return the classes with enough held-out pixels for a table of their own."""
    return [name for name, count in note['pixels'].items() if count >= FEWEST_PIXELS]


def without(report: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a report but for one entry that is too long for a manifest."""
    return {key: value for key, value in report.items() if key != name}


def reports(**artifacts: Artifact) -> dict[str, Any]:
    """Return what was recorded of trained parts, without their histories."""
    return {name: without(one.report(), 'history') for name, one in artifacts.items()}


def save_curve(path: Path, curve: CalibrationCurve) -> None:
    """Write a calibration curve."""
    save_values(path, curve)


def load_curve(path: Path) -> CalibrationCurve:
    """Read what save_curve wrote."""
    return load_values(path, CalibrationCurve)
