# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""PixOOD's head as one export-safe graph, from tokens to surprisal (paper, section III)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from ood_perception.errors import ConfigError, check_choices

from ...calibration.monotone_curve import CalibrationCurve, CurveModule
from ...head_module import HeadModule
from ..upsampling import SquaredDistances, served_classifier, upsample
from .density import Gaussian
from .training import GATED, MIN, UNIFIED, PixOODModel

SELECTIONS = (MIN, GATED, UNIFIED)
CALIBRATIONS = ('held-out', 'paper')
LOGITS = ('patch', 'features')
NOTICE = (
    'PixOOD: an independent implementation of the published method; its authors (Toyota Motor '
    'Europe) say "patent pending". Whether a patent reads on a use is for a person to judge '
    'before a product ships.'
)
EXCLUDED = 1e4  # added to the surprisal of a class that does not count as normal


class GaussianTerm(nn.Module):
    """
    -ln p of a Gaussian over (logit, similarity).

    Differences from the mean are squared, never expanded: similarities spread over a few
    hundredths, and an expanded polynomial would lose them in float32.
    """

    def __init__(self, density: Gaussian) -> None:
        super().__init__()
        inverse = density.precision
        self.mean = [float(value) for value in density.mean]
        self.squares = [0.5 * float(value) for value in np.diag(inverse)]
        self.mixed = float(inverse[0, 1])
        self.constant = density.log_normaliser

    def forward(self, logit: torch.Tensor, similarity: torch.Tensor) -> torch.Tensor:
        """Return float of the inputs' shape."""
        a, b = logit - self.mean[0], similarity - self.mean[1]
        squares = self.squares[0] * a * a + self.squares[1] * b * b + self.constant
        return squares + self.mixed * a * b if self.mixed else squares


class LikelihoodRatio(nn.Module):
    """Raw score x = ln p_OOD - ln p_ID of (logit, similarity), the Neyman-Pearson statistic."""

    def __init__(self, known: Gaussian, background: Gaussian) -> None:
        super().__init__()
        self.known, self.background = GaussianTerm(known), GaussianTerm(background)

    def forward(self, logit: torch.Tensor, similarity: torch.Tensor) -> torch.Tensor:
        """Return x, float of the inputs' shape; higher = more anomalous."""
        return self.known(logit, similarity) - self.background(logit, similarity)


class PixOODHead(HeadModule):
    """
    The head of one fitted model.

    selection: 'min' over the classes that count as normal, 'gated' (the score of the arg-max
        logit's class) or 'unified' (largest logit, least distance, one density of its own).
    calibration: 'held-out' (served) or 'paper' (Gaussian, on the training patches).
    classes: for 'min', the classes to hold (default all that have etalons).
    logits: 'patch' upsamples the patch logits, as published; 'features' gives the logits of
        upsampled features (exactly, by interpolating the first layer's products).
    half_weights: round etalons and classifier weights to float16, as a small bundle stores them;
        fit the calibration curve on a head with the same choice.
    gate: for 'gated', the table that makes the scores of different classes comparable: 'paper', as
        published, or 'held-out', each class's own (calibrate 'min' first).
    """

    def __init__(
        self,
        model: PixOODModel,
        upsampling: int = 7,
        selection: str = MIN,
        calibration: str = 'held-out',
        classes: Sequence[str] = (),
        logits: str = 'patch',
        half_weights: bool = False,
        gate: str = 'paper',
    ) -> None:
        super().__init__()
        self.name, self.notices = 'pixood', (NOTICE,)
        self.selection, self.calibration = selection, calibration
        self.logits, self.gate = logits, gate
        check_choices('head', self, selection=SELECTIONS, logits=LOGITS)
        check_choices('head', self, calibration=CALIBRATIONS, gate=CALIBRATIONS)
        if not 1 <= upsampling <= 7:
            raise ConfigError(f'upsampling is {upsampling}, expected 1 to 7')
        self.layers = tuple(model.layers)
        self.known_classes = tuple(model.classes)
        self.compiled_classes = chosen_classes(model, classes, selection)
        self.upsampling = upsampling
        self.class_places = [self.known_classes.index(name) for name in self.compiled_classes]
        banks = [
            torch.as_tensor(np.asarray(model.etalons[name])).float()
            for name in self.compiled_classes
        ]
        scale = None if model.scale is None else torch.from_numpy(model.scale)
        self.distances = SquaredDistances(banks, upsampling, half_weights, scale)
        self.classifier = served_classifier(model.classifier, logits, upsampling, half_weights)
        self._add_scores(model)
        self.requires_grad_(False).eval()

    def _add_scores(self, model: PixOODModel) -> None:
        """Make the density of each score and its calibration table, where it is fitted."""
        unified = self.selection == UNIFIED
        names = (UNIFIED,) if unified else self.compiled_classes
        background = Gaussian(np.zeros(2), np.diag(model.ood_std**2))
        self.ratios = nn.ModuleList(
            [LikelihoodRatio(model.densities[name], background) for name in names]
        )
        gated = self.selection == GATED
        gates = model.paper_curves if self.gate == 'paper' else model.held_out_curves
        if gated and any(name not in gates for name in names):
            what = f'no {self.gate} tables to gate by'
            raise ConfigError(f'the model has {what}: calibrate min first')
        self.gate_tables = _curves(gates, names if gated else ())
        source = model.paper_curves if self.calibration == 'paper' else model.held_out_curves
        if gated:
            names = () if self.calibration == 'paper' else (GATED,)
        self.curves = _curves(source, names)

    def upsampled_logits(self, *tokens: torch.Tensor) -> torch.Tensor:
        """Return logits of all known classes, float32 (B, gh*f, gw*f, C)."""
        logits = self.classifier(torch.cat(tokens, 3))
        return logits if self.logits == 'features' else upsample(logits, self.upsampling)

    def nearest(self, tokens: torch.Tensor) -> list[torch.Tensor]:
        """Return the distance to each class's nearest etalon, float32 (B, gh*f, gw*f) each."""
        return [torch.sqrt(square) for square in self.distances(tokens)]

    def scores(self, *tokens: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Return raw_scores as a list of (B, gh*f, gw*f), and the labels."""
        tokens = tuple(layer.float() for layer in tokens)
        logits = self.upsampled_logits(*tokens)
        labels = logits.argmax(3).to(torch.uint8)
        distances = self.nearest(tokens[-1])
        own = [logits[..., place] for place in self.class_places]
        if self.selection == UNIFIED:
            own = [torch.stack(own).amax(0)]
            distances = [torch.stack(distances).amin(0)]
        raw = [
            ratio(logit, 1.0 / (1.0 + 0.5 * distance))
            for ratio, logit, distance in zip(self.ratios, own, distances, strict=True)
        ]
        if self.selection == GATED:
            raw = [self._gated(raw, own)]
        return raw, labels

    def _gated(self, raw: list[torch.Tensor], own: list[torch.Tensor]) -> torch.Tensor:
        """Return the surprisal, by the gate's tables, of the class with the largest logit."""
        surprisal = [curve(x) for curve, x in zip(self.gate_tables, raw, strict=True)]
        winner = torch.stack(own).argmax(0, keepdim=True)
        return torch.gather(torch.stack(surprisal), 0, winner)[0]

    def raw_scores(self, *tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (scores (B, S, gh*f, gw*f), labels), see HeadModule."""
        raw, labels = self.scores(*tokens)
        return torch.stack(raw, 1), labels

    def outputs(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return (surprisal, labels, and the surprisal of each compiled class if 'min')."""
        *tokens, in_distribution = inputs
        raw, labels = self.scores(*tokens)
        if self.selection == GATED and self.calibration == 'paper':
            return raw[0], labels
        if len(self.curves) != len(raw):
            raise ConfigError(
                f'the model has no {self.calibration} table for {self.selection}: run calibrate'
            )
        surprisal = [curve(x) for curve, x in zip(self.curves, raw, strict=True)]
        if self.selection != MIN:
            return surprisal[0], labels
        return least_surprisal(surprisal, in_distribution), labels, *surprisal


def least_surprisal(surprisal: list[torch.Tensor], in_distribution: torch.Tensor) -> torch.Tensor:
    """Return the least surprisal over the chosen classes (the paper's min, by its maximum s_I)."""
    excluded = (1.0 - in_distribution) * EXCLUDED
    stacked = [one.unsqueeze(1) + excluded[place] for place, one in enumerate(surprisal)]
    return torch.cat(stacked, 1).amin(1)


def chosen_classes(model: PixOODModel, classes: Sequence[str], selection: str) -> tuple[str, ...]:
    """Return the classes that a head holds; ConfigError for one that is unknown or unmodelled."""
    modelled = tuple(name for name in model.classes if name in model.etalons)
    wrong = [name for name in classes if name not in modelled]
    if wrong or not modelled:
        raise ConfigError(
            f'classes {wrong} have no etalons; choose among: {", ".join(modelled) or "none"}'
        )
    if classes and selection != MIN and set(classes) != set(modelled):
        raise ConfigError(
            f'selection {selection} was fitted on all classes: leave the class list empty, or use '
            'selection min'
        )
    return tuple(classes) or modelled


def _curves(fitted: Mapping[str, CalibrationCurve], names: Sequence[str]) -> nn.ModuleList:
    """Return the tables of names; none at all where one is not fitted yet."""
    if any(name not in fitted for name in names):
        return nn.ModuleList()
    return nn.ModuleList([CurveModule(fitted[name]) for name in names])
