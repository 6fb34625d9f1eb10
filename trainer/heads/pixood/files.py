# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""A PixOOD model as a folder: tensors in safetensors, everything else in JSON."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ood_perception.errors import DataError
from ood_perception.json_files import json_text

from ...calibration.curve import MonotoneTable
from ...nets.patch_classifier import Classifier
from .density import Gaussian
from .fitting import PixOODModel, check_model

FORMAT = 1
TENSORS, VALUES = 'pixood.safetensors', 'pixood.json'
_KINDS = ('paper_tables', 'held_out_tables')


def save_model(model: PixOODModel, folder: Path) -> None:
    """Write a model to a folder; each file is replaced whole, the JSON last."""
    tensors = {f'classifier.{k}': v for k, v in model.classifier.state_dict().items()}
    tensors |= {f'etalons.{n}': torch.from_numpy(e) for n, e in model.etalons.items()}
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
        tables: dict[str, MonotoneTable] = dict(getattr(model, kind))
        values[kind] = {
            name: [t.start, t.step, t.low_slope, t.high_slope] for name, t in tables.items()
        }
        tensors |= {f'{kind}.{n}': torch.tensor(t.knots) for n, t in tables.items()}
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / (TENSORS + '.partial')
    save_file({name: value.contiguous() for name, value in tensors.items()}, partial)
    os.replace(partial, folder / TENSORS)
    partial = folder / (VALUES + '.partial')
    partial.write_text(json_text(values) + '\n', encoding='utf-8')
    os.replace(partial, folder / VALUES)


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
    tables = {kind: _tables(values[kind], tensors, kind) for kind in _KINDS}
    return PixOODModel(
        classes=tuple(values['classes']),
        layers=tuple(values['layers']),
        etalons={n: tensors[f'etalons.{n}'].numpy() for n in values['modelled']},
        classifier=_classifier(values, tensors),
        densities={
            name: Gaussian(np.array(mean), np.array(covariance))
            for name, (mean, covariance) in values['densities'].items()
        },
        ood_std=np.array(values['ood_std']),
        paper_tables=tables['paper_tables'],
        held_out_tables=tables['held_out_tables'],
        report=values['report'],
    )


def _tables(
    numbers: dict[str, list[float]], tensors: dict[str, torch.Tensor], kind: str
) -> dict[str, MonotoneTable]:
    return {
        name: MonotoneTable(start, step, tensors[f'{kind}.{name}'].numpy(), low, high)
        for name, (start, step, low, high) in numbers.items()
    }


def _classifier(values: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Classifier:
    prefix = 'classifier.'
    state = {n[len(prefix) :]: t for n, t in tensors.items() if n.startswith(prefix)}
    kind = values['classifier']
    first = state['hidden.weight' if kind == 'mlp' else 'output.weight']
    width, hidden = int(first.shape[1]), int(first.shape[0])
    classifier = Classifier(width, len(values['classes']), values['layers'], kind, hidden)
    classifier.load_state_dict(state)
    return classifier.eval()
