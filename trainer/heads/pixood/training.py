# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""PixOOD (Vojir et al.): fitting and calibrating one model, and keeping it in a folder."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ood_perception.errors import ConfigError, DataError
from ood_perception.json_files import write_json
from ood_perception.types import Float32Array

from ...artifacts import Artifact, part_of
from ...calibration.curve_fit import ClassCurves, collect_scores, fit_class_curves
from ...calibration.monotone_curve import CalibrationCurve
from ...feature_files import release
from ...features import FeatureSet
from ...head_module import HeadModule
from ...nets.patch_classifier import Classifier, batch_tokens, classifier_of
from ...nets.patches import (
    PatchSelection,
    PatchSettings,
    deviations,
    divide,
    gather_tokens,
    select_patches,
)
from .clustering import distances
from .condensation import Condensed, condense
from .config import CondensationSettings
from .density import (
    Gaussian,
    background_gaussian,
    fit_gaussian,
    neyman_pearson_curve,
    pooled_variances,
    similarity,
)

LOG = logging.getLogger(__name__)
UNIFIED, GATED, MIN = 'unified', 'gated', 'min'
FloatArray = npt.NDArray[np.float64]
FORMAT = 1
TENSORS, VALUES = 'pixood.safetensors', 'pixood.json'
_KINDS = ('paper_curves', 'held_out_curves')


@dataclass(frozen=True, eq=False)
class PixOODModel:
    """
    All that PixOOD learns.

    classes: names of the known classes = channels of the logits.
    layers: token names; the classifier reads their concatenation, distances the last one.
    etalons: class name -> float32 (K_c, D) in the tokens' space; classes without a model lack.
    scale: float32 (D,), the unit of each dimension in distances; None: 1.
    classifier: patch logits (B, gh, gw, C) of tokens (B, gh, gw, L*D).
    densities: class name and 'unified' -> Gaussian of (logit, similarity).
    ood_std: float64 (2,), the deviations of the zero-mean Gaussian of the unknown.
    paper_tables: class name and 'unified' -> Neyman-Pearson table over x = -ln r.
    held_out_tables: the same, and 'gated', fitted by calibrate_pixood.
    report: JSON values: patch counts, losses, etalons, calibration.
    """

    classes: tuple[str, ...]
    layers: tuple[str, ...]
    etalons: Mapping[str, Float32Array]
    classifier: Classifier
    densities: Mapping[str, Gaussian]
    ood_std: FloatArray
    paper_curves: Mapping[str, CalibrationCurve]
    held_out_curves: Mapping[str, CalibrationCurve] = field(default_factory=dict)
    report: Mapping[str, Any] = field(default_factory=dict)
    scale: Float32Array | None = None

    @property
    def modelled(self) -> tuple[str, ...]:
        """The classes that have etalons, in the order of classes."""
        return tuple(name for name in self.classes if name in self.etalons)


def fit_pixood(
    train: FeatureSet,
    classifier: Classifier,
    classes: Sequence[str],
    patches: PatchSettings,
    condensation: CondensationSettings,
    artifact: Artifact | None = None,
) -> PixOODModel:
    """
    Fit etalons, densities and the paper's tables on the patches of training images.

    classes: the names of the label ids = the classifier's outputs. artifact: what is being made,
    see condense. Raises DataError when no class has enough patches.
    """
    if len(classes) != classifier.output.out_features:
        raise ConfigError(
            f'{len(classes)} classes but a classifier with {classifier.output.out_features} '
            'outputs: fit the classifier on the same classes'
        )
    selection = select_patches(train, classes, patches)
    LOG.info('patches:\n%s', selection.report())
    tokens = gather_tokens(train, classifier.layers[-1], selection)
    scale = deviations(tokens) if condensation.standardise else None
    if scale is not None:
        divide(tokens, scale)
    condensed = condense(tokens, condensation, artifact)
    unit = np.float32(1) if scale is None else scale
    etalons = {n: e * unit for n, e in zip(classes, condensed.etalons, strict=True) if len(e)}
    logits = _logits(train, classifier, selection, [name in etalons for name in classes])
    banks = [torch.from_numpy(e) for e in condensed.etalons]
    nearest = [_nearest(t.tokens, banks, c) for c, t in enumerate(tokens)]
    own, all_known = _observations(logits, nearest)
    densities, ood_std = _densities(own, all_known, classes)
    background = Gaussian(np.zeros(2), np.diag(ood_std**2))
    return PixOODModel(
        classes=tuple(classes),
        layers=tuple(classifier.layers),
        etalons=etalons,
        classifier=classifier.eval(),
        densities=densities,
        ood_std=ood_std,
        paper_curves={n: neyman_pearson_curve(g, background) for n, g in densities.items()},
        report=_report(selection, condensed),
        scale=scale,
    )


def calibrate_pixood(
    model: PixOODModel,
    head_factory: Callable[[PixOODModel, str], HeadModule],
    calibration: FeatureSet,
    *,
    selections: Sequence[str] = (MIN, UNIFIED, GATED),
) -> PixOODModel:
    """
    Return the model with held-out tables, fitted on images that no fitting has seen.

    head_factory: (model, selection) -> the head as it will be served (upsampling, rounding); its
    raw scores need no calibration curve, but for 'gated' by held-out tables, which 'min' has to
    precede. calibration: at the serving resolution.
    """
    curves, notes = dict(model.held_out_curves), dict(model.report.get('calibration', {}))
    for selection in selections:
        head = head_factory(replace(model, held_out_curves=curves), selection)
        scores = collect_scores(head, calibration, model.classes)
        fitted = fit_class_curves(scores)
        curves |= fitted.curves if selection == MIN else {selection: fitted.pooled}
        notes[selection] = _calibration_note(head, calibration, fitted, selection)
        LOG.info('calibration %s: %s', selection, notes[selection])
    report = {**model.report, 'calibration': notes}
    return replace(model, held_out_curves=curves, report=report)


def _logits(
    train: FeatureSet,
    classifier: Classifier,
    selection: PatchSelection,
    modelled: Sequence[bool],
) -> list[Float32Array]:
    """
    Return float32 (N_c, 2) a class, of its patches, as gather_tokens sorts them.

    The class's own logit and the largest of modelled classes.
    """
    parts: list[list[Float32Array]] = [[] for _ in selection.counts]
    with torch.inference_mode():
        for i, labels in enumerate(selection.labels):
            logits = classifier(batch_tokens(train, classifier.layers, [i]))[0].numpy()
            largest = np.where(modelled, logits, -np.inf).max(-1)
            for c, part in enumerate(parts):
                own = labels == c
                part.append(np.stack([logits[own, c], largest[own]], 1))
    return [np.concatenate(part) for part in parts]


def _nearest(
    tokens: npt.NDArray[np.float16], banks: Sequence[torch.Tensor], own: int
) -> Float32Array:
    """Return float32 (N, 2): the distance to the nearest etalon of a bank, and of all."""
    result = np.empty((len(tokens), 2), np.float32)
    for start in range(0, len(tokens), 4096):
        patches = torch.from_numpy(tokens[start : start + 4096]).float()
        release(tokens)
        least = {c: distances(patches, b, 1.0).amin(1) for c, b in enumerate(banks) if len(b)}
        pair = least[own], torch.stack([*least.values()]).amin(0)
        result[start : start + 4096] = torch.stack(pair, 1).numpy()
    return result


def _observations(
    logits: Sequence[Float32Array], nearest: Sequence[Float32Array]
) -> tuple[list[FloatArray], FloatArray]:
    """Return (logit, similarity) with the own class, (N_c, 2) a class, and with the best one."""
    pairs = list(zip(logits, nearest, strict=True))
    own, best = (
        [np.stack([logit[:, of], similarity(distance[:, of])], 1) for logit, distance in pairs]
        for of in (0, 1)
    )
    return own, np.concatenate(best)


def _densities(
    own: Sequence[FloatArray], all_known: FloatArray, classes: Sequence[str]
) -> tuple[dict[str, Gaussian], FloatArray]:
    variances = pooled_variances(own)
    densities = {
        name: fit_gaussian(z, variances) for name, z in zip(classes, own, strict=True) if len(z)
    }
    densities[UNIFIED] = fit_gaussian(all_known, variances)
    return densities, np.sqrt(np.diag(background_gaussian(own).covariance))


def _report(selection: PatchSelection, condensed: Condensed) -> dict[str, Any]:
    """Return what was fitted on how much, as JSON values."""
    classes = {}
    for count, won in zip(selection.counts, condensed.won, strict=True):
        classes[count.name] = {
            'pure_patches': count.pure,
            'pure_images': count.pure_images,
            'patches_over_half': count.loose,
            'images_over_half': count.loose_images,
            'fitted_on': count.choice,
            'etalons': len(won),
        }
    return {'classes': classes, 'losses': list(condensed.losses)}


def _calibration_note(
    head: HeadModule, calibration: FeatureSet, fitted: ClassCurves, selection: str
) -> dict[str, Any]:
    return {
        'images': len(calibration.names),
        'features': calibration.key,
        'upsampling': head.upsampling,
        'pixels': dict(fitted.pixels),
        'pooled_table': list(fitted.borrowed) if selection == MIN else list(fitted.pixels),
    }


def check_model(model: PixOODModel) -> None:
    """Raise DataError where the parts of a model do not belong together."""
    width = {e.shape[1] for e in model.etalons.values()}
    if len(width) != 1 or len(model.classes) != model.classifier.output.out_features:
        raise DataError(
            f'a PixOOD model of {len(model.classes)} classes, etalons {sorted(width)} wide and '
            f'{model.classifier.output.out_features} logits does not fit together: fit it again'
        )


def save_model(model: PixOODModel, folder: Path) -> None:
    """Write a model to a folder."""
    tensors = {f'classifier.{k}': v for k, v in model.classifier.state_dict().items()}
    tensors |= {f'etalons.{n}': torch.from_numpy(e) for n, e in model.etalons.items()}
    if model.scale is not None:
        tensors['scale'] = torch.from_numpy(model.scale)
    values: dict[str, Any] = {
        'format': FORMAT,
        'classes': list(model.classes),
        'layers': list(model.layers),
        'classifier': model.classifier.kind,
        'modelled': list(model.modelled),
        'densities': {
            name: [g.mean.tolist(), g.covariance.tolist()] for name, g in model.densities.items()
        },
        'ood_std': model.ood_std.tolist(),
        'report': dict(model.report),
    }
    for kind in _KINDS:
        curves: dict[str, CalibrationCurve] = dict(getattr(model, kind))
        values[kind] = {
            name: [t.start, t.step, t.low_slope, t.high_slope] for name, t in curves.items()
        }
        tensors |= {f'{kind}.{n}': torch.tensor(t.knots) for n, t in curves.items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in tensors.items()}, folder / TENSORS)
    write_json(folder / VALUES, values)


def load_model(folder: Path) -> PixOODModel:
    """Read a model; DataError says what is missing, altered or of another format."""
    try:
        values = json.loads((folder / VALUES).read_text(encoding='utf-8'))
        if values['format'] != FORMAT:
            raise DataError(
                f'{folder / VALUES} has format {values["format"]}, this trainer reads {FORMAT}: '
                'fit the model again'
            )
        model = _model(values, load_file(folder / TENSORS))
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise DataError(f'{folder} holds no PixOOD model of this trainer: {error}') from error
    check_model(model)
    return model


def _model(values: dict[str, Any], tensors: dict[str, torch.Tensor]) -> PixOODModel:
    curves = {kind: _curves(values[kind], tensors, kind) for kind in _KINDS}
    weights = part_of(tensors, 'classifier.')
    return PixOODModel(
        classes=tuple(values['classes']),
        layers=tuple(values['layers']),
        etalons={n: tensors[f'etalons.{n}'].numpy() for n in values['modelled']},
        classifier=classifier_of(weights, values['classifier'], values['layers']),
        densities={
            name: Gaussian(np.array(mean), np.array(covariance))
            for name, (mean, covariance) in values['densities'].items()
        },
        ood_std=np.array(values['ood_std']),
        report=values['report'],
        scale=tensors['scale'].numpy() if 'scale' in tensors else None,
        **curves,
    )


def _curves(
    numbers: dict[str, list[float]], tensors: dict[str, torch.Tensor], kind: str
) -> dict[str, CalibrationCurve]:
    return {
        name: CalibrationCurve(start, step, tensors[f'{kind}.{name}'].numpy(), low, high)
        for name, (start, step, low, high) in numbers.items()
    }
