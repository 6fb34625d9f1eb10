# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""What lies in a store of artifacts: folders <kind>-<16 digits of a key>."""

from __future__ import annotations

import json
from pathlib import Path


def kept(store: Path, kind: str) -> set[Path]:
    """Return the folders of all artifacts of a kind."""
    return set(store.glob(f'{kind}-{"[0-9a-f]" * 16}'))


def only(store: Path, kind: str) -> Path:
    """Return the folder of the one artifact of a kind."""
    (folder,) = kept(store, kind)
    return folder


def report(store: Path, kind: str) -> dict:
    """Return what the one artifact of a kind says of itself."""
    return json.loads((only(store, kind) / 'report.json').read_text())
