# Copyright 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
What is known of every item: one file each, so that work that was stopped goes on.

    ledger/<name>.json       which item, under which settings, done or why not

An item's results are written first: an entry that says done has them, whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from ood_perception.errors import DataError
from ood_perception.evaluation.record import file_name
from ood_perception.json_files import read_json, write_json

DONE, FAILED = 'done', 'failed'


@dataclass(frozen=True)
class Item:
    """
    What a worker does at a time: a recording, an image.

    place: absolute path or URL. name: of its results, distinct. identity: sha256 over names, sizes
    and times of its files; another one at the same place has another identity.
    """

    place: str
    name: str
    identity: str


def identified(place: str, stem: str, files: Iterable[Path]) -> tuple[str, str, str]:
    """Return an Item's place, name (with the stem in it) and identity; a file may be missing."""
    digest = hashlib.sha256(place.encode())
    mark = digest.hexdigest()[:8]
    for file in files:
        if not file.exists():  # whoever reads it says so
            continue
        found = file.stat()
        digest.update(f'{file.name} {found.st_size} {found.st_mtime}'.encode())
    return place, f'{file_name(stem)[:80]}-{mark}', digest.hexdigest()


@dataclass(frozen=True)
class Entry:
    """
    One item's line.

    place, identity: see Item. key: of bundle, parameters and options. status: DONE or FAILED.
    reason: why it failed. attempts: how often it was begun. worker: host and process of the last.
    seconds: of the last attempt.
    """

    place: str
    identity: str
    key: str
    status: str
    reason: str = ''
    attempts: int = 1
    worker: str = ''
    seconds: float = 0.0


class Ledger:
    """The entries below a folder, for one key; one process writes."""

    def __init__(self, folder: Path, key: str) -> None:
        self.folder, self.key = folder, key

    def entry(self, item: Item) -> Entry | None:
        """Return what is known of an item as it is now, under this key; None for nothing."""
        path = self._path(item)
        if not path.is_file():
            return None
        try:
            found = Entry(**read_json(path))
        except (ValueError, TypeError) as error:
            raise DataError(f'{path} is no entry of a ledger ({error}): remove it') from error
        now = (item.place, item.identity, self.key)
        return found if (found.place, found.identity, found.key) == now else None

    def is_done(self, item: Item) -> bool:
        """Return whether an item needs no other attempt."""
        entry = self.entry(item)
        return entry is not None and entry.status == DONE

    def failure(self, item: Item) -> str:
        """Return why an item failed, '' where it did not."""
        entry = self.entry(item)
        return entry.reason if entry else ''

    def add(self, item: Item, entry: Entry) -> None:
        """Write an item's entry; its results must be there."""
        write_json(self._path(item), asdict(entry))

    def results(self, item: Item) -> Path:
        """Return the folder of a recording's results; other items keep theirs elsewhere."""
        return self.folder / 'recordings' / item.name

    def _path(self, item: Item) -> Path:
        return self.folder / 'ledger' / f'{item.name}.json'
