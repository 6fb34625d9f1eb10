# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Layouts of data sets: how their folders become image lists and evaluation sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ood_perception.errors import ConfigError, DataError

from ..data.images import ImageList
from .table import CODE, LAYOUTS, SETS, EvaluationSet
from .taxonomy import SIGN, mapped


def load_images(layout: str, root: Path, split: str) -> ImageList:
    """
    Load one split of a data set.

    layout: a key of LAYOUTS, or with the classes of a taxonomy, 'cityscapes@road'.
    Raises ConfigError for an unknown layout or taxonomy, DataError for its files.
    """
    base, _, taxonomy = layout.partition(SIGN)
    if base not in LAYOUTS:
        raise ConfigError(f'unknown data set layout {base!r}; known are {sorted(LAYOUTS)}')
    return mapped(LAYOUTS[base].trained(root, split), base, taxonomy)


def open_set(name: str, root: Path, split: str = '') -> EvaluationSet:
    """
    Open an evaluation set.

    name: 'NAME', 'NAME/SPLIT' or 'NAME/SPLIT=FOLDER', with NAME a key of SETS, 'NAME@TAXONOMY'
        too; FOLDER is the set's own folder, by default one of its usual names under root.
    root: the folder of all sets. split: as in the name, instead of it.

    Nothing but folder listings and small lists is read: images and labels are read one by one.
    Raises ConfigError for an unknown set or split, DataError saying what is missing, and where.
    """
    address, _, folder = name.partition('=')
    asked, _, named_split = address.partition('/')
    base, _, taxonomy = asked.partition(SIGN)
    if base not in SETS:
        raise ConfigError(f'unknown set {base!r}; known are {", ".join(SETS)}')
    entry = SETS[base]
    chosen = entry.check_split(base, split or named_split)
    opened = entry.open(asked, entry.find(root, folder), chosen)
    return replace(opened, images=mapped(opened.images, base, taxonomy))


def expand_names(names: Sequence[str], root: Path) -> list[str]:
    """Return the names of sets with 'NAME/*' and 'NAME/*=FOLDER' replaced by all that it holds."""
    expanded = []
    for name in names:
        address, separator, folder = name.partition('=')
        base, _, split = address.partition('/')
        code = CODE.get(SETS[base].code) if base in SETS else None
        members = code.members if code else None
        if split != '*' or members is None:
            expanded.append(name)
            continue
        place = SETS[base].find(root, folder)
        found = members(place)
        if not found:
            raise DataError(f'{name}: {place} holds nothing\n{SETS[base].tree}')
        expanded += [f'{base}/{member}{separator}{folder}' for member in found]
    return expanded


def list_sets() -> str:
    """Return one line per set: its name, what it is, its splits (the default first)."""
    width = max(len(name) for name in SETS)
    return '\n'.join(
        f'{name:{width}}  {entry.description}'
        + (f'; splits: {", ".join(names)}' if any(names := entry.split_names) else '')
        for name, entry in SETS.items()
    )
