# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Write a whole bundle, atomically: stages, golden vectors, weights' map, card and manifest."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ood_perception.bundle.manifest import (
    MANIFEST_NAME,
    GoldenSpec,
    HeadSpec,
    Manifest,
)
from ood_perception.bundle.manifest_json import read_manifest
from ood_perception.bundle.store import file_spec, write_manifest
from ood_perception.engines.trial import remember
from ood_perception.errors import BundleError
from ood_perception.files import make_folder, sha256_of
from ood_perception.json_files import write_json
from ood_perception.postprocess.calibration import HeldOutSample, arrays_of
from ood_perception.reports.html import render
from ood_perception.types import JsonDict

from ..artifacts import write_npz
from ..backbones.base import Backbone
from ..backbones.onnx_weights import weights_map
from ..head_module import HeadModule
from .golden import golden_vectors
from .onnx import BACKBONE_DATA, ExportedStages, export_stages

WEIGHTS_MAP = 'weights.map.json'
CARD = 'MODEL_CARD.md'
SET_CALIBRATION = 'calibration.npz'
_TOOLS = ('torch', 'transformers', 'onnx', 'numpy')


@dataclass(frozen=True)
class BundleParts:
    """
    What a bundle is made of.

    images: uint8 (2, h, w, 3) RGB at network size: the golden inputs.
    stated: the manifest as far as recipe and data say it: without stages, heads and files, the
        provenance and licences of backbone and head. data: sentences on the training images and
        their licence, for the card.
    ship_weights: put backbone.data into the bundle; else only the map that completes it from the
        backbone's origin. weights: 'f16' or 'f32', see export_stages.
    held_out: sample for the tables of sets of classes; None serves the graph's surprisal as it is.
    """

    backbone: Backbone
    head: HeadModule
    images: npt.NDArray[np.uint8]
    stated: Manifest
    data: str
    ship_weights: bool = False
    weights: str = 'f16'
    held_out: HeldOutSample | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the network's input."""
        return self.stated.input.height, self.stated.input.width

    def write(self, folder: Path) -> None:
        """Fill a new folder."""
        if self.held_out is not None:
            write_npz(folder / SET_CALIBRATION, arrays_of(self.held_out))
        baked = self.backbone.baked(*self.size, self.head.layers)
        golden = golden_vectors(baked, self.head, self.images, self.stated.in_distribution)
        write_npz(folder / GoldenSpec.file, golden)
        if self.ship_weights:
            exported = export_stages(baked, self.head, folder, self.size, self.weights)
        else:
            exported = self._without_weights(folder, baked)
        manifest = self._manifest(exported)
        (folder / CARD).write_text(model_card(manifest, self.data), encoding='utf-8')
        files = {path.name: file_spec(path) for path in sorted(folder.iterdir())}
        write_manifest(folder, replace(manifest, files=files))

    def _without_weights(self, folder: Path, baked: Any) -> ExportedStages:
        """Export, then put the map to the weights' origin in the place of backbone.data."""
        backbone = self.backbone
        origin = backbone.provenance.get('origin')
        if not origin:
            raise BundleError(
                f'the weights of {backbone.name} have no origin to complete them from: load them '
                'by load_backbone, or ship them (ship_weights)'
            )
        source = Path(backbone.provenance['path'])
        places: dict[str, JsonDict] = {}

        def in_origin(arrays: dict[str, npt.NDArray[Any]]) -> dict[str, JsonDict]:
            places.update(weights_map(source, arrays))
            return places

        exported = export_stages(baked, self.head, folder, self.size, self.weights, in_origin)
        if not exported.external:
            raise BundleError(
                f'no tensor of {backbone.name} was found in {source.name}: ship_weights'
            )
        data = folder / BACKBONE_DATA
        tensors = [
            {'name': name, 'offset': offset, 'shape': list(values.shape), **places[name]}
            for name, offset, values in exported.external
        ]
        target = {'file': BACKBONE_DATA, **file_spec(data).__dict__}
        recorded = {key: value for key, value in origin.items() if key != 'description'}
        content = {'origin': recorded, 'target': target, 'tensors': tensors}
        write_json(folder / WEIGHTS_MAP, content)
        data.unlink()
        return exported

    def _manifest(self, exported: ExportedStages) -> Manifest:
        backbone, head, stated = self.backbone, self.head, self.stated
        spec = HeadSpec(
            name=head.name,
            surprisal='surprisal',
            labels='labels',
            upsampling=head.upsampling,
            selection=head.selection,
            calibration=head.calibration,
            compiled_classes=head.compiled_classes,
            set_calibration='' if self.held_out is None else SET_CALIBRATION,
        )
        # a path of the machine that packed says nothing elsewhere
        known = {key: value for key, value in backbone.provenance.items() if key != 'path'}
        tools = {'tools': {name: metadata.version(name) for name in _TOOLS}}
        licences = (
            f'Backbone {backbone.name}: {backbone.licence}',
            *stated.licences,
            *head.notices,
        )
        provenance = {'backbone': backbone.name, **known, **tools, **stated.provenance}
        return replace(
            stated,
            stages=exported.stages,
            heads=(spec,),
            provenance=provenance,
            licences=licences,
        )


def pack_bundle(path: Path, parts: BundleParts, overwrite: bool = False) -> Manifest:
    """
    Write a bundle directory; the same parts give the same bytes.

    Raises BundleError when path exists and overwrite is false, or when the weights cannot be
    completed from their origin.
    """
    path = Path(path)
    if path.exists() and not (overwrite and (path / MANIFEST_NAME).is_file()):
        raise BundleError(
            f'{path} exists; give another path, or allow overwriting (which only a bundle is)'
        )
    make_folder(path, parts.write, files_of_bundle(path))
    remember(sha256_of(path / MANIFEST_NAME))  # its engines need no trial on this machine
    return read_manifest(path / MANIFEST_NAME)


def files_of_bundle(path: Path) -> Callable[[str], bool]:
    """Return what says of a file in a folder whether it is part of the bundle there."""
    if not (path / MANIFEST_NAME).is_file():
        return lambda name: True
    names = {MANIFEST_NAME, *read_manifest(path / MANIFEST_NAME).files}
    return names.__contains__


def git_revision(folder: Path) -> str:
    """Return the checkout's commit, with '-dirty' when tracked files differ; '' outside git."""
    try:
        commit, changes = (
            subprocess.run(
                ['git', *arguments], cwd=folder, capture_output=True, text=True, check=True
            ).stdout.strip()
            for arguments in (['rev-parse', 'HEAD'], ['status', '--porcelain', '-uno'])
        )
    except (OSError, subprocess.CalledProcessError):
        return ''
    return f'{commit}-dirty' if changes else commit


def model_card(manifest: Manifest, data: str) -> str:
    """
    Return the card as Markdown.

    data: a sentence or more on the images that the head was fitted on, and their licence.
    """
    steps = manifest.provenance.get('finetuned', {}).get('steps')
    tuned = f'fine-tuned for {steps} steps, its weights are in this bundle' if steps else 'frozen'
    return render('model_card.md.j2', manifest=manifest, data=data, tuned=tuned, facts=_facts)


def _facts(values: Mapping[str, Any], depth: int = 0) -> str:
    """Return nested facts as an indented list."""
    lines = []
    for name, value in values.items():
        label = f'{"  " * depth}* {name.replace("_", " ")}'
        if isinstance(value, Mapping):
            lines += [f'{label}:', _facts(value, depth + 1)]
        elif isinstance(value, (list, tuple)):
            lines.append(f'{label}: {", ".join(_number(item) for item in value)}')
        else:
            lines.append(f'{label}: {_number(value)}')
    return '\n'.join(lines) or 'Not recorded.'


def _number(value: Any) -> str:
    return f'{value:.4g}' if isinstance(value, float) else str(value)
