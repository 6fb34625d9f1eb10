# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""An adapted bundle on disk: the parent's files but for what was fitted again."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ood_perception.bundle.manifest import MANIFEST_NAME, HeadSpec
from ood_perception.bundle.store import Bundle, file_spec, load_bundle, write_manifest
from ood_perception.engines.trial import remember
from ood_perception.errors import BundleError
from ood_perception.files import make_folder
from ood_perception.postprocess.calibration import HeldOutSample, arrays_of
from ood_perception.types import JsonDict

CARD = 'MODEL_CARD.md'
_SAMPLE = 'calibration.npz'


@dataclass(frozen=True)
class Changes:
    """
    What an adapted bundle has of its own.

    sample: of the drive. facts: JSON of the drive and of the fit, for the manifest. card: Markdown
    for the model card. files: further files by name, which replace the parent's (head.onnx).
    golden: golden vectors of a changed head, None where the parent's hold.
    """

    sample: HeldOutSample
    facts: JsonDict
    card: str
    files: Mapping[str, bytes]
    golden: Mapping[str, npt.NDArray[Any]] | None = None


def check_target(path: Path, overwrite: bool) -> None:
    """Raise BundleError where a bundle cannot be written, before the work."""
    if path.exists() and not (overwrite and (path / MANIFEST_NAME).is_file()):
        raise BundleError(
            f'{path} exists: give another path, or --overwrite (which replaces only a bundle)'
        )


def write_adapted(parent: Bundle, head: HeadSpec, path: Path, changes: Changes) -> Bundle:
    """Write the bundle `path`, whole or not at all, and return it, every file checked."""

    def fill(folder: Path) -> None:
        for name in parent.manifest.files:
            shutil.copyfile(parent.path(name), folder / name)
        for name, content in changes.files.items():
            (folder / name).write_bytes(content)
        own = head.set_calibration or _SAMPLE
        np.savez(folder / own, **arrays_of(changes.sample))  # type: ignore[arg-type]
        if changes.golden is not None:
            np.savez(folder / parent.manifest.golden.file, **changes.golden)  # type: ignore[arg-type]
        card = folder / CARD
        text = card.read_text(encoding='utf-8') if card.is_file() else ''
        card.write_text(_card(path.name, text, changes.card), encoding='utf-8')
        calibrated = replace(head, set_calibration=own)
        manifest = replace(
            parent.manifest,
            name=path.name,
            heads=tuple(calibrated if one is head else one for one in parent.manifest.heads),
            calibration=changes.facts,
            provenance={
                **parent.manifest.provenance,
                'parent': {'name': parent.manifest.name, 'sha256': parent.sha256},
            },
            files={file.name: file_spec(file) for file in sorted(folder.iterdir())},
        )
        write_manifest(folder, manifest)

    make_folder(path, fill)
    adapted = load_bundle(path)
    remember(adapted.sha256)  # made here of a bundle that was loaded: no trial
    return adapted


def _card(name: str, parent: str, section: str) -> str:
    """Return the parent's card under the bundle's own name, what was adapted first."""
    _, _, rest = parent.partition('\n') if parent.startswith('# ') else ('', '', parent)
    return f'# {name}\n\n## Adapted\n\n{section.strip()}\n\n## The parent\n{rest}'
