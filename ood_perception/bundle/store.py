# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Bundles on disk: a folder, or the same stored in a .zip; every file against its checksum."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ood_perception.bundle.external_data import check_external_data
from ood_perception.bundle.manifest import MANIFEST_NAME, FileSpec, Manifest, StageSpec
from ood_perception.bundle.manifest_json import parse_manifest, read_manifest_bytes
from ood_perception.bundle.signatures import check_signature
from ood_perception.bundle.unpacking import unpacked, verify_file
from ood_perception.errors import BundleError
from ood_perception.files import make_file, sha256_of, user_path
from ood_perception.json_files import json_text

BUNDLE_ENV = 'OOD_PERCEPTION_BUNDLE'
SHIPPED_BUNDLES = Path(__file__).resolve().parents[1] / 'bundles'
DEFAULT_BUNDLE = SHIPPED_BUNDLES / 'road_open'


@dataclass(frozen=True)
class Bundle:
    """
    A bundle that was read and checked.

    root: its folder. manifest: what it says. sha256: of manifest.json, which names the checksums
    of all other files, so it stands for the whole.
    stage_root: where the stages with their external weights lie; root, or the cache's folder
        once the weights were completed there.
    """

    root: Path
    manifest: Manifest
    sha256: str
    stage_root: Path

    def path(self, file: str) -> Path:
        """Return the place of one of the bundle's own files."""
        return self.root / file

    def stage_path(self, stage: StageSpec) -> Path:
        """Return the ONNX file of a stage, beside its external weights if it has some."""
        return (self.stage_root if stage.external_data else self.root) / stage.file

    @property
    def missing_weights(self) -> tuple[StageSpec, ...]:
        """Stages whose external weights are not there yet (see completion.complete)."""
        stages = [stage for stage in self.manifest.stages if stage.external_data]
        return tuple(stage for stage in stages if not self._has(stage.external_data))

    def _has(self, file: str) -> bool:
        """Return whether weights are there: a file that no checksum covers is not taken."""
        covered = file in self.manifest.files or self.stage_root != self.root
        return covered and (self.stage_root / file).is_file()


def default_bundle_path() -> Path:
    """Return the bundle to use when none is named: OOD_PERCEPTION_BUNDLE, else the shipped one."""
    return bundle_path(os.environ.get(BUNDLE_ENV) or DEFAULT_BUNDLE)


def shipped_bundles() -> dict[str, Path]:
    """Return the bundles that come with the package, by name."""
    found = sorted(SHIPPED_BUNDLES.glob(f'*/{MANIFEST_NAME}'))
    return {path.parent.name: path.parent for path in found}


def bundle_path(place: str | Path) -> Path:
    """
    Return where a bundle lies.

    place: a folder or .zip; the name of a shipped bundle (water_default), where nothing of that
    name lies in the working directory; '' for the default one.
    """
    if not str(place):
        return default_bundle_path()
    path = user_path(place)
    return path if path.exists() else shipped_bundles().get(str(place), path)


def load_bundle(
    path: str | Path, verify: bool = True, require_signature: Sequence[str] = ()
) -> Bundle:
    """
    Load a bundle from its folder or .zip, or by the name of a shipped one (see bundle_path).

    verify: compare size and sha256 of every file; leave it on unless it was just done.
    A .zip is unpacked once into the cache.
    require_signature: public keys one of which must have signed it (see signatures).

    Raises BundleError for a missing, incomplete, altered, foreign or unsigned bundle.
    """
    try:
        root = bundle_path(path)
        packed, folder = root.is_file(), root.is_dir()
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise BundleError(f'bundle {path} cannot be read: {error.strerror}') from error
    if packed:
        root = unpacked(root)
    elif not folder:
        raise BundleError(
            f'bundle {path} does not exist: give a folder or .zip of the trainer, or the name of '
            f'a shipped bundle: {", ".join(shipped_bundles())}'
        )
    content = read_manifest_bytes(root / MANIFEST_NAME)
    if require_signature:
        check_signature(root, content, require_signature)
    manifest = parse_manifest(content, str(root / MANIFEST_NAME))
    if verify:
        for name, spec in manifest.files.items():
            verify_file(root / name, spec)
        check_external_data(root, manifest)
    return Bundle(root, manifest, hashlib.sha256(content).hexdigest(), root)


def file_spec(path: Path) -> FileSpec:
    """Return checksum and size of a file, for a manifest."""
    return FileSpec(sha256_of(path), path.stat().st_size)


def write_manifest(root: Path, manifest: Manifest) -> None:
    """Write manifest.json into a bundle's folder, whole or not at all; same input, same bytes."""
    text = json_text(manifest.to_json(), indent=2, sort_keys=True) + '\n'
    make_file(root / MANIFEST_NAME, lambda file: file.write_bytes(text.encode()))
