# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The default bundle's model at other network sizes, to compare engines and precisions on."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ood_perception.bundle.manifest import MANIFEST_NAME
from ood_perception.bundle.store import Bundle, load_bundle
from ood_perception.engines.quantize_facts import (
    INT8,
    Quantization,
    quantization_path,
    read_quantization,
)
from ood_perception.errors import ConfigError
from ood_perception.geometry import geometry_for, to_network

from .backbones import BackboneChoice, load_backbone
from .golden import demo_pictures
from .heads.pixood_files import load_model
from .heads.pixood_module import PixOODHead
from .pack import BundleText, pack_bundle
from .quantization_writing import write_precisions

Size = tuple[int, int]


def bundle_of_size(path: Path, size: Size, source: Bundle, fit: Path) -> Bundle:
    """
    Write (or find) the source bundle's model at another network size.

    size: (h, w), multiples of the patch. fit: folder of `trainer calibrate` (pixood.json): its
    tables, fitted at the source's size, are used at this one: per class they are monotone, so AP
    of a class is not touched. The int8 facts are the source's: names of tensors do not change.
    Raises ConfigError where the folder is no fit.
    """
    if not (fit / 'pixood.json').is_file():
        raise ConfigError(
            f'{fit} holds no pixood.json: give the calibrate folder of `trainer fit`'
        )
    if not (path / MANIFEST_NAME).is_file():
        _write(path, size, source, fit)
    bundle = load_bundle(path)
    if INT8 in source.manifest.precisions and INT8 not in bundle.manifest.precisions:
        facts: Quantization = read_quantization(quantization_path(source))
        write_precisions(bundle, path, facts, _wide(source))
        bundle = load_bundle(path)
    return bundle


def _wide(source: Bundle) -> dict:  # type: ignore[type-arg]
    """Return the measured precisions with golden bounds that hold at sizes not measured."""
    return {
        name: dataclasses.replace(
            spec,
            surprisal_tolerance=2 * spec.surprisal_tolerance,
            label_agreement=1 - 2 * (1 - spec.label_agreement),
        )
        for name, spec in source.manifest.precisions.items()
    }


def _write(path: Path, size: Size, source: Bundle, fit: Path) -> None:
    manifest, head = source.manifest, source.manifest.heads[0]
    recipe = manifest.provenance.get('recipe', {})
    weights = recipe.get('backbone', {}).get('weights', BackboneChoice().weights)
    backbone = load_backbone(BackboneChoice(weights))
    model = PixOODHead(
        *(load_model(fit), head.upsampling, head.selection, head.calibration),
        head.compiled_classes,
        gate=recipe.get('head', {}).get('gate', 'paper'),
    )
    layers = manifest.stages[0].outputs
    if tuple(model.layers) != tuple(layers):
        raise ConfigError(f'{fit} reads {model.layers}, bundle {manifest.name} has {layers}')
    text = BundleText(
        name=f'{manifest.name}_{size[0]}x{size[1]}',
        classes=manifest.classes,
        in_distribution=manifest.in_distribution,
        ground_classes=manifest.ground_classes,
        data='See the bundle that it is compared with.',
        policy=manifest.input.policy,
        anchor=manifest.input.anchor,
        provenance={'classes': manifest.provenance.get('classes', {})},
    )
    pack_bundle(path, backbone, model, _golden_pictures(size), text, ship_weights=True)


def _golden_pictures(size: Size) -> npt.NDArray[np.uint8]:
    """Return uint8 (2, h, w, 3): what `bundle.golden: demo_road` takes."""
    return np.stack(
        [
            to_network(one, geometry_for((one.shape[0], one.shape[1]), size, 'fit'))
            for one in demo_pictures('demo_road')
        ]
    )
