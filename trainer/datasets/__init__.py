# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Layouts of data sets: how their folders become picture lists."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ood_perception.errors import ConfigError

from ..data import PictureList
from . import camvid, cityscapes, folders

LAYOUTS: dict[str, Callable[[Path, str], PictureList]] = {
    'camvid': camvid.load,
    'cityscapes': cityscapes.load,
    'folders': folders.load,
}


def load_pictures(layout: str, root: Path, split: str) -> PictureList:
    """Load one split of a data set; ConfigError for an unknown layout, DataError for its files."""
    if layout not in LAYOUTS:
        raise ConfigError(f'unknown data set layout {layout!r}; known are {sorted(LAYOUTS)}')
    return LAYOUTS[layout](root, split)
