# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Which recordings are meant: files, bags, folders of them, patterns, lists, object stores."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ood_perception.bags.metadata import METADATA, is_storage
from ood_perception.bags.remote import is_remote, recording_path
from ood_perception.errors import DataError
from ood_perception.image.image_files import visible

from .ledger import Item, identified

_LIST = '.txt'


def find_recordings(words: Sequence[str]) -> list[Item]:
    """
    Return the recordings that are meant, each once, sorted by place.

    words: a bag's folder; an .mcap or .db3 file; a folder, whose bags are taken, and whose storage
    files beside no metadata.yaml are a recording each; a pattern (**/*.mcap); a .txt with one of
    these a line; all of them also as URLs. Raises DataError for what is none.
    """
    places = sorted({str(path) for word in words for path in _meant(word)})
    if not places:
        raise DataError(f'{" ".join(words)}: no recording is there (a bag, an .mcap or a .db3)')
    return [_recording(place) for place in places]


def is_fleet(word: str) -> bool:
    """Return whether a word means several recordings, or may."""
    if any(sign in word for sign in '*?[') or word.endswith(_LIST):
        return True
    path = recording_path(word)
    alone = not path.is_dir() or (path / METADATA).is_file() or _files(path)
    return not alone and any(True for _ in _inside(path))


def _meant(word: str) -> Iterator[Path]:
    if word.endswith(_LIST):
        yield from _listed(recording_path(word))
        return
    if any(sign in word for sign in '*?['):
        yield from (found for path in _matching(word) for found in _inside(path))
        return
    path = recording_path(word)
    path = path if is_remote(word) else path.absolute()
    if not path.exists():
        raise DataError(f'{word} does not exist: give a recording, a folder, a pattern or a list')
    yield from _inside(path)


def _listed(path: Path) -> Iterator[Path]:
    try:
        lines = path.read_text(encoding='utf-8').splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f'list {path} cannot be read: {error}') from error
    for line in lines:
        if line.strip() and not line.startswith('#'):
            yield from _meant(line.strip())


def _matching(pattern: str) -> list[Path]:
    if not is_remote(pattern):
        return [Path(name).absolute() for name in glob.glob(pattern, recursive=True)]
    store: Any = recording_path(pattern.partition('*')[0].rpartition('/')[0])
    found = store.fs.glob(pattern)
    return [recording_path(store.fs.unstrip_protocol(name)) for name in found]


def _inside(path: Path) -> Iterator[Path]:
    """Yield a recording itself, or those in a folder and all folders in it."""
    if not path.is_dir():
        if is_storage(path):
            yield path
    elif (path / METADATA).is_file():
        yield path
    else:
        for child in visible(path):
            yield from _inside(child)


def _files(path: Path) -> list[Path]:
    """Return the files of a recording."""
    return [file for file in visible(path) if is_storage(file)] if path.is_dir() else [path]


def _recording(place: str) -> Item:
    path = recording_path(place)
    return Item(*identified(place, path.name.split('.')[0] or 'recording', _files(path)))
