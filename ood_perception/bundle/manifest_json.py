# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""manifest.json to Manifest: every field checked by type, nothing unknown let through."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TypeVar

from ood_perception.bundle.manifest import FORMAT_VERSION, MANIFEST_NAME, Manifest
from ood_perception.bundle.weights.origin_rules import check_member
from ood_perception.errors import BundleError
from ood_perception.image.geometry import POLICIES
from ood_perception.image.views import view_problem
from ood_perception.json_files import parse_json, read_bounded, read_json
from ood_perception.typed_values import build

T = TypeVar('T')
MOST_INPUT_PIXELS = 32 << 20
MOST_CLASSES = 256
"""A label is one byte."""
MOST_GRAPH_BYTES = 512 << 20
"""A graph is held in memory as a whole, more than once; large weights lie beside it."""
MOST_BUNDLE_BYTES = 8 << 30


def read_manifest(path: Path) -> Manifest:
    """
    Read and check a manifest.json.

    Raises BundleError, naming file, field and remedy, for a missing file, broken JSON, another
    format, a missing, unknown or mistyped field, a path that leaves the bundle, or stages that do
    not fit together.
    """
    return parse_manifest(read_manifest_bytes(path), str(path))


def read_manifest_bytes(path: Path) -> bytes:
    """Return a manifest.json as it is, 4 MiB and one byte at most; BundleError."""
    try:
        return read_bounded(path)
    except FileNotFoundError as error:
        raise BundleError(
            f'{path.parent} is no bundle: it has no {MANIFEST_NAME}; give the folder or .zip that '
            'the trainer packed'
        ) from error
    except (OSError, ValueError) as error:
        raise BundleError(f'{path} cannot be read ({error}): copy the bundle again') from error


def parse_manifest(content: bytes, place: str) -> Manifest:
    """Return the Manifest in the bytes of a manifest.json; BundleError as read_manifest."""
    try:
        value = parse_json(content)
    except ValueError as error:
        raise BundleError(f'{place} cannot be read ({error}): copy the bundle again') from error
    return manifest_from_json(value, place)


def manifest_from_json(value: Any, place: str = MANIFEST_NAME) -> Manifest:
    """Return the Manifest that plain JSON values describe; BundleError as read_manifest."""
    if not isinstance(value, dict) or not isinstance(value.get('format'), int):
        raise BundleError(f'{place} has no integer "format": it is not a bundle manifest')
    if value['format'] != FORMAT_VERSION:
        raise BundleError(
            f'{place} has bundle format {value["format"]}, this version reads format '
            f'{FORMAT_VERSION}: pack the bundle again with the trainer of this version, or '
            'install the version of ood_perception that made it'
        )
    manifest = _built(Manifest, value, place)
    _check_paths(manifest, place)
    _check_names(manifest, place)
    _check_stages(manifest, place)
    return manifest


def read_as(kind: type[T], path: Path) -> T:
    """Read a JSON file of a bundle as a dataclass; BundleError naming file, field and remedy."""
    try:
        value = read_json(path)
    except (OSError, ValueError) as error:
        raise BundleError(f'{path} cannot be read ({error}): copy the bundle again') from error
    return _built(kind, value, str(path))


def _built(kind: type[T], value: Any, place: str) -> T:
    """Return a dataclass of a JSON object; BundleError naming `place`, the wrong field, remedy."""
    try:
        found: T = build(kind, value, place, BundleError)
    except BundleError as error:
        raise BundleError(
            f'{error}; the file was not written by this version of the trainer: pack it again'
        ) from error
    return found


def _check_paths(manifest: Manifest, place: str) -> None:
    names = [*manifest.files, manifest.golden.file]
    names += [name for s in manifest.stages for name in (s.file, s.external_data) if name]
    derived = {spec.file for spec in manifest.precisions.values() if spec.file}
    names += derived
    calibrations = {head.set_calibration for head in manifest.heads if head.set_calibration}
    names += calibrations
    for name in names:
        check_member(name, place)
    needed = {stage.file for stage in manifest.stages} | {manifest.golden.file}
    needed |= calibrations | derived
    unlisted = sorted(needed - set(manifest.files))
    if unlisted:
        listed = ', '.join(name or "''" for name in unlisted)
        raise BundleError(f'{place}: {listed} not in "files", so without checksum')


def _check_names(manifest: Manifest, place: str) -> None:
    known = {spec.name for spec in manifest.classes}
    used = {*manifest.ground_classes, *manifest.in_distribution}
    used.update(name for head in manifest.heads for name in head.compiled_classes)
    if used - known or not manifest.heads or not manifest.stages or not manifest.classes:
        raise BundleError(
            f'{place}: classes {sorted(used - known)} unknown, {len(manifest.heads)} heads, '
            f'{len(manifest.stages)} stages; pack the bundle again'
        )
    for specs in (manifest.classes, manifest.heads, manifest.stages):
        names = [spec.name for spec in specs]
        if len(set(names)) < len(names) or len(names) > MOST_CLASSES:
            kind = type(specs[0]).__name__
            raise BundleError(
                f'{place}: {len(names)} of {kind}, at most {MOST_CLASSES}, each with a name of '
                'its own; pack the bundle again'
            )
    colors = [spec.color for spec in manifest.classes]
    if not all(0 <= value <= 255 for color in colors for value in color):
        raise BundleError(f'{place}: colours of classes are three values from 0 to 255')


def _check_sizes(manifest: Manifest, place: str) -> None:
    """Refuse sizes that no network has, before somebody allocates them."""
    size = manifest.input
    if size.policy not in POLICIES or not 0 <= size.anchor <= 1:
        raise BundleError(
            f'{place}: policy {size.policy!r}, anchor {size.anchor:g}: one of '
            f'{", ".join(POLICIES)}, and 0 to 1; pack the bundle again'
        )
    if problem := view_problem(size.views):
        raise BundleError(f'{place}: {problem}')
    cells = size.height * size.width // size.patch**2
    largest = max(head.upsampling for head in manifest.heads) ** 2 * cells
    if size.height * size.width > MOST_INPUT_PIXELS or largest > MOST_INPUT_PIXELS:
        raise BundleError(
            f'{place}: input {size.height} x {size.width}, patch {size.patch}, score grid of '
            f'{largest} cells: above {MOST_INPUT_PIXELS}; refused'
        )
    for name, spec in manifest.files.items():
        if spec.size < 0 or not re.fullmatch('[0-9a-f]{64}', spec.sha256):
            raise BundleError(f'{place}: {name} has size {spec.size}, sha256 {spec.sha256!r}')
    total = sum(spec.size for spec in manifest.files.values())
    graphs = max(manifest.files[stage.file].size for stage in manifest.stages)
    if total > MOST_BUNDLE_BYTES or graphs > MOST_GRAPH_BYTES:
        raise BundleError(
            f'{place}: files of {total} bytes, a graph of {graphs}: at most {MOST_BUNDLE_BYTES} '
            f'and {MOST_GRAPH_BYTES} are read; refused'
        )


def _check_stages(manifest: Manifest, place: str) -> None:
    """Refuse stages that cannot be chained and a grid that cannot be."""
    size = manifest.input
    if size.patch < 1 or not all(s > 0 and s % size.patch == 0 for s in (size.height, size.width)):
        raise BundleError(
            f'{place}: input {size.height} x {size.width} is no multiple of patch {size.patch}; '
            'pack the bundle again'
        )
    _check_sizes(manifest, place)
    made = {'image', 'in_distribution'}
    for stage in manifest.stages:
        if missing := sorted(set(stage.inputs) - made):
            raise BundleError(
                f'{place}: stage {stage.name} reads {", ".join(missing)}, which no earlier stage '
                'makes; pack the bundle again'
            )
        made.update(stage.outputs)
    for head in manifest.heads:
        missing = sorted({head.surprisal, head.labels} - made)
        if missing or head.upsampling < 1 or not head.compiled_classes:
            raise BundleError(
                f'{place}: head {head.name} has outputs {missing} of no stage, upsampling '
                f'{head.upsampling}, {len(head.compiled_classes)} classes; pack the bundle again'
            )
        if any(s.reduced_precision and head.surprisal in s.outputs for s in manifest.stages):
            raise BundleError(
                f'{place}: head {head.name} allows reduced precision, which ruins its score: pack '
                'it with reduced_precision false'
            )
